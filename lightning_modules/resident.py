"""How much memory a process has had at its worst moment."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
_imported = 0  # bytes of files, libraries above all, that the process held from which this one was forked


def resident_peak(status: Path = STATUS) -> int:
    """Bytes that this process held at once at most, libraries and data included.

    Where the system tells of the process alone (VmHWM, on Linux), that is taken: what `getrusage` gives begins with the peak of whoever
    started the process, so that a large program's child would never seem small. A forked process holds the libraries' pages only as far as
    it touches them; those that it was forked with (`forked_with`) count all the same, as if it had imported them itself.
    """
    told = _told(status)
    if "VmHWM" in told:
        return told["VmHWM"] + max(0, _imported - told.get("RssFile", _imported))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_files(status: Path = STATUS) -> int:
    """Bytes of files, libraries above all, that this process holds in memory; 0 where the system does not say."""
    return _told(status).get("RssFile", 0)


def forked_with(files: int) -> None:
    """Notes what `resident_files` was in the process from which this one was forked."""
    global _imported
    _imported = files


def _told(status: Path) -> dict[str, int]:
    """Bytes, by the system's names."""
    if not status.exists():
        return {}
    pairs = (line.split(":", 1) for line in status.read_text().splitlines() if line.endswith(" kB"))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}
