"""What is read at once is what `zipfile` reads; what is unusual is left to it."""

from __future__ import annotations

import io
import zipfile

import pytest

from datamodules.archives import read_directory
from datamodules.zip_directory import usual_members

CONTENT = {"Blur_3/000123.png": b"\x89PNG" * 300, "Blur_3/": b"", "Blur_3/0.png": b"zero", "empty": b""}


def archive_of(content=CONTENT, method=zipfile.ZIP_DEFLATED, change=lambda archive: None, extra=b"") -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", method) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.extra = method, extra
            archive.writestr(info, data)
        change(archive)
    return held.getvalue()


def by_zipfile(path):
    with zipfile.ZipFile(path) as archive:
        files = [i for i in archive.infolist() if not i.is_dir()]
    return [(i.filename.encode(), i.header_offset, i.compress_size, i.compress_type, i.file_size, i.CRC) for i in files]


TIMES = b"UT\5\0\1\0\0\0\0"  # as Info-ZIP writes them


@pytest.mark.parametrize(
    "data",
    [archive_of(), archive_of(method=zipfile.ZIP_STORED), archive_of({}), archive_of(extra=TIMES)],
    ids=["deflated", "stored", "empty", "times"],
)
def test_a_usual_archive(tmp_path, data):
    (tmp_path / "a.zip").write_bytes(data)
    assert usual_members(tmp_path / "a.zip") == by_zipfile(tmp_path / "a.zip")


UNUSUAL = {
    "a comment": archive_of(change=lambda archive: setattr(archive, "comment", b"of 2024")),
    "bytes before it": b"#!/bin/sh\n" + archive_of(),
    "bytes behind it": archive_of() + b"\n",
    "a name that is not ASCII": archive_of({"ünï.png": b"name"}),
    "another name": archive_of(extra=b"up\5\0\1\0\0\0\0"),
    "another method": archive_of(method=zipfile.ZIP_BZIP2),
    "a zero in a name": archive_of().replace(b"empty", b"emp\0y"),
    "a member more than there is": archive_of().replace(b"\4\0\4\0", b"\5\0\5\0"),
    "a member less than there is": archive_of().replace(b"\4\0\4\0", b"\3\0\3\0"),
    "no directory": archive_of().replace(b"PK\1\2", b"PK\1\3"),
    "the end alone": archive_of()[-22:],
    "cut short": archive_of()[:-30],
    "nothing": b"",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_is_left_to_others(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(UNUSUAL[name])
    assert usual_members(tmp_path / "a.zip") is None


@pytest.mark.parametrize("name", ["a comment", "bytes before it", "a name that is not ASCII"])
def test_and_they_read_it(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(UNUSUAL[name])
    assert sorted(read_directory(tmp_path / "a.zip").names.tolist()) == sorted(row[0] for row in by_zipfile(tmp_path / "a.zip"))


@pytest.mark.parametrize(("limit", "room"), [("ZIP_FILECOUNT_LIMIT", 2), ("ZIP64_LIMIT", 30), ("ZIP64_LIMIT", 300)])
def test_a_large_archive(tmp_path, monkeypatch, limit, room):
    """ZIP64 begins where numbers have no room: of members, of bytes before them, or in them."""
    monkeypatch.setattr(zipfile, limit, room)
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in CONTENT.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(data)
    (tmp_path / "a.zip").write_bytes(held.getvalue())
    assert b"PK\6\6" in held.getvalue()
    assert usual_members(tmp_path / "a.zip") == by_zipfile(tmp_path / "a.zip")
    for cut in (b"PK\6\6", b"PK\6\7", b"PK\1\2"):
        (tmp_path / "a.zip").write_bytes(held.getvalue().replace(cut, b"PK\6\5"))
        assert usual_members(tmp_path / "a.zip") is None
