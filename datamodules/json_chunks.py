"""Cuts a JSON file of any size into files of whole records, at places that can be come back to.

The file holds a list of records, or a mapping of names to records; a record is a mapping or a list. Only brackets and quotes are
looked at here, by arrays, which takes a small share of the time that parsing takes; what reads the records checks them.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**20  # bytes read at a time, which a processor's cache holds; a longer record is read in several
LARGEST = 2**24  # bytes of a record; what is longer is a file whose records stand deeper than at its top
_QUOTE, _BACKSLASH, _OPEN, _CLOSE = b'"'[0], b"\\"[0], b"{"[0], b"}"[0]
_BRACKET = 32  # [ and ] differ from { and } by this bit
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"(\s*:)?|[\[\]{}]', re.DOTALL)
_BETWEEN = re.compile(rb'\s*,?\s*(?:("(?:[^"\\]|\\.)*")\s*:\s*)?')

Form = Literal["list", "mapping"]


@dataclass(frozen=True)
class Chunk:
    """Whole records of a file.

    Attributes:
        start, end: bytes of the file; the next chunk starts at `end`.
        records: them as JSON, in a list; those of a mapping as {"key": name, "value": record}.
    """

    start: int
    end: int
    records: bytes


def form_of(path: Path, at: str = "") -> tuple[Form, int]:
    """Whether a file holds a list or a mapping, and where its first record may begin.

    Args:
        at: the key, or several joined by dots, below which they stand; "" where they are the whole file.

    Raises:
        ValueError: neither, or no such key.
    """
    place = 0
    for key in at.split(".") if at else ():
        place = _behind(path, _opening(path, place)[1], key)
    return _opening(path, place)


def _opening(path: Path, place: int) -> tuple[Form, int]:
    """What begins at byte `place`, and the byte behind its bracket."""
    with path.open("rb") as file:
        file.seek(place)
        head = file.read(4096)
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if first[:1] not in (b"[", b"{"):
        raise ValueError(
            f"{path} does not hold a list or a mapping of records: it begins with {head[:40]!r}" + (f", byte {place:,}" if place else "")
        )
    return ("list" if first[:1] == b"[" else "mapping"), place + len(head) - len(first) + 1


def _behind(path: Path, start: int, key: str) -> int:
    """The byte behind a key and its colon, in the mapping whose inside begins at byte `start`. What stands before it is passed over."""
    depth, seen = 0, list[str]()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        for token in _TOKEN.finditer(text, start):
            bracket = token[0][:1]
            if bracket in b"[{":
                depth += 1
            elif bracket in b"]}":
                depth -= 1
                if depth < 0:
                    break
            elif depth == 0 and token[1]:  # a string that a colon follows
                seen.append(json.loads(token[0][: -len(token[1])]))
                if seen[-1] == key:
                    return token.end()
    raise ValueError(f"{path} has no key {key!r} to read the records below; it has {', '.join(seen[:12]) or 'none'}")


def chunks(path: Path, start: int, size: int, at: str = "") -> Iterator[Chunk]:
    """The records from byte `start` on, which is the end of a chunk or what `form_of` says, in chunks of about `size` bytes.

    Args:
        at: as in `form_of`; what stands behind those records is not read.

    Raises:
        ValueError: the file ends in the middle of a record, something else than records stands in it, or one is longer than `LARGEST`.
    """
    form, _ = form_of(path, at)
    closing = b"]" if form == "list" else b"}"
    held, place, begun, found = b"", start, start, list[bytes]()  # `held` begins at byte `place`
    with path.open("rb") as file:
        file.seek(start)
        while True:
            block = file.read(BLOCK)
            held += block
            used = 0
            for left, right in _records(held):
                key = _BETWEEN.fullmatch(held[used:left])
                if key is None or (key[1] is None) != (form == "list"):
                    raise ValueError(f"{path} holds {held[used:left][:40]!r} at byte {place + used:,}, where a {form} has a record")
                record = held[left:right]
                _check_length(path, place + left, record)
                found.append(record if form == "list" else b'{"key":' + key[1] + b',"value":' + record + b"}")
                used = right
                if place + used - begun >= size:  # after a record, not after a block: cuts do not depend on where reading began
                    yield Chunk(begun, place + used, b"[" + b",".join(found) + b"]")
                    begun, found = place + used, []
            held, place = held[used:], place + used
            if not block or (at and held.lstrip().startswith(closing)):
                break
            _check_length(path, place, held)
    if found:
        yield Chunk(begun, place, b"[" + b",".join(found) + b"]")
    rest = held.strip()
    if rest != closing and not (at and rest.startswith(closing)):
        raise ValueError(f"{path} stops at byte {place:,} with {held[:40]!r}: it was not fetched whole, or holds more than records")


def parsed(path: Path, chunk: Chunk) -> list[Any]:
    """The records of a chunk. Raises ValueError where they are no JSON."""
    try:
        return list(json.loads(chunk.records))
    except ValueError as error:
        raise ValueError(
            f"{path}, between byte {chunk.start:,} and {chunk.end:,}, is no JSON ({error}): it is damaged or was not fetched whole; fetch "
            "it again"
        ) from error


def _check_length(path: Path, place: int, text: bytes) -> None:
    if len(text) > LARGEST:
        raise ValueError(
            f"{path} holds a record of more than {LARGEST:,} bytes from byte {place:,} on: {text[:400]!r}... The list or mapping of "
            "records is taken for the whole file: where it stands below a key, name that in a mapping (masks.at, scores.at)"
        )


def _records(text: bytes) -> list[tuple[int, int]]:
    """Where the whole records in `text`, which begins between two of them, begin and end."""
    codes = np.frombuffer(text, np.uint8)
    folded = codes | _BRACKET
    marks = np.flatnonzero((codes == _QUOTE) | (folded == _OPEN) | (folded == _CLOSE))
    quotes = codes[marks] == _QUOTE
    ends_of_strings = quotes.copy()
    if b"\\" in text:
        ends_of_strings[quotes] = ~_escaped(marks[quotes], codes)
    inside = np.cumsum(ends_of_strings, dtype=np.uint8) & 1  # of strings, where brackets are text
    brackets = marks[~quotes & (inside == 0)]
    opens = folded[brackets] == _OPEN
    depth = np.cumsum(np.where(opens, 1, -1))
    outside = np.minimum.accumulate(depth) >= 0  # before the bracket that closes the file
    starts, ends = brackets[opens & (depth == 1) & outside], brackets[~opens & (depth == 0) & outside] + 1
    return list(zip(starts[: len(ends)].tolist(), ends.tolist(), strict=True))


def _escaped(quotes: NDArray[np.int64], codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N,) whether an odd number of backslashes stands before a quote."""
    escaped = (quotes > 0) & (codes[quotes - 1] == _BACKSLASH)
    for place in np.flatnonzero(escaped).tolist():
        first = quote = int(quotes[place])
        while first > 0 and codes[first - 1] == _BACKSLASH:
            first -= 1
        escaped[place] = (quote - first) % 2
    return escaped
