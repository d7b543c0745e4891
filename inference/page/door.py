"""What comes in at the server's door: nothing from another site's page, nothing too large, and no more than the folder may hold."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.page.limits import Limits

ROOM = 100_000  # bytes of an upload's body beside its file
ASKED = 1_000_000  # bytes of any other request, which names files and holds none
_BLOCK = 4096  # bytes that a file takes at least
_ENOUGH = 1.0  # seconds for which a measured size is good enough


class Stored:
    """How much lies in the folder of visitors' files, and what nobody else removes from it.

    Args:
        cache: below it, where Gradio keeps uploads and copies for browsers: each in a folder of its own, and beside these what an upload
            that was cut short left.
        age: seconds after which what was left is removed.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, cache: Path, age: float, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.cache, self.age, self.clock = folder, cache, age, clock
        self._bytes, self._when = 0, -_ENOUGH

    def bytes(self) -> int:
        """Of all files; measured at most once a second."""
        if abs(self.clock() - self._when) >= _ENOUGH:
            self._sweep()
            files = (
                Path(place, name) for place, _, names in os.walk(self.folder) for name in names
            )  # walks past folders that go meanwhile
            self._bytes, self._when = sum(map(_taken, files)), self.clock()
        return self._bytes

    def _sweep(self) -> None:
        for place in self.cache.iterdir() if self.cache.is_dir() else ():
            with suppress(OSError):  # another was first, or there is a file in it
                if place.stat().st_mtime < self.clock() - self.age:
                    (os.rmdir if place.is_dir() else os.unlink)(place)


class Door:
    """Refuses, before they are read, requests that other sites' pages make visitors' browsers send, and those too large for the limits."""

    def __init__(self, app: ASGIApp, limits: Limits, stored: Stored) -> None:
        self.app, self.limits, self.stored = app, limits, stored
        self._coming = 0  # bytes of the requests that are being read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that changes nothing passes."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        headers, uploads = Headers(scope=scope), scope["path"].endswith("/upload")
        length = _length(headers)
        stored = await run_sync(self.stored.bytes)
        if refused := self._refused(headers, length, uploads, stored):
            status, said = refused
            answer = PlainTextResponse(said, status) if uploads else JSONResponse({"detail": said}, status)
            await answer(scope, receive, send)
            return
        self._coming += length or 0
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= length or 0

    def _refused(self, headers: Headers, length: int | None, uploads: bool, stored: int) -> tuple[int, str] | None:
        """Status and sentence; None where there is nothing to refuse."""
        if _foreign(headers):
            return 403, "This was sent by the page of another site."
        if length is None:
            return 411, "How long the request is must be said beforehand."
        most = self.limits.bytes + ROOM if uploads else ASKED
        if length > most:
            return 413, f"This has {length:,} bytes; the page takes {most:,} at once."
        if stored + self._coming + length > self.limits.stored * 1e6:
            return 507, "The page keeps as much as it may for its visitors: files of an hour ago go first, please try again later."
        return None


def _length(headers: Headers) -> int | None:
    """Of the body, in bytes; None where it is not known."""
    said = headers.get("content-length", "0")
    return int(said) if said.isdecimal() and "transfer-encoding" not in headers else None


def _foreign(headers: Headers) -> bool:
    """Whether a browser says that another site's page sends this; what is no browser says nothing."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")  # a browser that knows of no sites, or to which the connection is not safe enough to say
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


def _taken(path: Path) -> int:
    try:
        return max(path.stat().st_size, _BLOCK)
    except FileNotFoundError:  # gone meanwhile
        return 0
