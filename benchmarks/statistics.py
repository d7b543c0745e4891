"""python -m benchmarks.statistics: how often intervals and p-values are right where the truth is known, and the speed of the bootstrap."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kendalltau, pearsonr, spearmanr
from tqdm.auto import tqdm

from evaluation.bootstrap import difference, interval, plcc_of, resample, srcc_of
from evaluation.correlations import fit_logistic, krcc, plcc, rmse, srcc
from evaluation.protocols import pair_accuracy, within_image

TRUTH = 0.6
CASES = ("equal", "unequal", "levels")  # 5 regions a source; 1 to 30; 5 a source, and predictions of five levels
SHARED = 0.5  # of the variance, what the regions of a source have in common
MIXING = np.linalg.cholesky(np.array([[1, TRUTH, TRUTH], [TRUTH, 1, 0.5], [TRUTH, 0.5, 1]]))


def draw(source: NDArray[np.int64], case: str, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Labels, then predictions of two equally good models, (N,) each and normal; in "levels" the predictions are rounded to five."""
    own, shared = rng.normal(size=(len(source), 3)), rng.normal(size=(source.max() + 1, 3))
    label, *models = MIXING @ (math.sqrt(SHARED) * shared[source] + math.sqrt(1 - SHARED) * own).T
    yield label
    yield from (np.clip(np.round(m), -2, 2) if case == "levels" else m for m in models)


def truths(case: str) -> tuple[float, float]:
    """SRCC and PLCC of all regions that there could be: closed forms, but of a million regions where predictions have levels."""
    if case != "levels":
        return 6 / math.pi * math.asin(TRUTH / 2), TRUTH
    label, pred, _ = draw(np.arange(1_000_000), case, np.random.default_rng(1))
    return float(spearmanr(pred, label).statistic), float(np.corrcoef(pred, label)[0, 1])


def coverage(case: str, simulations: int, sources: int, draws: int) -> dict[str, float]:
    """Shares of the simulations: intervals of SRCC, PLCC and of a difference of SRCC that hold the truth; p < 0.05 of two equal models."""
    rng = np.random.default_rng(0)
    true_srcc, true_plcc = truths(case)
    hits = np.zeros(4)
    for k in tqdm(range(simulations), desc=f"{case}, {sources} sources", leave=False):
        regions = rng.integers(1, 31, sources) if case == "unequal" else np.full(sources, 5)
        source = np.repeat(np.arange(sources), regions)
        label, one, two = draw(source, case, rng)
        drawn = resample([srcc_of(one, label), plcc_of(one, label), srcc_of(two, label)], source, draws, seed=k)
        single, linear = (interval(drawn[:, column], sources, "fisher") for column in (0, 1))
        both = difference(drawn[:, 0], drawn[:, 2], sources)
        held = [f.low <= t <= f.high for f, t in ((single, true_srcc), (linear, true_plcc), (both, 0.0))]
        hits += [*held, both.p < 0.05]
    return dict(zip(("SRCC", "PLCC", "difference", "p < 0.05"), (hits / simulations).tolist(), strict=True))


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
    models = [label[:drawn] + rng.normal(0, 0.3, drawn) for _ in range(5)]
    timed(
        f"bootstrap of SRCC, {draws:,} draws, {drawn:,} regions, five models",
        lambda: resample([srcc_of(m, label[:drawn]) for m in models], np.arange(drawn) // 10, draws),
    )
    found["apart"] = levels_apart(regions // 5)
    print(f"largest difference from SciPy, five-level predictions of {regions // 5:,} regions: {found['apart']:.1g}")
    return found


def levels_apart(regions: int) -> float:
    """The largest difference of SRCC (also the bootstrap's), PLCC and KRCC from SciPy's, on ranks that are made of ties."""
    label, pred, _ = draw(np.arange(regions), "levels", np.random.default_rng(2))
    once = np.ones((1, regions))
    pairs = (
        (srcc(pred, label), spearmanr(pred, label).statistic),
        (float(srcc_of(pred, label)(once)[0]), spearmanr(pred, label).statistic),
        (plcc(pred, label), pearsonr(pred, label).statistic),
        (krcc(pred, label), kendalltau(pred, label).statistic),
    )
    return max(abs(a - b) for a, b in pairs)


def main() -> None:
    """Prints the shares as a Markdown table, or the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--speed", action="store_true", help="the time of correlations and bootstrap instead")
    args = parser.parse_args()
    if args.speed:
        speed()
        return
    print("| regions | sources | SRCC | PLCC | difference | p < 0.05 |\n|---|---:|---:|---:|---:|---:|")
    for case in CASES:
        for sources in (10, 20, 40, 100):
            found = coverage(case, args.simulations, sources, args.draws)
            print(f"| {case} | {sources} | " + " | ".join(f"{v:.3f}" for v in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
