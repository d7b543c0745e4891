"""A scorer over a split of a data set -> the table that `evaluation` reads: one row per region."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from components.batch import Batch
from components.scorers.base import Scorer
from components.tasks import Distortions, RegionScores
from datamodules.datasets.base import Samples
from datamodules.records import RegionRecord
from inference.stopwatch import Stopwatch


@torch.no_grad()
def score_table(
    scorer: Scorer,
    samples: Samples,
    batches: Iterable[Batch],
    wholes: Iterable[Batch],
    device: torch.device | str = "cpu",
    watch: Stopwatch | None = None,
) -> pd.DataFrame:
    """Scores every region of `samples`, and each whole image (the whole-image control).

    Args:
        batches: of the same samples in the same order.
        wholes: the same with `Collate(whole=True)`. They are scored apart, since the regions of an image may look at each other.
        watch: takes the time; the first batch is then scored twice.

    Returns:
        One row per region; the columns are those of `evaluation.protocols.evaluate`.
    """
    rows: list[dict[str, Any]] = []
    scorer.eval()
    index = 0
    with tqdm(total=len(samples), unit="image", desc="scoring") as bar:
        for batch, whole in zip(batches, wholes, strict=True):
            moved = batch.to(device)
            if watch is not None and index == 0:
                scorer.answer(scorer.look(moved), moved.regions, scorer.tasks)
            with (watch or Stopwatch()).running(moved):
                seen = scorer.look(moved)
                answers = scorer.answer(seen, moved.regions, scorer.tasks)
            controls = scorer.answer(seen, whole.regions.to(device), scorer.tasks)
            for b, scores in enumerate(answers):
                record = samples[index].record
                for r, region in enumerate(record.regions):
                    left, top, width, height = batch.regions.boxes[b, r].tolist()
                    place = {"left": left, "top": top, "width": width, "height": height, "area": float(batch.regions.areas[b, r])}
                    row = {"id": region.id, "image": record.id, "source": record.source, **place}
                    rows.append({**row, **_labels(region), **_answers(scores[r]), **_control(controls[b][0])})
                index += 1
                bar.update()
    return pd.DataFrame(rows)


def _labels(region: RegionRecord) -> dict[str, Any]:
    types, severities = _joined(region.distortions)
    return {"quality": _number(region.quality), "importance": _number(region.importance), "types": types, "severities": severities}


def _answers(scores: RegionScores) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for task, score in scores.items():
        out |= {f"{task}_text": score.text, f"{task}_parsed": score.parsed}
        if task == "distortion":
            out["types_pred"], out["severities_pred"] = _joined(score.distortions if score.parsed else None)
        else:
            out |= {f"{task}_pred": _number(score.value), f"{task}_std": _number(score.std)}
    return out


def _control(whole: RegionScores) -> dict[str, Any]:
    return {f"{task}_image": _number(score.value) for task, score in whole.items() if task != "distortion"}


def _joined(distortions: Distortions | None) -> tuple[str | None, str | None]:
    """("blur;noise", "minor;severe"); ("", "") for a clean region; (None, None) where unknown."""
    if distortions is None:
        return None, None
    return ";".join(t for t, _ in distortions), ";".join(s for _, s in distortions)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
