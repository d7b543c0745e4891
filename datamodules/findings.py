"""What was found wrong with data: each sort of problem counted, its first finds located, and how much of the data is whole."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from components.prompts import DISTORTION_TYPES, SEVERITIES
from datamodules.records import SPLITS

SHOWN = 5  # finds of each sort that are named

Weight = Literal["error", "warning"]
KINDS: dict[str, tuple[Weight, str]] = {
    "table": ("error", "a table is damaged or of another schema"),
    "no images": ("error", "there is no image"),
    "column": ("error", "a column of a list is unknown"),
    "row": ("error", "a row of a list has no image, no id, not exactly one region, or other cells than its header"),
    "id missing": ("error", "an image or a region has no id"),
    "id twice": ("error", "an id stands twice"),
    "split": ("error", f"a split is none of {', '.join(SPLITS)}"),
    "split empty": ("warning", "no image of a split is left: nothing to train on, to choose a model by, or to test on"),
    "source missing": ("error", "an image has no source, so its split cannot be trusted"),
    "source in two splits": ("error", "images of one source are in several splits"),
    "group": ("error", "an image is in several groups"),
    "too few groups": ("error", "there are too few groups to deal them to splits"),
    "archive missing": ("error", "an archive is missing or damaged"),
    "path": ("error", "an image's path is absolute or leaves the data's folder, and is not read: write it relative to that folder"),
    "image missing": ("error", "an image is not where the table says"),
    "image unreadable": ("error", "an image cannot be decoded"),
    "image changed": ("error", "an image's bytes are not those that the table's hash was taken of"),
    "image of another size": ("error", "an image has another size than its row"),
    "image twice in splits": ("error", "the same image stands in several splits"),
    "image in another test": ("error", "an image of train or val is a test image of the data that this should keep apart from"),
    "reference in several sources": ("error", "versions of one clean image are of several sources, and these in several splits"),
    "reference missing": ("warning", "a clean image is not where the table says; training does without"),
    "image twice": ("warning", "the same image stands twice in a split"),
    "no regions": ("warning", "an image has no regions"),
    "mask": ("error", "a mask is malformed, or of another size than its image"),
    "empty region": ("error", "a mask covers no pixel"),
    "region": ("error", "a box or a polygon is none, or lies outside its image"),
    "region twice": ("warning", "a region stands twice: two of an image have the same mask, or a row of a list is repeated"),
    "tiny region": ("warning", "a region of a list is a single pixel"),
    "region cut": ("warning", "a box or a polygon reaches out of its image, and is cut to it"),
    "opinions": ("error", "rows of one region show different places, or have standard deviations of their own"),
    "box or area": ("error", "a box or an area is not the mask's, which training measures"),
    "scale": ("error", "a scale is none, or most scores of a list lie outside it"),
    "number": ("error", "a score or a standard deviation is no number"),
    "label out of scale": ("error", "a score lies outside its scale"),
    "std not of the scale": ("error", "a standard deviation is negative, or larger than its scale allows: was it rescaled with the score?"),
    "std very small": ("warning", "the standard deviations of a scale are very small for it: were they rescaled and the scores not?"),
    "std very large": ("warning", "the standard deviations of a scale are very large for it: were the scores rescaled and they not?"),
    "std without score": ("error", "a standard deviation stands without its score"),
    "distortion": ("error", f"a distortion is not one of {', '.join(DISTORTION_TYPES)}, or named twice for a region"),
    "severity": ("error", f"a severity is none of {', '.join(SEVERITIES)}"),
}  # fmt: skip


@dataclass
class Report:
    """What was found.

    Attributes:
        counts: by sort of problem. finds: the first of each sort, as (where, what).
        unusable: ids of images that training must leave out, and the first sort of problem that makes them so: they are not there,
            cannot be read, their masks cannot, their split is none or another than that of their source, or they are test images.
        rows: the same of rows of tables, by table and number, that no id tells apart, since they have none or one that stands twice.
        images, regions: in all; splits: images by split; left: of these, those that training must leave out; labelled: regions by what
            is known of them.
        listed: rows of a list. lost: of these, those that training must leave out, by the reason.
        apart: what was compared with other data, in a sentence; "" for nothing.
    """

    counts: Counter[str] = field(default_factory=Counter)
    finds: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    unusable: dict[str, str] = field(default_factory=dict)
    rows: dict[tuple[str, int], str] = field(default_factory=dict)
    images: int = 0
    regions: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    listed: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    apart: str = ""

    def add(self, kind: str, where: str, what: str | Callable[[], str] = "") -> None:
        """Counts a find, and keeps it if it is among the first of its sort; only then is what costs something to say asked for."""
        self.counts[kind] += 1
        if len(self.finds[kind]) < SHOWN:
            self.finds[kind].append((where, what if isinstance(what, str) else what()))

    def leave_out(self, image: str, kind: str) -> None:
        """Training must do without an image."""
        self.unusable.setdefault(image, kind)

    def tell_empty_splits(self) -> None:
        """Warns of splits whose images must all be left out, once it is known which."""
        for split in SPLITS:
            if 0 < self.splits[split] <= self.left[split]:
                self.add("split empty", split, f"all of its {self.splits[split]:,} images must be left out")

    @property
    def errors(self) -> int:
        """Finds that are no mere warnings."""
        return sum(n for kind, n in self.counts.items() if KINDS[kind][0] == "error")

    @property
    def usable(self) -> int:
        """Images that training can use. Rows of a list that name no image are left out under the name "", which is none."""
        return self.images - len(self.rows) - sum(map(bool, self.unusable))

    @property
    def reasons(self) -> Counter[str]:
        """Why images are left out, and how many."""
        return Counter([*self.unusable.values(), *self.rows.values()])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        problems = [
            {"kind": k, "weight": KINDS[k][0], "meaning": KINDS[k][1], "count": self.counts[k], "first": [list(f) for f in self.finds[k]]}
            for k in KINDS
            if self.counts[k]
        ]
        coverage = {
            "images": self.images,
            "usable": self.usable,
            "left_out": dict(self.reasons),
            "regions": self.regions,
            "splits": dict(self.splits),
            "usable_splits": self._usable_splits(),
            "labelled": dict(self.labelled),
        }
        if self.listed:
            coverage["rows"] = {"listed": self.listed, "usable": self.listed - self.lost.total(), "left_out": dict(self.lost)}
        rows = [list(place) for place in self.rows]
        left_out = {"unusable": list(self.unusable), **({"unusable_rows": rows} if rows else {})}
        return {"errors": self.errors, "problems": problems, "coverage": coverage, **left_out}

    def text(self) -> str:
        """For people: the problems, then how much of the data is whole."""
        lines = []
        for kind in (k for k in KINDS if self.counts[k]):
            lines.append(f"{KINDS[kind][0]}: {kind}: {self.counts[kind]:,} ({KINDS[kind][1]})")
            lines += [f"    {where}{f': {what}' if what else ''}" for where, what in self.finds[kind]]
            more = self.counts[kind] - len(self.finds[kind])
            lines += [f"    and {more:,} more"] if more else []
        splits = ", ".join(f"{n:,} {s}" for s, n in self._usable_splits().items())
        lines.append(f"{share(self.usable, self.images, 'images')} can be used ({splits}){_because(self.reasons)}")
        if self.listed:
            rows = self.listed - self.lost.total()
            lines.append(f"{share(rows, self.listed, 'rows of the list')} can be used{_because(self.lost)}")
        lines += [self.apart] if self.apart else []
        known = ", ".join(f"{name} {n / max(self.regions, 1):.1%}" for name, n in self.labelled.items())
        return "\n".join([*lines, f"{self.regions:,} regions; known of them: {known or 'nothing'}"])

    def _usable_splits(self) -> dict[str, int]:
        """Images that training can use, by split; what is no split has none."""
        return {split: count - self.left[split] for split, count in self.splits.items() if split in SPLITS or count > self.left[split]}


def share(part: int, whole: int, what: str) -> str:
    """How many of how many, in words."""
    return f"{part:,} of {whole:,} {what} ({part / max(whole, 1):.1%})"


def _because(reasons: Counter[str]) -> str:
    return f"; left out: {', '.join(f'{why} {count:,}' for why, count in reasons.items())}" if reasons else ""
