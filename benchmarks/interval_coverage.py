"""python -m benchmarks.interval_coverage: how often the intervals of a comparison hold the truth, where the truth is known.

Labels and the predictions of two equally good models are normal; the regions of a source have a share of their variance in common. The
truth has a closed form but where predictions have five levels, and for the mean within an image: there it is that of a million regions.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import kendalltau, spearmanr
from tqdm.auto import tqdm

from evaluation import weighted
from evaluation.bootstrap import MANY_SOURCES, SCALE, Interval, Sample, difference, holm, interval, samples
from evaluation.correlations import rmse
from evaluation.differences import LEADING
from evaluation.protocols import MIN_REGIONS
from evaluation.report import write_whole
from evaluation.weighted import Statistic, Vector

Indices = NDArray[np.int64]

SIZES = {"equal": (5, 5), "unequal": (1, 30), "dominated": (5, 5)}  # fewest and most regions of a source
DOMINANT = 0.25  # of all regions, the share of the first source where it dominates
CLASSES = 4
FEWEST_DRAWS = 200  # from which an error can be told
LARGE = 1_000_000  # regions of a truth without a closed form


@dataclass(frozen=True)
class Case:
    """Data of one kind.

    Attributes:
        sources: how many.
        sizes: of `SIZES`; every number of regions between the two is as likely. Where one source dominates, it has `DOMINANT` of them.
        correlation: of labels and predictions; of classes the share that is named rightly.
        shared: of the variance, what the regions of a source have in common.
        levels: predictions take five values.
    """

    sources: int
    sizes: str
    correlation: float
    shared: float
    levels: bool


@dataclass(frozen=True)
class Found:
    """Shares of the simulations in which an interval holds the truth, `naive` of one between the draws' percentiles; the mean width of
    both. Of "holm" the share of families of differences in which no p-value is below 0.05, `naive` without the correction."""

    held: float
    width: float
    naive: float
    naive_width: float


@dataclass(frozen=True)
class Rows:
    """N regions: sources and labels (N,), predictions (models, N), the worse model's last; classes (N, CLASSES) and those named
    (models, N, CLASSES)."""

    source: Indices
    label: Vector
    preds: Vector
    classes: NDArray[np.bool_]
    named: NDArray[np.bool_]


def draw(case: Case, rng: np.random.Generator) -> Rows:
    """The regions of a test set."""
    low, high = SIZES[case.sizes]
    sizes = rng.integers(low, high + 1, case.sources)
    if case.sizes == "dominated":
        sizes[0] = round(sizes[1:].sum() * DOMINANT / (1 - DOMINANT))
    return _rows(case, np.repeat(np.arange(case.sources), sizes), rng)


def _rows(case: Case, source: Indices, rng: np.random.Generator) -> Rows:
    n, sources, r = len(source), int(source[-1]) + 1, case.correlation

    def noise(*shape: int) -> Vector:
        mixed = math.sqrt(case.shared) * rng.normal(size=(*shape, sources))[..., source]
        return np.asarray(mixed + math.sqrt(1 - case.shared) * rng.normal(size=(*shape, n)))

    label = noise()
    own = np.array([r] * EQUAL + [LOSS * r])[:, None]
    preds = own * label + np.sqrt(1 - own**2) * noise(EQUAL + 1)
    true = np.where(rng.random(n) < case.shared, rng.integers(0, CLASSES, sources)[source], rng.integers(0, CLASSES, n))
    wrong = (true + rng.integers(1, CLASSES, (EQUAL, n))) % CLASSES
    named = np.where(noise(EQUAL) < ndtri(r), true, wrong)
    every = np.arange(CLASSES)
    return Rows(source, label, _five(preds) if case.levels else preds, true[:, None] == every, named[..., None] == every)


def _five(values: Vector) -> Vector:
    return np.clip(np.round(values), -2, 2)


def _unit(rows: Rows, model: int) -> tuple[Vector, Vector]:
    """Predictions and labels on [0, 1]."""
    return ndtr(rows.preds[model]), ndtr(rows.label)


# Of each statistic that has an interval: as a function of weights, of a model's answers.
STATISTICS: dict[str, Callable[[Rows, int], Statistic | None]] = {
    "srcc": lambda rows, model: weighted.srcc_of(rows.preds[model], rows.label),
    "plcc": lambda rows, model: weighted.plcc_of(rows.preds[model], rows.label),
    "plcc_fitted": lambda rows, model: weighted.plcc_fitted_of(rows.preds[model], rows.label),
    "krcc": lambda rows, model: weighted.krcc_of(rows.preds[model], rows.label, rows.source),
    "rmse": lambda rows, model: weighted.rmse_of(*_unit(rows, model)),
    "within_image_srcc": lambda rows, model: weighted.within_of(rows.preds[model], rows.label, rows.source, MIN_REGIONS),
    "pair_accuracy": lambda rows, model: weighted.pair_accuracy_of(rows.preds[model], rows.label, rows.source),
    "macro_f1": lambda rows, model: weighted.macro_f1_of(rows.classes, rows.named[model]),
    "accuracy": lambda rows, model: weighted.ratio_of((rows.classes == rows.named[model]).all(axis=1)),
}
DIFFERENCES = {
    **{"difference": "srcc", "difference_worse": "srcc", "difference_f1": "macro_f1", "holm": "srcc"},
    **{f"difference_{name}": name for name in STATISTICS if name not in LEADING},
}
EQUAL, WORSE = 3, 3  # models that are equally good, and the number of one whose correlation is smaller
JUDGED = dict.fromkeys(DIFFERENCES, (0, 1)) | {"difference_worse": (0, WORSE), "holm": tuple(range(EQUAL))}
LOSS = 0.8  # the worse model's correlation, as a share of the others'
WITHIN = ("within_image_srcc", "pair_accuracy")
IMAGES = 60_000  # of a truth within images
CLASSED = ("macro_f1", "accuracy", "difference_f1", "difference_accuracy")
NAMES = (*STATISTICS, *DIFFERENCES)


@cache
def within_truth(case: Case, name: str) -> float:
    """What a statistic within images is of many images, each a source of its own; one that dominates is left out."""
    sizes = "equal" if case.sizes == "dominated" else case.sizes
    rows = draw(replace(case, sources=IMAGES, sizes=sizes), np.random.default_rng(1))
    return float(STATISTICS[name](rows, 0)(np.ones((1, len(rows.source))))[0])


@cache
def truth(name: str, correlation: float, levels: bool) -> float:
    """What a statistic is of all regions that there could be."""
    if name == "difference_worse":
        return truth("srcc", correlation, levels) - truth("srcc", LOSS * correlation, levels)
    if name in DIFFERENCES:
        return 0.0
    if name in CLASSED:
        return correlation  # classes are equally frequent, and so are mistakes
    if levels:
        rows = _rows(Case(LARGE, "equal", correlation, 0.0, levels), np.arange(LARGE), np.random.default_rng(1))
        pred, label = rows.preds[0], rows.label
        large: dict[str, Callable[[], float]] = {
            "srcc": lambda: float(spearmanr(pred, label).statistic),
            "krcc": lambda: float(kendalltau(pred, label).statistic),
            "rmse": lambda: rmse(*_unit(rows, 0)),
        }
        return large.get(name, lambda: float(np.corrcoef(pred, label)[0, 1]))()
    closed = {
        "srcc": 6 / math.pi * math.asin(correlation / 2),
        "krcc": 2 / math.pi * math.asin(correlation),
        "rmse": math.sqrt((1 - 6 / math.pi * math.asin(correlation / 2)) / 6),
    }
    return closed.get(name, correlation)


def coverage(case: Case, name: str, simulations: int, draws: int = 0) -> Found:
    """How often the interval of a statistic is right, and that between the percentiles of `draws` draws where there are any.

    A simulation in which there is no number, such as where no curve could be fitted, does not count.
    """
    rng = np.random.default_rng(0)
    label = f"{name}, {case.sources} sources of {case.sizes} sizes, {case.correlation}, {case.shared}" + ", levels" * case.levels
    found = []
    for k in tqdm(range(simulations), desc=label, unit="simulation", leave=False, delay=2):
        rows = draw(case, rng)
        statistic = STATISTICS[DIFFERENCES.get(name, name)]
        judged = JUDGED.get(name, (0,))
        each = [own for model in judged if (own := statistic(rows, model)) is not None]
        if len(each) == len(judged):
            found.append(_right(case, name, samples(each, rows.source, max(2, draws), seed=k)))
    held, width, *naive = np.mean(found, axis=0).tolist()
    return Found(held, width, *(naive if draws or name == "holm" else (math.nan, math.nan)))


def _right(case: Case, name: str, each: Sequence[Sample]) -> tuple[float, ...]:
    """Of one simulation, what `Found` is the mean of."""
    scale = SCALE[DIFFERENCES.get(name, name)]
    true = within_truth(case, name) if name in WITHIN else truth(name, case.correlation, case.levels)
    if name == "holm":
        p = [difference(a, b, scale).p for a, b in itertools.combinations(each, 2)]
        return min(holm(p)) >= 0.05, math.nan, min(p) >= 0.05, math.nan
    own: Interval = difference(*each, scale) if name in DIFFERENCES else interval(*each, scale)
    low, high = np.percentile(each[0].values[1:] - (each[1].values[1:] if name in DIFFERENCES else 0), [2.5, 97.5])
    return own.low <= true <= own.high, own.high - own.low, low <= true <= high, high - low


Known = dict[tuple[Case, str], Found]


def grid(sources: Sequence[int], sizes: Sequence[str] = tuple(SIZES)) -> Iterator[Case]:
    """Every kind of data."""
    for n, kind, correlation, shared, levels in itertools.product(sources, sizes, (0.3, 0.7, 0.9), (0.1, 0.7), (False, True)):
        yield Case(n, kind, correlation, shared, levels)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a Markdown table: of each statistic and number of sources the lowest and the highest share over the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=0, help="measure the interval between the percentiles of so many draws too")
    parser.add_argument("--clusters", type=int, nargs="+", default=[20, 40, 100], help="numbers of sources")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, help="kinds of numbers of regions of a source")
    parser.add_argument("--statistic", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--out", type=Path, help="a CSV file with a line for each case; those that it holds are not measured again")
    args = parser.parse_args(argv)
    if max(args.clusters) > MANY_SOURCES and args.draws < FEWEST_DRAWS:
        parser.error(
            f"--draws: got {args.draws}, expected at least {FEWEST_DRAWS}: above {MANY_SOURCES} sources the error is that of the draws"
        )
    known = _read(args.out, args.simulations, args.draws)
    wanted = [(case, name) for case in grid(args.clusters, args.sizes) for name in args.statistic if not (case.levels and name in CLASSED)]
    for case, name in tqdm(wanted, desc="cases", unit="case"):
        if (case, name) not in known:
            known[case, name] = coverage(case, name, args.simulations, args.draws)
            if args.out:
                _write(args.out, known, args.simulations, args.draws)
    for key in ("held", "naive") if args.draws else ("held",):
        print("\n".join(["", *table(known, args.statistic, args.clusters, key, args.sizes)]))


def table(known: Known, names: Sequence[str], clusters: Sequence[int], key: str = "held", kinds: Sequence[str] = tuple(SIZES)) -> list[str]:
    """The lines of the Markdown table of one of `Found`'s numbers."""
    columns = [(n, sizes) for n in clusters for sizes in kinds]
    lines = ["| statistic | " + " | ".join(f"{n} {sizes}" for n, sizes in columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in names:
        cells = []
        for n, sizes in columns:
            own = [getattr(f, key) for (case, known_name), f in known.items() if (known_name, case.sources, case.sizes) == (name, n, sizes)]
            cells.append(f"{min(own):.3f} to {max(own):.3f}" if own else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


_HEAD = ("statistic", *(f.name for f in fields(Case)), *(f.name for f in fields(Found)), "simulations", "draws")


def _read(path: Path | None, simulations: int, draws: int) -> Known:
    if path is None or not path.exists():
        return {}
    rows = [r for r in csv.DictReader(path.read_text().splitlines()) if (int(r["simulations"]), int(r["draws"])) == (simulations, draws)]
    return {
        (
            Case(int(r["sources"]), r["sizes"], float(r["correlation"]), float(r["shared"]), r["levels"] == "True"),
            r["statistic"],
        ): Found(*(float(r[f.name]) for f in fields(Found)))
        for r in rows
    }


def _write(path: Path, known: Known, simulations: int, draws: int) -> None:
    lines = [",".join(map(str, (name, *astuple(case), *astuple(found), simulations, draws))) for (case, name), found in known.items()]
    write_whole(path, "\n".join([",".join(_HEAD), *lines, ""]).encode())


if __name__ == "__main__":
    main()
