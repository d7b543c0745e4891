"""TeacherIQA's checkpoints: their names and ours, one to one. Written from facts about chencn2020/TeacherIQA@d9c5cf2.

    released                        ours
    tn.resNet.                      vision_encoder.net.
    tn.bottom.                      decoder.bottom.
    tn.up1., tn.upMC1.MCConv. ...   decoder.joins.0.up., decoder.joins.0.block. ...; the fourth: decoder.picture.join.
    tn.up5., tn.out.                decoder.picture.up., decoder.picture.out.
    bottomConv., upMC1Conv. ...     reader.bottom., reader.levels.0. ...
    enc1.KI. ..., iqaScore.         reader.attention.0. ..., reader.score.

The first release had other names for some of them; the restoring network was released alone, too, without `tn.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from components.released.mobile_iqa import SPATIAL
from components.released.states import Names

PRESET = "model/teacher_iqa_koniq"
RESTORING = "model/teacher_iqa"
_OLDER = ((r"upDAM(\d)\.DAMConv\.", r"upMC\1.MCConv."), (r"upDAM(\d)Conv\.", r"upMC\1Conv."), (r"KIM(\d)\.KI\.", r"enc\1.KI."))
_TRIPLE = (0, 1, 3, 4, 6)


def today(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names of the last release: older names translated, and `tn.` put before those of a restoring network alone."""
    out = {}
    start = "tn." if not any(name.startswith("tn.") for name in found) else ""
    for name, x in found.items():
        for old, new in _OLDER:
            name = re.sub(old, new, name)
        out[start + name] = x
    return out


def names() -> Names:
    """The translation."""
    table = {"vision_encoder.net.": "tn.resNet.", **_block("decoder.bottom.", "tn.bottom.")}
    joins = ["decoder.joins.0.", "decoder.joins.1.", "decoder.joins.2.", "decoder.picture.join."]
    for number, ours in enumerate(joins, 1):
        table |= {f"{ours}up.": f"tn.up{number}.", **_block(f"{ours}block.", f"tn.upMC{number}.MCConv.")}
    table |= {
        "decoder.picture.up.": "tn.up5.",
        "decoder.picture.out.": "tn.out.",
        "reader.bottom.": "bottomConv.",
        "reader.score.": "iqaScore.",
    }
    for number in range(3):
        table |= {f"reader.levels.{number}.": f"upMC{number + 1}Conv."}
        table |= {f"reader.attention.{number}.{a}": f"enc{number + 1}.KI.{b}" for a, b in SPATIAL.items()}
    return Names(table)


def _block(ours: str, theirs: str) -> dict[str, str]:
    branches = {"plain.": "p1.0.", "wide.": "p2.", "separable.": "p3.", "pooled.": "p4."}
    return {
        **{f"{ours}branches.0.{a}": f"{theirs}inception.0.{b}" for a, b in branches.items()},
        f"{ours}branches.1.": f"{theirs}inception.1.",
        **{f"{ours}triple.{n}.": f"{theirs}tripleConv.0.TripleConv.{n}." for n in _TRIPLE},
        f"{ours}triple.7.": f"{theirs}tripleConv.1.",
    }
