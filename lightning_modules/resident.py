"""How much memory a process has had at its worst moment."""

from __future__ import annotations

import sys
from pathlib import Path


def resident_peak(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process held at once at most, libraries and data included.

    Where the system tells of the process alone (VmHWM, on Linux), that is taken: what `getrusage` gives begins with the peak of whoever
    started the process, so that a large program's child would never seem small.
    """
    if status.exists():
        told = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in told:
            return int(told["VmHWM"].split()[0]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
