"""Images that stand twice: in one split, in several, or among the test images of other data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from datamodules.findings import Report, share
from datamodules.records import SPLITS

_RANKS = len(SPLITS) + 1  # that of a split, and behind them that of what is no split


@dataclass
class Elsewhere:
    """The test images of other data.

    Attributes:
        places: by whatever tells an image's bytes apart.
        images: how many. unknown: of these, those that are not there and have no hash.
    """

    places: dict[str, str] = field(default_factory=dict)
    images: int = 0
    unknown: int = 0

    def add(self, marks: Collection[str], where: str) -> None:
        """A test image; `marks` are none where nothing tells it apart."""
        self.images += 1
        self.unknown += not marks
        self.places |= dict.fromkeys(marks, where)

    def text(self, name: str) -> str:
        """How many were compared with."""
        known = share(self.images - self.unknown, self.images, f"test images of {name}")
        return f"compared with {known}" + ("; the others are not there, and have no hash" if self.unknown else "")


@dataclass
class _Group:
    """Copies of one image.

    Attributes:
        last: rank of the last split that one of them is in; -1 where none is in any.
        kept: numbers of those that are in it and stay.
    """

    last: int = -1
    kept: list[int] = field(default_factory=list)


class Copies:
    """Finds what stands twice. Of copies in several splits those are left out that are trained on; if a test image is among them, those
    of val too. Of an image that stands once a number and sixteen bytes are kept.

    Args:
        where: an image's number -> where it is, in words.
        leave_out: takes the number of an image that training must do without, and the sort of problem.
        elsewhere: test images that none of train and val may be.
    """

    def __init__(
        self, report: Report, where: Callable[[int], str], leave_out: Callable[[int, str], None], elsewhere: Elsewhere | None = None
    ) -> None:
        self.report, self.where, self.leave_out = report, where, leave_out
        self._first: dict[bytes, int] = {}  # number * _RANKS + rank, by mark
        self._groups: dict[bytes, _Group] = {}
        self._elsewhere = elsewhere or Elsewhere()

    def add(self, number: int, marks: Collection[str], split: str, where: str) -> None:
        """An image of a split, by whatever tells its bytes apart; two images are one if they share a mark."""
        other = next((self._elsewhere.places[mark] for mark in marks if mark in self._elsewhere.places), None)
        if other is not None and split != "test":
            self.report.add("image in another test", where, f"also at {other}")
            self.leave_out(number, "image in another test")
        rank = SPLITS.index(split) if split in SPLITS else len(SPLITS)
        keys = [hashlib.blake2b(mark.encode(), digest_size=16).digest() for mark in marks]
        known = [key for key in keys if key in self._first]
        for key in keys:
            self._first.setdefault(key, number * _RANKS + rank)
        if known:
            first, of = divmod(self._first[known[0]], _RANKS)
            kind = "image twice" if of == rank else "image twice in splits"
            self.report.add(kind, where, lambda: f"also at {self.where(first)}")
            self._keep_the_last([self._group(key) for key in known], number, rank if rank < len(SPLITS) else -1)

    def _group(self, key: bytes) -> _Group:
        if key not in self._groups:
            number, rank = divmod(self._first[key], _RANKS)
            self._groups[key] = _Group(rank, [number]) if rank < len(SPLITS) else _Group()
        return self._groups[key]

    def _keep_the_last(self, groups: Collection[_Group], number: int, rank: int) -> None:
        """One more copy, in all of these groups."""
        last = max(rank, *(group.last for group in groups))
        for group in groups:
            if group.last < last:
                for copy in group.kept:
                    self.leave_out(copy, "image twice in splits")
                group.kept.clear()
            group.last = max(group.last, rank)
            if 0 <= rank == last:
                group.kept.append(number)
        if 0 <= rank < last:
            self.leave_out(number, "image twice in splits")
