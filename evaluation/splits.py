"""Repeated grouped splits: source images are dealt to two sides, again and again, and a number is the median over the repeats.

A logistic that is fitted to the points it is judged on flatters every model. Here it is fitted on one side's sources and judged on the
other's. Which sources were held out each time is a file with its hash, so that another paper can use the same splits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from evaluation.correlations import fit_logistic, plcc, plcc_fitted, srcc
from evaluation.nowhere import nothing_at
from evaluation.protocols import Score

REPEATS = 10
MIN_SOURCES = 4  # two on each side


@dataclass(frozen=True)
class Splits:
    """Which sources are held out in each repeat.

    Attributes:
        sources: all of them, sorted.
        held_out: of each repeat, sorted; the logistic is fitted on the others.
        seed: what they were drawn from.
    """

    sources: tuple[str, ...]
    held_out: tuple[tuple[str, ...], ...]
    seed: int

    @property
    def hash(self) -> str:
        """Of what is held out of what, whatever seed and file it came from."""
        text = json.dumps([self.sources, self.held_out], ensure_ascii=False)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"

    def to_json(self) -> str:
        """The file's text, with the hash."""
        return json.dumps({"hash": self.hash, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"


def draw_splits(sources: Iterable[str], repeats: int = REPEATS, share: float = 0.5, seed: int = 0) -> Splits:
    """Holds out `share` of the sources, one at least and not all, in each of `repeats` repeats.

    Raises:
        ValueError: fewer than four sources, no repeat, or a share that is not between 0 and 1.
    """
    names = sorted({str(s) for s in sources})
    if len(names) < MIN_SOURCES or repeats < 1 or not 0 < share < 1:
        raise ValueError(
            f"{repeats} splits of {len(names)} sources at a share of {share}: needed are at least one split, {MIN_SOURCES} sources, and a "
            "share between 0 and 1"
        )
    rng = np.random.default_rng(seed)
    count = min(max(1, round(share * len(names))), len(names) - 1)
    held = tuple(tuple(sorted(names[i] for i in rng.choice(len(names), count, replace=False))) for _ in range(repeats))
    return Splits(tuple(names), held, seed)


def read_splits(path: Path) -> Splits:
    """The splits of a file that `Splits.to_json` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, its hash is not that of its splits, or a repeat holds out what is no source, all, or nothing.
    """
    if not path.exists():
        raise nothing_at(path, "JSON files", lambda p: p.suffix == ".json")
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        found = Splits(tuple(told["sources"]), tuple(tuple(h) for h in told["held_out"]), int(told["seed"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no file of splits ({error}): a comparison writes one, splits.json") from error
    if told.get("hash") != found.hash:
        raise ValueError(f"{path} has the hash {told.get('hash')}, and its splits {found.hash}: it was changed; fetch it again")
    if not found.held_out or any(not set(h) < set(found.sources) or not h for h in found.held_out):
        raise ValueError(f"{path} holds out in some repeat what is no source of it, every source, or none")
    return found


def over_splits(rows: pd.DataFrame, task: Score, splits: Splits) -> dict[str, Any]:
    """Medians over the repeats: SRCC and PLCC on the sources held out, and PLCC after a logistic fitted on the others.

    A repeat in which a number does not exist is left out of its median; `failed_fits` counts those without a fitted PLCC.

    Raises:
        ValueError: rows of a source that the splits do not know.
    """
    source = rows["source"].astype(str)
    unknown = sorted(set(source) - set(splits.sources))
    if unknown:
        raise ValueError(f"{len(unknown)} sources are not in the splits, the first is {unknown[0]!r}: these splits are of other data")
    repeats = tqdm(splits.held_out, desc=f"splits, {task}", unit="split", delay=2, leave=False)
    found = [_one(rows[~source.isin(held)], rows[source.isin(held)], task) for held in repeats]
    srccs, plccs, fitted = (np.array(v) for v in zip(*found, strict=True))
    medians = {k: _median(v) for k, v in (("srcc", srccs), ("plcc", plccs), ("plcc_fitted", fitted))}
    return {**medians, "failed_fits": int(np.isnan(fitted).sum()), "repeats": len(found)}


def _one(fit_on: pd.DataFrame, held: pd.DataFrame, task: Score) -> tuple[float, float, float]:
    pred, label = (held[c].to_numpy(np.float64) for c in (f"{task}_pred", task))
    fit = fit_logistic(fit_on[f"{task}_pred"].to_numpy(np.float64), fit_on[task].to_numpy(np.float64))
    return srcc(pred, label), plcc(pred, label), plcc_fitted(pred, label, fit)


def _median(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan
