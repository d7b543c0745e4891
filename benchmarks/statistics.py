"""python -m benchmarks.statistics: how long the statistics of many regions take, and that they equal SciPy's on ties."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau, pearsonr, spearmanr

from evaluation.bootstrap import SCALE, Sample, samples
from evaluation.comparison import CONTROL, score_statistics
from evaluation.correlations import fit_logistic, krcc, plcc, rmse, srcc
from evaluation.differences import paired
from evaluation.protocols import pair_accuracy, within_image
from evaluation.weighted import srcc_of

TRUTH = 0.6


def speed(regions: int = 1_000_000, drawn: int = 100_000, draws: int = 1000) -> dict[str, float]:
    """Prints and returns the seconds of what is computed over many regions, and how far five-level predictions are from SciPy.

    Args:
        regions: of the correlations; 33 an image.
        drawn: of the bootstrap, ten a source, for five models.
    """
    rng = np.random.default_rng(0)
    label = rng.random(regions)
    pred = label + rng.normal(0, 0.3, regions)
    found: dict[str, float] = {}

    def timed(name: str, function: Callable[[], object]) -> None:
        start = time.perf_counter()
        function()
        found[name] = time.perf_counter() - start
        print(f"| {name} | {found[name]:.1f} s |", flush=True)

    print("| what | time |\n|---|---:|")
    timed(f"SRCC, PLCC, KRCC and RMSE of {regions:,} regions", lambda: [f(pred, label) for f in (srcc, plcc, krcc, rmse)])
    timed("logistics of four and five parameters, fitted to them", lambda: [fit_logistic(pred, label, n) for n in (4, 5)])
    rows = pd.DataFrame({"quality": label, "quality_pred": pred, "image": np.arange(regions) // 33})
    timed(
        f"SRCC within each of {rows['image'].nunique():,} images, and their pairs",
        lambda: (within_image(rows, "quality"), pair_accuracy(rows, "quality")),
    )
    models = [np.clip(label[:drawn] + rng.normal(0, 0.3, drawn), 0, 1) for _ in range(5)]
    timed(f"bootstrap of SRCC, {draws:,} draws, {drawn:,} regions, five models", lambda: _drawn(models, label[:drawn], draws, {"srcc"}))
    own: dict[tuple[str, str], Sample] = {}
    timed(
        f"and of all {len(SCALE) - 2} statistics of a score, and the control",
        lambda: own.update(_drawn(models, label[:drawn], draws, {*SCALE, CONTROL})),
    )
    own = {place: sample for place, sample in own.items() if place[1] != CONTROL}
    timed("the models' differences in these statistics, of the same draws", lambda: paired("quality", own, ()))
    found["apart"] = levels_apart(regions // 5)
    print(f"largest difference from SciPy, five-level predictions of {regions // 5:,} regions: {found['apart']:.1g}")
    return found


def _drawn(
    models: Sequence[NDArray[np.float64]], label: NDArray[np.float64], draws: int, wanted: set[str]
) -> dict[tuple[str, str], Sample]:
    """The draws of a comparison of models on these regions, ten a source and image, each with another's answers as its control, by
    model and statistic."""
    names = np.arange(len(label)) // 10
    tables = {
        str(k): pd.DataFrame({"quality_pred": m, "quality_image": models[k - 1], "quality": label, "source": names, "image": names})
        for k, m in enumerate(models)
    }
    _, statistics, sources = score_statistics(tables, "quality")
    missing = wanted - {key for own in statistics.values() for key in own} - {"macro_f1", "accuracy"}
    if missing:
        raise RuntimeError(f"{sorted(missing)} are not drawn: a comparison draws them")
    places = [(name, key) for name, own in statistics.items() for key in own if key in wanted]
    return dict(zip(places, samples([statistics[name][key] for name, key in places], sources, draws), strict=True))


def levels_apart(regions: int) -> float:
    """The largest difference of SRCC (also the bootstrap's), PLCC and KRCC from SciPy's, on ranks that are made of ties."""
    label, noise = np.random.default_rng(2).normal(size=(2, regions))
    pred = np.clip(np.round(TRUTH * label + math.sqrt(1 - TRUTH**2) * noise), -2, 2)
    once = np.ones((1, regions))
    pairs = (
        (srcc(pred, label), spearmanr(pred, label).statistic),
        (float(srcc_of(pred, label)(once)[0]), spearmanr(pred, label).statistic),
        (plcc(pred, label), pearsonr(pred, label).statistic),
        (krcc(pred, label), kendalltau(pred, label).statistic),
    )
    return max(abs(a - b) for a, b in pairs)


if __name__ == "__main__":
    speed()
