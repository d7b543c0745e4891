"""The directory of a usual zip archive, read at once: `zipfile` makes an object of each member, which takes many times as long."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

STORED, DEFLATED = 0, 8
Member = tuple[bytes, int, int, int, int, int]  # name, offset, packed length, method, length, CRC-32

_END, _ENTRY = struct.Struct("<4s4H2IH"), struct.Struct("<4s4xHH4x3I3H8xI")  # of the directory; of a member in it
_END64, _LOCATOR = struct.Struct("<4s12x2I4Q"), struct.Struct("<4sIQI")  # before the end, where numbers have no room in it
_END_MARK, _MARK, _END64_MARK, _LOCATOR_MARK = b"PK\x05\x06", b"PK\x01\x02", b"PK\x06\x06", b"PK\x06\x07"
_ENCRYPTED = 1  # a flag
_MORE = 2**32 - 1  # stands for a number that is given elsewhere
_EXTRA, _LARGE, _OTHER_NAME = struct.Struct("<HH"), 0x0001, 0x7075  # a field's kind and length; those that matter


def usual_members(path: Path) -> list[Member] | None:
    """The files in a zip archive, in its order; None where anything is unusual, and `zipfile` must look: a comment, parts, bytes before
    it, encryption, other methods, names that are not ASCII, or damage.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        directory, count = _directory(file)
    found, place, left = list[Member](), 0, count
    while place + _ENTRY.size <= len(directory):
        mark, flags, method, check, packed, whole, named, extra, comment, offset = _ENTRY.unpack_from(directory, place)
        begin = place + _ENTRY.size
        name = directory[begin : begin + named]
        if mark != _MARK or flags & _ENCRYPTED or method not in (STORED, DEFLATED) or not name.isascii() or b"\0" in name:
            return None
        if extra:
            numbers = _with_extra(directory[begin + named : begin + named + extra], whole, packed, offset)
            if numbers is None:
                return None
            whole, packed, offset = numbers
        if _MORE in (whole, packed, offset):
            return None
        if not name.endswith(b"/"):
            found.append((name, offset, packed, method, whole, check))
        place, left = begin + named + extra + comment, left - 1
    return found if place == len(directory) and left == 0 else None


def _directory(file: BinaryIO) -> tuple[bytes, int]:
    """The directory and how many members it tells of; none of -1 members where the archive does not end as most do."""
    nothing = b"", -1
    size = file.seek(0, os.SEEK_END)
    end = size - _END.size
    if end < 0:
        return nothing
    file.seek(end)
    mark, part, first, here, count, length, start, comment = _END.unpack(file.read())
    if mark != _END_MARK or part or first or here != count or comment:
        return nothing
    if start + length != end:
        end -= _LOCATOR.size + _END64.size
        if end < 0:
            return nothing
        file.seek(end)
        mark, part, first, here, count, length, start = _END64.unpack(file.read(_END64.size))
        locator = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if mark != _END64_MARK or locator != (_LOCATOR_MARK, 0, end, 1) or part or first or here != count:
            return nothing
    if start + length != end:
        return nothing
    file.seek(start)
    return file.read(length), count


def _with_extra(fields: bytes, *numbers: int) -> tuple[int, ...] | None:
    """Length, packed length and offset, those that had no room as the extra fields give them; None where these are no such fields, or hold
    another name."""
    found, place = list(numbers), 0
    while place + _EXTRA.size <= len(fields):
        kind, length = _EXTRA.unpack_from(fields, place)
        begin, place = place + _EXTRA.size, place + _EXTRA.size + length
        if kind == _OTHER_NAME:
            return None
        if kind == _LARGE:
            for n in (n for n, number in enumerate(numbers) if number == _MORE):
                if begin + 8 > min(place, len(fields)):
                    return None
                found[n], begin = int.from_bytes(fields[begin : begin + 8], "little"), begin + 8
    return tuple(found) if place == len(fields) else None
