"""What is refused at the door, and in which words; whatever else is asked comes through."""

import asyncio
import json
import os

import pytest

from inference.page.door import ASKED, ROOM, Door, Stored
from inference.page.limits import Limits

LIMITS = Limits(megabytes=1, stored=3)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stored(tmp_path, clock):
    (tmp_path / "cache").mkdir()
    return Stored(tmp_path, tmp_path / "cache", 4200, clock)


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"came through"})


def ask(door, path="/gradio_api/upload", method="POST", **headers):
    """Status and text of what a request is answered."""
    sent = []

    async def send(message):
        sent.append(message)

    raw = [(name.replace("_", "-").encode(), str(value).encode()) for name, value in headers.items()]
    asyncio.run(door({"type": "http", "method": method, "path": path, "headers": raw}, None, send))
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.fixture
def door(stored):
    return Door(app, LIMITS, stored)


def test_as_much_as_a_file_and_its_name_comes_through(door):
    assert ask(door, content_length=1_000_000 + ROOM) == (200, "came through")
    assert ask(door, content_length=1_000_001 + ROOM) == (413, "This has 1,100,001 bytes; the page takes 1,100,000 at once.")
    assert ask(door, "/gradio_api/queue/join", content_length=ASKED)[0] == 200
    status, said = ask(door, "/gradio_api/queue/join", content_length=ASKED + 1)
    assert (status, json.loads(said)["detail"]) == (413, "This has 1,000,001 bytes; the page takes 1,000,000 at once.")


@pytest.mark.parametrize("headers", [{"transfer_encoding": "chunked"}, {"transfer_encoding": "chunked", "content_length": 5}])
def test_a_request_of_unknown_length_is_refused(door, headers):
    assert ask(door, **headers) == (411, "How long the request is must be said beforehand.")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},  # another port of this machine
        {"origin": "http://evil.example", "host": "127.0.0.1:7860"},
        {"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:7860"},
        {"origin": "null", "host": "127.0.0.1:7860"},
        {"origin": "http://evil.example", "host": "10.0.0.2:7860", "x_forwarded_host": "evil.example"},  # which a page may say itself
    ],
)
def test_what_another_sites_page_sends_is_refused(door, headers):
    assert ask(door, content_length=5, **headers) == (403, "This was sent by the page of another site.")
    assert ask(door, method="GET", **headers)[0] == 200  # a link may lead here


@pytest.mark.parametrize(
    "headers",
    [
        {},  # no browser
        {"sec_fetch_site": "same-origin", "origin": "https://page.example", "host": "127.0.0.1:7860"},  # behind another server
        {"origin": "http://10.0.0.2:7860", "host": "10.0.0.2:7860"},
        {"origin": "http://page.example:8080", "host": "page.example:8080"},  # behind another server that hands the name on
    ],
)
def test_what_the_page_itself_sends_comes_through(door, headers):
    assert ask(door, content_length=5, **headers)[0] == 200


def test_what_is_kept_is_bounded_with_what_is_coming(door, tmp_path, clock):
    (tmp_path / "cache" / "a").write_bytes(bytes(1_500_000))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "b").write_bytes(bytes(600_000))
    assert ask(door, content_length=900_000)[0] == 200
    within = []

    async def asking(*message):
        door.app = app
        within.append(await asyncio.to_thread(ask, door, "/gradio_api/queue/join", content_length=500_000))
        await app(*message)

    door.app = asking
    assert ask(door, content_length=500_000)[0] == 200
    assert within[0][0] == 507
    assert "keeps as much as it may" in json.loads(within[0][1])["detail"]
    (tmp_path / "cache" / "a").unlink()
    assert ask(door, content_length=1_000_000)[0] == 507  # measured a moment ago
    clock.now += 1
    assert ask(door, content_length=1_000_000)[0] == 200


def test_many_small_files_count_as_what_they_take(stored, tmp_path):
    for n in range(10):
        (tmp_path / "cache" / str(n)).write_bytes(b"")
    assert stored.bytes() == 10 * 4096


def test_what_uploads_that_were_cut_short_left_goes_after_its_time(stored, tmp_path, clock):
    left, new, whole, empty = (tmp_path / "cache" / name for name in ("tmpleft", "tmpnew", "whole", "empty"))
    for folder in (whole, empty):
        folder.mkdir()
    for file in (left, new, whole / "photo.png"):
        file.write_bytes(bytes(5000))
    for place, age in ((left, 4300), (new, 4100), (whole, 4300), (empty, 4300)):
        os.utime(place, (clock.now - age, clock.now - age))
    assert stored.bytes() == 10_000
    assert [place.exists() for place in (left, new, whole / "photo.png", empty)] == [False, True, True, False]
