"""MobileIQA's checkpoints: their names and ours, one to one. Written from facts about chencn2020/MobileIQA@c74fec9.

released                                    ours
global_vit. (teacher), local_cnn. (student)  vision_encoder.net.
LGF1.cnn1. ...      or LDA1.cnn1. ...        projectors.0.into. ...
MALs.0. ...                                 opinions.0. ...
fusion_mal.                                 fusion.
cnn., fc_score.                             head.map., head.score.
"""

from __future__ import annotations

from collections.abc import Iterable

from components.released.shards import CheckpointError
from components.released.states import Names

PRESETS = {"teacher": "model/mobile_iqa_teacher", "student": "model/mobile_iqa"}
_ENCODERS = {"teacher": ("global_vit.", "LGF"), "student": ("local_cnn.", "LDA")}
SPATIAL = {"gamma": "gamma", "query.": "qConv.", "key.": "kConv.", "value.": "vConv."}
_TOKENS = {"query.": "c_q.", "key.": "c_k.", "value.": "c_v."}


def kind(names: Iterable[str], where: object) -> str:
    """Whose checkpoint it is, "teacher" or "student", by its encoder.

    Raises:
        CheckpointError: neither's.
    """
    known = list(names)
    for whose, (encoder, _) in _ENCODERS.items():
        if any(name.startswith(encoder) for name in known):
            return whose
    wanted = " or ".join(encoder for encoder, _ in _ENCODERS.values())
    raise CheckpointError(f"{where} is no checkpoint of MobileIQA: none of its {len(known)} tensors begins with {wanted}")


def names(whose: str, levels: int, opinions: int) -> Names:
    """The translation for the teacher's or the student's checkpoint."""
    encoder, projector = _ENCODERS[whose]
    table = {"vision_encoder.net.": encoder, "head.map.": "cnn.", "head.score.": "fc_score."}
    for level in range(levels):
        table |= {f"projectors.{level}.into.": f"{projector}{level + 1}.cnn1.", f"projectors.{level}.out.": f"{projector}{level + 1}.cnn2."}
    for opinion in range(opinions):
        table |= _attention(f"opinions.{opinion}.", f"MALs.{opinion}.", levels)
    return Names({**table, **_attention("fusion.", "fusion_mal.", opinions)})


def _attention(ours: str, theirs: str, views: int) -> dict[str, str]:
    table: dict[str, str] = {}
    for view in range(views):
        table |= {f"{ours}spatial.{view}.{a}": f"{theirs}attention_module.{view}.{b}" for a, b in SPATIAL.items()}
    for a, b in _TOKENS.items():
        table |= {f"{ours}rows.{a}": f"{theirs}feature_attention.{b}", f"{ours}positions.{a}": f"{theirs}channel_attention.{b}"}
    return table
