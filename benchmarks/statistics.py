"""python -m benchmarks.statistics: how often intervals and p-values are right where the truth is known, and the speed of the bootstrap."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from evaluation.bootstrap import difference, interval, plcc_of, resample, srcc_of
from evaluation.correlations import krcc, plcc, srcc

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


def speed() -> None:
    """Prints the time of the correlations of a million regions, and of the bootstrap of 100,000."""
    rng = np.random.default_rng(0)
    label = rng.random(1_000_000)
    pred = label + rng.normal(0, 0.3, len(label))
    start = time.perf_counter()
    found = srcc(pred, label), plcc(pred, label), krcc(pred, label)
    print(f"SRCC, PLCC, KRCC of 1,000,000 regions: {time.perf_counter() - start:.1f} s {found}")
    models = [label[:100_000] + rng.normal(0, 0.3, 100_000) for _ in range(5)]
    start = time.perf_counter()
    resample([srcc_of(m, label[:100_000]) for m in models], np.arange(100_000) // 10, 1000)
    print(f"SRCC, 1,000 draws, 100,000 regions, 5 models: {time.perf_counter() - start:.1f} s")


def main() -> None:
    """Prints the shares as a Markdown table, and the times on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--speed", action="store_true", help="the time of correlations and bootstrap too")
    args = parser.parse_args()
    if args.speed:
        speed()
    print("| regions | sources | SRCC | PLCC | difference | p < 0.05 |\n|---|---:|---:|---:|---:|---:|")
    for case in CASES:
        for sources in (10, 20, 40, 100):
            found = coverage(case, args.simulations, sources, args.draws)
            print(f"| {case} | {sources} | " + " | ".join(f"{v:.3f}" for v in found.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
