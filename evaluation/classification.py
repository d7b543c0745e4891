"""How well named classes match labelled ones, where a region may have none, one or several.

A region's answer is a set of classes and is never empty: "no distortion" is a class of its own, and so is an answer that could not
be parsed, which matches nothing and therefore counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

Classes = frozenset[str]

UNPARSED = "unparsed"
SEVERAL = "several"


@dataclass(frozen=True)
class Classification:
    """Agreement of N regions' predicted classes with their labels, each number in [0, 1], nan where N = 0.

    Attributes:
        accuracy: share of regions whose set of classes is exactly right.
        macro_f1: mean of `per_class_f1`.
        per_class_f1: for each class that occurs among labels or predictions. "unparsed" is no class a region can have: it has no F1
            of its own and lowers the recall of the classes that were missed.
        precision, recall, f1: per region, then averaged over regions (the sample average of SEAGULL's Table 1).
        n: regions.
        labels: the classes in the order of `confusion`.
        confusion: regions, row = label, column = prediction. A region with several classes stands in the class "several".
    """

    accuracy: float
    macro_f1: float
    per_class_f1: dict[str, float]
    precision: float
    recall: float
    f1: float
    n: int
    labels: tuple[str, ...]
    confusion: NDArray[np.int64]


def read_classes(text: object, empty: str) -> Classes | None:
    """A ";"-joined string as a set: "" is {`empty`}, and anything that is not a string (None, NaN) is None, unknown."""
    return _classes(text, empty) if isinstance(text, str) else None


@lru_cache(maxsize=2**14)
def _classes(text: str, empty: str) -> Classes:
    """Kept, since a table has few texts and millions of answers."""
    return frozenset(name.strip() for name in text.split(";") if name.strip()) or frozenset({empty})


def classify(
    labels: Sequence[Classes], predictions: Sequence[Classes | None], first: Sequence[str] = (), outside: Sequence[str] = ()
) -> Classification:
    """Compares N regions.

    Args:
        predictions: None where an answer did not parse.
        first: classes that lead the order; the rest follow by name, then "several", `outside` and "unparsed".
        outside: what an answer may be but a label cannot. Like "unparsed" it has no F1 of its own.

    Raises:
        ValueError: lengths that differ, or a label that uses a reserved name.
    """
    if len(labels) != len(predictions):
        raise ValueError(f"{len(labels)} labels and {len(predictions)} predictions: there must be one prediction for each label")
    extra = (SEVERAL, *outside, UNPARSED)
    reserved = set(extra) & frozenset().union(*labels)
    if reserved:
        raise ValueError(f"the class {sorted(reserved)[0]!r} is reserved for the confusion matrix: rename it in the labels")
    answers = [frozenset({UNPARSED}) if p is None else p for p in predictions]
    seen = frozenset().union(*labels, *answers)
    names = [*(c for c in first if c in seen), *sorted(seen - set(first) - set(extra))]
    single = {_single(c) for c in (*labels, *answers)}
    order = (*names, *(c for c in extra if c in single))
    matrix = confusion(labels, answers, order)
    if not labels:
        nan = float("nan")
        return Classification(nan, nan, {}, nan, nan, nan, 0, order, matrix)
    binarizer = MultiLabelBinarizer(classes=[*names, *extra])
    truth, answer = binarizer.fit_transform(labels), binarizer.transform(answers)  # (N, classes)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, answer, average="samples", zero_division=0)
    per_class = f1_score(truth, answer, average=None, zero_division=0)[: len(names)]
    return Classification(
        accuracy=float(accuracy_score(truth, answer)),
        macro_f1=float(np.mean(per_class)),
        per_class_f1={name: float(score) for name, score in zip(names, per_class, strict=True)},
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        n=len(labels),
        labels=order,
        confusion=matrix,
    )


def confusion(labels: Sequence[Classes], predictions: Sequence[Classes], order: Sequence[str]) -> NDArray[np.int64]:
    """(K, K) counts in the order of the K classes given, row = label; sets of several classes count as "several".

    Raises:
        ValueError: a class that `order` does not name.
    """
    place = {name: k for k, name in enumerate(order)}
    pairs = [(_single(label), _single(answer)) for label, answer in zip(labels, predictions, strict=True)]
    missing = sorted({name for pair in pairs for name in pair} - set(order))
    if missing:
        raise ValueError(f"the order of classes {list(order)} lacks {missing}")
    counts = np.zeros((len(order), len(order)), np.int64)
    for label, answer in pairs:
        counts[place[label], place[answer]] += 1
    return counts


def _single(classes: Classes) -> str:
    return next(iter(classes)) if len(classes) == 1 else SEVERAL
