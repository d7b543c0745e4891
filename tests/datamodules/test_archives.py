"""Members of archives by their places: equal to what the archive libraries read, and damage is told from absence."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from datamodules import archives
from datamodules.archives import ImageFiles, read_directory
from datamodules.images import ImageError

CONTENT = {
    "Blur_3/000123.png": b"\x89PNG" * 300,
    "Blur_3/0.png": os.urandom(500),
    "Blur_3/ünï code.png": b"name",
    "Blur_3/empty.png": b"",
}


@pytest.fixture(params=["deflated.zip", "stored.zip", "plain.tar"])
def packed(request, tmp_path):
    path = tmp_path / request.param
    if path.suffix == ".tar":
        for name, data in CONTENT.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "Blur_3", "Blur_3")
    else:
        method = zipfile.ZIP_STORED if path.stem == "stored" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.mkdir("Blur_3")
            for name, data in CONTENT.items():
                archive.writestr(name, data)
    return path


def test_members_are_read_where_they_are(packed):
    files = ImageFiles(packed.parent)
    for other in (files, pickle.loads(pickle.dumps(files))):
        for name in reversed(CONTENT):
            assert other.read(f"{packed.name}::{name}") == CONTENT[name]


def test_what_is_missing_is_known_without_reading(packed):
    asked = ["Blur_3/nothing.png", *CONTENT, "", "zzz", "Blur_3/000123.png and more"]
    found = ImageFiles(packed.parent).missing(packed.name, asked)
    np.testing.assert_array_equal(found, [True, *[False] * len(CONTENT), True, True, True])


def test_a_members_checksum_is_of_its_own_bytes_however_it_is_packed(packed):
    expected = {n: f"crc32:{zlib.crc32(d):08x}:{len(d)}" if packed.suffix == ".zip" else "" for n, d in CONTENT.items()}
    files = ImageFiles(packed.parent)
    assert {name: files.checksum(packed.name, name) for name in CONTENT} == expected
    assert files.checksum(packed.name, "nothing") == ""
    names = ["nothing", *reversed(CONTENT), "nothing"]
    assert files.checksums(packed.name, names) == [expected.get(n, "") for n in names]
    assert files.checksums(packed.name, []) == []


def test_a_missing_member(packed):
    with pytest.raises(
        ImageError, match=r"has no member Blur_3/nothing\.png: this archive is of another version than the one that was listed"
    ):
        ImageFiles(packed.parent).read(f"{packed.name}::Blur_3/nothing.png")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_an_archive_cut_short(packed, share):
    os.truncate(packed, int(packed.stat().st_size * share))
    with pytest.raises(ImageError, match=f"archive .*{packed.name} cannot be read .*: it is damaged or was not fetched whole"):
        ImageFiles(packed.parent).directory(packed.name)


@pytest.mark.parametrize("packed", ["deflated.zip", "stored.zip"], indirect=True)
def test_a_damaged_member(packed):
    files, name = ImageFiles(packed.parent), "Blur_3/0.png"
    directory = files.directory(packed.name)
    at = int(directory.offsets[list(directory.names).index(name.encode())])
    data = bytearray(packed.read_bytes())
    data[at + 200] ^= 0xFF
    packed.write_bytes(data)
    with pytest.raises(ImageError, match=r"is damaged \(its checksum is another\)|cannot be read"):
        files.read(f"{packed.name}::{name}")


@pytest.mark.parametrize("packed", ["deflated.zip", "stored.zip"], indirect=True)
def test_an_archive_that_changed_under_its_directory(packed):
    files = ImageFiles(packed.parent)
    files.directory(packed.name)
    packed.write_bytes(bytes(packed.stat().st_size))
    with pytest.raises(ImageError, match="no member begins where the archive's directory says"):
        files.read(f"{packed.name}::Blur_3/0.png")


def test_a_member_cut_short_behind_its_header(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("m", bytes(100))
    files = ImageFiles(tmp_path)
    files.directory("a.zip")
    os.truncate(tmp_path / "a.zip", 60)
    with pytest.raises(ImageError, match="the archive ends after 29 of 100 bytes"):
        files.read("a.zip::m")


def test_a_missing_archive(tmp_path):
    with pytest.raises(ImageError, match=r"archive .*Colorfulness_12\.zip is missing: fetch it"):
        ImageFiles(tmp_path).read("Colorfulness_12.zip::a.png")


def test_what_is_no_archive(tmp_path):
    (tmp_path / "a.zip").write_text("<html>404</html>")
    with pytest.raises(ImageError, match=r"a\.zip cannot be read .*fetch it again"):
        ImageFiles(tmp_path).read("a.zip::a.png")
    with pytest.raises(ImageError, match=r"a\.tar\.gz is none that is read in place \(\.zip, \.tar\): unpack it"):
        ImageFiles(tmp_path).read("a.tar.gz::a.png")


def test_a_member_of_another_compression(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("m", b"x")
    with pytest.raises(ImageError, match="member m is encrypted, or compressed by something else than deflate"):
        read_directory(tmp_path / "a.zip")


def test_an_empty_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w"):
        pass
    assert ImageFiles(tmp_path).missing("a.zip", ["m"]).tolist() == [True]


def test_files_beside_the_table(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"here")
    files = ImageFiles(tmp_path)
    assert files.read("images/a.png") == b"here"
    with pytest.raises(ImageError, match=r"images.b\.png cannot be read \(No such file or directory\): check the path and the folder"):
        files.read("images/b.png")


def test_few_files_are_held_open(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "OPEN_FILES", 2)
    for i in range(5):
        with zipfile.ZipFile(tmp_path / f"{i}.zip", "w") as archive:
            archive.writestr("m", bytes([i]))
    files = ImageFiles(tmp_path)
    for i in (0, 1, 2, 0, 4, 3, 3, 1):
        assert files.read(f"{i}.zip::m") == bytes([i])
        assert len(files._open) <= 2


@pytest.mark.parametrize("kind", ["a.tar", "a.zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_members_that_stand_twice_the_last_is_valid(tmp_path, kind):
    """As the formats define it, and as an update by `tar -r` leaves them."""
    for data in (b"old", b"new!"):
        if kind.endswith("tar"):
            (tmp_path / "x.png").write_bytes(data)
            with tarfile.open(tmp_path / kind, "a") as tar:
                tar.add(tmp_path / "x.png", "x.png")
        else:
            with zipfile.ZipFile(tmp_path / kind, "a") as archive:
                archive.writestr("x.png", data)
    assert ImageFiles(tmp_path).read(f"{kind}::x.png") == b"new!"


def test_a_tar_with_a_name_that_is_no_utf8(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("caf\udce9.png", "plain.png"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"data"))
    files = ImageFiles(tmp_path)
    assert files.read("a.tar::plain.png") == files.read("a.tar::caf\udce9.png") == b"data"
    assert files.missing("a.tar", ["caf\udce8.png"]).tolist() == [True]


def test_a_member_that_grows_beyond_its_size_is_refused_in_bounded_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m", bytes(2**26))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.rindex(b"PK\1\2") + 24  # the size in the archive's directory
    data[at : at + 4] = (100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ImageError, match="its size disagrees with the archive's directory, which says 100 bytes"):
        ImageFiles(tmp_path).read("a.zip::m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("path", ["../a.png", "b/../../a.png", "../a.zip::x.png", "{root}/a.png", "{root}/a.zip::x.png"])
def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path, path):
    """A table is somebody else's: it must not choose which of our files are read. Links are the user's own."""
    (tmp_path / "data" / "b").mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"secret")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x.png", b"secret")
    files = ImageFiles(tmp_path / "data")
    with pytest.raises(ImageError, match=r"leads out of the data's folder .*: write it relative to that, without"):
        files.read(path.format(root=tmp_path))
    (tmp_path / "data" / "linked.png").symlink_to(tmp_path / "a.png")
    assert files.read("linked.png") == b"secret"
