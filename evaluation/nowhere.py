"""What to say of a path where nothing is: where it was looked for, what was probably meant, and what lies beside it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

SHOWN = 8  # names of what lies there


def nothing_at(path: Path, wanted: str, is_such: Callable[[Path], bool]) -> FileNotFoundError:
    """The error for a path that does not exist.

    Args:
        wanted: what should be there, in the plural: "runs and CSV files".
        is_such: whether another path is one.
    """
    lost, above = path, path.parent
    while not above.is_dir():
        lost, above = above, above.parent
    if lost is not path:
        wanted, is_such = "folders", Path.is_dir
    known = sorted(p.name for p in above.iterdir() if is_such(p))
    close = difflib.get_close_matches(lost.name, known, n=1) or [n for n in known if Path(n).stem == lost.stem]
    shown = [*known[:SHOWN], *([f"{len(known) - SHOWN} more"] if len(known) > SHOWN else [])]
    return FileNotFoundError(
        f"{path} does not exist (looked for {path.resolve()}){'' if lost is path else f', nor does {lost}'}. "
        + (f"Did you mean {above / close[0]}? " if close else "")
        + f"{above.resolve()} holds {f'the {wanted}: ' + ', '.join(shown) if shown else f'no {wanted}'}"
    )
