"""Image files beside a table or inside its zip and tar archives, read where they are: nothing is unpacked.

A path is relative to the data's folder; "Blur_3.zip::Blur_3/000123.png" names a member of an archive. Of an archive, only where
its members begin and end is kept in memory; a member is read by its place, from any process, in any order.
"""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.images import ImageError
from datamodules.zip_directory import DEFLATED, STORED, Member, usual_members

INSIDE = "::"
ARCHIVES = (".zip", ".tar")
OPEN_FILES = 64  # archives held open by one process
_LOCAL_HEADER, _LOCAL_LENGTH = b"PK\x03\x04", 30


@dataclass(frozen=True)
class Directory:
    """Where the members of an archive are; sorted by name.

    Attributes:
        names: (N,) UTF-8 bytes.
        offsets, lengths: (N,) in bytes; of a zip member, of its local header and of its compressed data.
        methods: (N,) zip's number for the compression; -1 in a tar archive, whose members lie there as they are.
        sizes: (N,) of the members, when they are decompressed.
        checks: (N,) CRC-32 of the member's bytes; zeros in a tar archive, which has none.
    """

    names: NDArray[np.bytes_]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    methods: NDArray[np.int16]
    sizes: NDArray[np.int64]
    checks: NDArray[np.uint32]

    def find(self, names: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Places of `names` (N,) among the members; -1 where there is none of that name, else the last of that name, the valid one."""
        if not len(self.names):
            return np.full(len(names), -1)
        places = (np.searchsorted(self.names, names, side="right") - 1).clip(min=0)
        return np.where(self.names[places] == names, places, -1)


def read_directory(path: Path) -> Directory:
    """The members of a zip or an uncompressed tar archive.

    Raises:
        ImageError: missing, damaged, compressed as a whole, or no archive.
    """
    if not path.is_file():
        raise ImageError(f"archive {path} is missing: fetch it, or check the folder that paths are relative to")
    try:
        rows = _zip_rows(path) if path.suffix.lower() == ".zip" else _tar_rows(path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ImageError(f"archive {path} cannot be read ({error}): it is damaged or was not fetched whole; fetch it again") from error
    rows.sort(key=lambda row: row[0])  # members of one name keep the archive's order
    columns: list[Any] = [list(c) for c in zip(*rows, strict=True)] or [[], [], [], [], [], []]
    kinds: tuple[Any, ...] = (np.bytes_, np.int64, np.int64, np.int16, np.int64, np.uint32)
    return Directory(*(np.array(c, kind) for c, kind in zip(columns, kinds, strict=True)))


def _zip_rows(path: Path) -> list[Member]:
    usual = usual_members(path)
    if usual is not None:
        return usual
    with zipfile.ZipFile(path) as archive:
        files = [i for i in archive.infolist() if not i.is_dir()]
    odd = next((i for i in files if i.flag_bits & 1 or i.compress_type not in (STORED, DEFLATED)), None)
    if odd is not None:
        raise ValueError(f"member {odd.filename} is encrypted, or compressed by something else than deflate")
    return [(_encoded(i.filename), i.header_offset, i.compress_size, i.compress_type, i.file_size, i.CRC) for i in files]


def _tar_rows(path: Path) -> list[Member]:
    with tarfile.open(path, "r:") as archive:
        members = archive.getmembers()
    end = max((i.offset_data + -(-i.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for i in members), default=0)
    with path.open("rb") as file:  # tarfile takes a file that was cut short for one that ends
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"no mark of its end stands behind its {len(members)} members")
    return [(_encoded(i.name), i.offset_data, i.size, -1, i.size, 0) for i in members if i.isreg()]


def _encoded(name: str) -> bytes:
    """As `tarfile` decodes: a name that is no UTF-8 keeps its bytes."""
    return name.encode("utf-8", "surrogateescape")


def _inflated(data: bytes, size: int) -> bytes:
    """Never more than a byte above `size`, whatever the data says of itself."""
    found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    if len(found) != size:
        raise ValueError(f"its size disagrees with the archive's directory, which says {size} bytes")
    return found


def leads_out(path: str) -> bool:
    """Whether a path of a table is absolute or holds ".."."""
    return PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts


class ImageFiles:
    """Reads encoded images by their paths. It can be pickled, and used from several processes.

    Args:
        root: the folder that paths are relative to.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._directories: dict[str, Directory] = {}
        self._open: OrderedDict[str, int] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_directories": {}, "_open": OrderedDict()}

    def __del__(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def place(self, path: str) -> Path:
        """Of a file or an archive of the data's folder. Links in it may lead out of it, its tables may not: others may have written them.

        Raises:
            ImageError: an absolute path, or one with "..".
        """
        if leads_out(path):
            raise ImageError(f"the path {path!r} leads out of the data's folder {self.root}: write it relative to that, without '..'")
        return self.root / path

    def read(self, path: str) -> bytes:
        """The bytes of a file, or of a member of an archive, checked against the archive's checksum where it has one.

        Raises:
            ImageError: missing or damaged, or not in the folder.
        """
        archive, inside, member = path.partition(INSIDE)
        if inside:
            return self._member(archive, member)
        try:
            return self.place(path).read_bytes()
        except OSError as error:
            raise ImageError(f"image {self.root / path} cannot be read ({error.strerror}): check the path and the folder") from error

    def directory(self, archive: str) -> Directory:
        """Of the archive at this path; read once. Raises ImageError as `read_directory` does."""
        if archive not in self._directories:
            if not archive.lower().endswith(ARCHIVES):
                raise ImageError(f"archive {archive} is none that is read in place ({', '.join(ARCHIVES)}): unpack it, or pack it anew")
            self._directories[archive] = read_directory(self.place(archive))
        return self._directories[archive]

    def missing(self, archive: str, members: Iterable[str]) -> NDArray[np.bool_]:
        """(N,): which of the members the archive lacks. Raises ImageError where the archive itself cannot be read."""
        return self.directory(archive).find(np.array([_encoded(m) for m in members], np.bytes_)) < 0

    def checksum(self, archive: str, member: str) -> str:
        """ "crc32:...:length" of a zip archive's member, unpacked, from the directory alone; "" in a tar archive, or where there is none.

        Raises:
            ImageError: the archive itself cannot be read.
        """
        return self.checksums(archive, [member])[0]

    def checksums(self, archive: str, members: Sequence[str]) -> list[str]:
        """As `checksum`, of many members of one archive."""
        directory = self.directory(archive)
        places = directory.find(np.array([_encoded(m) for m in members], np.bytes_))
        known = (places >= 0) & (directory.methods[places] >= 0) if len(directory.names) else np.zeros(len(places), np.bool_)
        found = np.where(known, places, 0)
        checks, sizes = (column[found].tolist() if known.any() else [0] * len(found) for column in (directory.checks, directory.sizes))
        return [f"crc32:{check:08x}:{size}" if k else "" for check, size, k in zip(checks, sizes, known.tolist(), strict=True)]

    def _member(self, archive: str, member: str) -> bytes:
        directory = self.directory(archive)
        place = int(directory.find(np.array([_encoded(member)]))[0])
        if place < 0:
            raise ImageError(
                f"archive {self.root / archive} has no member {member}: this archive is of another version than the one that was listed"
            )
        offset, length = int(directory.offsets[place]), int(directory.lengths[place])
        try:
            data = self._bytes(archive, offset, length, int(directory.methods[place]), int(directory.sizes[place]))
        except (OSError, ValueError, zlib.error) as error:
            raise ImageError(f"{member} in {self.root / archive} cannot be read ({error}): fetch the archive again") from error
        if directory.methods[place] >= 0 and zlib.crc32(data) != directory.checks[place]:
            raise ImageError(f"{member} in {self.root / archive} is damaged (its checksum is another): fetch the archive again")
        return data

    def _bytes(self, archive: str, offset: int, length: int, method: int, size: int) -> bytes:
        file = self._file(archive)
        if method >= 0:
            header = os.pread(file, _LOCAL_LENGTH, offset)
            if len(header) < _LOCAL_LENGTH or header[:4] != _LOCAL_HEADER:
                raise ValueError("no member begins where the archive's directory says")
            offset += _LOCAL_LENGTH + sum(struct.unpack("<HH", header[26:]))
        data = os.pread(file, length, offset)
        if len(data) < length:
            raise ValueError(f"the archive ends after {len(data)} of {length} bytes")
        return _inflated(data, size) if method == DEFLATED else data

    def _file(self, archive: str) -> int:
        if archive not in self._open:
            if len(self._open) >= OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[archive] = os.open(self.root / archive, os.O_RDONLY)
        self._open.move_to_end(archive)
        return self._open[archive]
