"""python -m benchmarks.statistics: coverage of the intervals where the truth is known, and the speed of correlations and bootstrap."""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from tqdm.auto import tqdm

from evaluation.bootstrap import interval, plcc_of, resample, srcc_of
from evaluation.correlations import krcc, plcc, srcc

TRUTH = 0.6


def coverage(simulations: int, sources: int, draws: int) -> dict[str, float]:
    """Shares of intervals that hold the true value, of PLCC, SRCC, and the difference of two equally good models' SRCC.

    Labels and predictions are normal, half of their variance common to a source's regions.
    """
    rng = np.random.default_rng(0)
    source = np.repeat(np.arange(sources), 5)
    mixing = np.linalg.cholesky(np.array([[1, TRUTH, TRUTH], [TRUTH, 1, 0.5], [TRUTH, 0.5, 1]]))
    truth = np.array([TRUTH, 6 / math.pi * math.asin(TRUTH / 2), 0])
    hits = np.zeros(3)
    for k in tqdm(range(simulations), desc=f"{sources} sources"):
        noise = math.sqrt(0.5) * (rng.normal(size=(sources, 3))[source] + rng.normal(size=(len(source), 3)))
        label, one, two = mixing @ noise.T
        drawn = resample([plcc_of(one, label), srcc_of(one, label), srcc_of(two, label)], source, draws, seed=k)
        found = [interval(v, sources) for v in (drawn[:, 0], drawn[:, 1], drawn[:, 1] - drawn[:, 2])]
        hits += [f.low <= t <= f.high for f, t in zip(found, truth, strict=True)]
    return dict(zip(("plcc", "srcc", "difference"), (hits / simulations).tolist(), strict=True))


def main() -> None:
    """Prints all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
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
    for sources in (20, 40, 100):
        print(sources, "sources:", coverage(args.simulations, sources, args.draws))


if __name__ == "__main__":
    main()
