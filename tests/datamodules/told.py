"""What `python prepare.py validate` prints, read again."""

from __future__ import annotations

import re


def told(text: str) -> dict[str, tuple[str, int]]:
    """Sort of problem -> (weight, count)."""
    found = re.findall(r"^(error|warning): (.*?): ([\d,]+) \(", text, re.MULTILINE)
    return {kind: (weight, int(count.replace(",", ""))) for weight, kind, count in found}
