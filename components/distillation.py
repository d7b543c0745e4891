"""What MobileIQA's student learns from its teacher: the same levels, the same opinions, beside the labels (arXiv 2409.01212).

As in chencn2020/MobileIQA@c74fec9, where every term has the weight 1; the teacher's own score is not taught.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from components.batch import Batch
from components.registry import ConfigError
from components.scorers._crop_quality import crops_of, known_quality, valid_places
from components.scorers.base import Scorer
from components.scorers.mobile_iqa import MobileIQA, Seen


@dataclass(frozen=True)
class Terms:
    """How much each term counts.

    Attributes:
        score: weight of the error of the score against the label.
        levels: weight of the difference of the projected levels. opinions: of the opinions.

    Raises:
        ConfigError: a weight below 0 or no number, or all of them 0.
    """

    score: float = 1.0
    levels: float = 1.0
    opinions: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"distillation.{name}: got {value}, expected a weight of at least 0 (0 leaves the term out)")
        if not any(vars(self).values()):
            raise ConfigError(f"distillation: {', '.join(f.name for f in dataclasses.fields(self))} are all 0, so nothing would be learned")


def check_pair(student: Scorer, teacher: Scorer) -> None:
    """Whether one can teach the other: what is compared must have one shape, and both must see the same pictures.

    Raises:
        ConfigError: it cannot.
    """
    for role, scorer in (("student", student), ("teacher", teacher)):
        if not isinstance(scorer, MobileIQA):
            raise ConfigError(
                f"distillation: the {role} is {type(scorer).__name__}, which has no levels and opinions to compare: "
                "only mobile_iqa has. Leave distillation.teacher empty, or choose model.plugin=mobile_iqa"
            )
    _check_levels(cast("MobileIQA", student), cast("MobileIQA", teacher))
    _check_pictures(student, teacher)
    for what in ("crop_size", "compared"):
        here, there = getattr(student, what), getattr(teacher, what)
        if here != there:
            raise ConfigError(
                f"distillation: {_SAID[what]} differ: {here} of the student, {there} of the teacher. Give the student the teacher's "
                "image size, crop_shape, width, grid and opinions"
            )


def _check_pictures(student: Scorer, teacher: Scorer) -> None:
    own, shown = vars(student.preprocess), vars(teacher.preprocess)
    other = [key for key in own if own[key] != shown[key]]
    if other:
        told = "; ".join(f"{key} {own[key]} of the student, {shown[key]} of the teacher" for key in other)
        keys = " ".join(f"model.vision_encoder.{'image_size' if key == 'size' else key}={_said(shown[key])}" for key in other)
        raise ConfigError(f"distillation: the pictures that they see differ: {told}. Give the student the teacher's: {keys}")


def _said(value: object) -> str:
    """As on a command line."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _check_levels(student: MobileIQA, teacher: MobileIQA) -> None:
    own, shown = (len(scorer.vision_encoder.strides) for scorer in (student, teacher))
    if own == shown:
        return
    fewer = f"model.vision_encoder.most_levels={min(own, shown)}"
    give = f"Give the student {fewer}" if own > shown else f"Train a teacher with {fewer}, or give the student a net of {shown} levels"
    raise ConfigError(
        "distillation: each of the student's levels is compared with one of the teacher's. The student's encoder gives "
        f"{student.vision_encoder.told()}; the teacher's gives {teacher.vision_encoder.told()}. {give}"
    )


_SAID = {
    "crop_size": "the sizes of the crops that they see",
    "compared": "the shapes of what is compared",
}


def distilled(student: MobileIQA, teacher: MobileIQA, batch: Batch, terms: Terms) -> dict[str, Tensor]:
    """The "loss", and its terms by name before they are weighted: means over regions and numbers.

    Regions whose quality is unknown teach by the teacher's levels and opinions alone. The student's criterion is that of all three terms.
    """
    which = valid_places(batch)
    if not len(which):
        return student.nothing("score", "levels", "opinions")
    crops = crops_of(batch.regions.crops, which)
    own: Seen = student(crops)
    with torch.no_grad():
        shown: Seen = teacher(crops)
    each = {
        "score": _score_error(student, own, batch, which),
        "levels": student.error(own.levels, shown.levels).mean(),
        "opinions": student.error(own.opinions, shown.opinions).mean(),
    }
    return {"loss": torch.stack([getattr(terms, name) * value for name, value in each.items()]).sum(), **each}


def _score_error(student: MobileIQA, own: Seen, batch: Batch, which: Tensor) -> Tensor:
    wanted, known = known_quality(batch)
    found = student.unit(own.score)[torch.isin(which, known)]
    return student.error(found, wanted).sum() / max(1, len(known))
