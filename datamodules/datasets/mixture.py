"""Several data sets as one, in chosen proportions: deterministic, map-style, and every sample is seen.

An epoch is as long as the weights need for every training sample of every set to stand in it at least once; sets that weigh more than
their size repeat. Validation and test images are those of all sets, once each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from components.registry import ConfigError, Part
from components.tasks import TASKS, Task
from datamodules.datasets.base import DATASETS, RoiDataset, Samples
from datamodules.records import RegionRecord, Split
from datamodules.samples import RoiSample

MOST_REPEATED = 100  # an epoch over the samples there are
_HIDDEN: dict[Task, dict[str, None]] = {
    "quality": {"quality": None, "quality_std": None},
    "importance": {"importance": None, "importance_std": None},
    "distortion": {"distortions": None},
}


@DATASETS.register("mixture")
class Mixture(RoiDataset):
    """Several data sets in chosen proportions; see the module's docstring.

    Args:
        sets: data sets by name; the name stands in front of their images', regions' and sources' names.
        weights: of the sets' training samples, any positive numbers; 1 where not named.
        tasks: which tasks a set's training samples teach, where not all that it has labels of.

    Raises:
        ConfigError: no sets, a weight or a task of none, or a task that is none.
    """

    def __init__(
        self,
        *,
        sets: dict[str, Part[RoiDataset]],
        weights: dict[str, float] | None = None,
        tasks: dict[str, list[str]] | None = None,
        cache: str = "outputs/cache",
    ) -> None:
        if not sets:
            raise ConfigError("mixture: sets: at least one data set by name, got none")
        weights, self.tasks = weights or {}, tasks or {}
        unknown = sorted((set(weights) | set(self.tasks)) - set(sets))
        if unknown:
            raise ConfigError(f"mixture: weights and tasks are of the sets {', '.join(sets)}, got {', '.join(unknown)}")
        if any(not 0 < w < float("inf") for w in weights.values()):
            raise ConfigError(f"mixture: weights are positive numbers, got {weights}")
        odd = sorted({t for named in self.tasks.values() for t in named} - set(get_args(Task)))
        if odd:
            raise ConfigError(f"mixture: tasks are {', '.join(TASKS)}, got {', '.join(odd)}")
        self.sets = {name: part() for name, part in sets.items()}
        self.weights = {name: float(weights.get(name, 1.0)) for name in sets}
        self.cache = Path(cache) if cache else None
        self.pairs = all(dataset.pairs for dataset in self.sets.values())

    @property
    def most_types(self) -> int:
        """Of any set."""
        return max(s.most_types for s in self.sets.values())

    def prepare(self) -> None:
        """Prepares each set."""
        for dataset in self.sets.values():
            dataset.prepare()

    def split(self, name: Split) -> Samples:
        """The samples of a split.

        Raises:
            ConfigError: a set has no training samples, or the weights make an epoch very much longer than the sets together.
        """
        parts = {n: s.split(name) for n, s in self.sets.items()}
        if name != "train":
            return _Mixed(parts, {n: len(p) for n, p in parts.items()}, {})
        empty = [n for n, p in parts.items() if not len(p)]
        if empty:
            raise ConfigError(f"mixture: {', '.join(empty)} has no training samples, and so no share of them")
        hidden = {n: [t for t in TASKS if t not in named] for n, named in self.tasks.items()}
        return _Mixed(parts, self._counts({n: len(p) for n, p in parts.items()}), hidden)

    def kept(self, name: Split, described: Mapping[str, Any]) -> Samples | None:
        """As the contract says: where each set has kept its own."""
        found = {n: s.kept(name, described.get("sets", {}).get(n, {})) for n, s in self.sets.items()}
        parts = {n: p for n, p in found.items() if p is not None}
        return _Mixed(parts, {n: len(p) for n, p in parts.items()}, {}) if len(parts) == len(found) else None

    def _counts(self, sizes: dict[str, int]) -> dict[str, int]:
        """Samples of each set in an epoch."""
        needed = max(size / self.weights[name] for name, size in sizes.items())
        counts = {name: max(size, round(needed * self.weights[name])) for name, size in sizes.items()}
        if sum(counts.values()) > MOST_REPEATED * sum(sizes.values()):
            said = ", ".join(f"{name} {counts[name]:,} of its {size:,}" for name, size in sizes.items())
            raise ConfigError(
                f"mixture: by the weights {self.weights} an epoch has {sum(counts.values()):,} samples ({said}), more than {MOST_REPEATED} "
                "times as many as there are: bring the weights nearer to the sets' sizes"
            )
        return counts

    def only_tested(self) -> dict[str, Any]:
        """See the contract; of those sets that have such options."""
        return {f"sets.{name}.{key}": value for name, one in self.sets.items() for key, value in one.only_tested().items()}

    def pictures(self, name: Split) -> set[str] | None:
        """See the contract; of all sets."""
        found = [one.pictures(name) for one in self.sets.values()]
        known = [pictures for pictures in found if pictures is not None]
        return set().union(*known) if len(known) == len(found) else None

    def describe(self) -> dict[str, Any]:
        """What each set says, the weights and the tasks."""
        sets = {name: dataset.describe() for name, dataset in self.sets.items()}
        return {"dataset": "mixture", "sets": sets, "weights": self.weights, "tasks": self.tasks}

    @classmethod
    def tiny(cls) -> dict[str, Any]:
        """Two small sets in equal parts."""
        return {
            "sets": {n: {"plugin": n, **DATASETS.get(n).tiny()} for n in ("indexed", "roi_folder")},
            "tasks": {"roi_folder": ["quality"]},
        }


class _Mixed(Dataset[RoiSample]):
    """`counts` samples of each part, spread evenly, those of a part in order and over again."""

    def __init__(self, parts: dict[str, Samples], counts: dict[str, int], hidden: dict[str, list[Task]]) -> None:
        self.names, self.parts = list(parts), list(parts.values())
        self.hidden = [hidden.get(name, []) for name in self.names]
        which = np.repeat(np.arange(len(parts)), list(counts.values()))
        draw = np.concatenate([np.arange(n) for n in counts.values()]) if counts else np.empty(0, np.int64)
        places = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts.values()])
        order = np.argsort(places, kind="stable")
        self.which, self.draw = which[order], draw[order]

    def __len__(self) -> int:
        return len(self.which)

    def region_counts(self) -> NDArray[np.int64]:
        """(N,) regions of each sample, without reading it."""
        found = np.zeros(len(self), np.int64)
        for number, part in enumerate(self.parts):
            own = self.which == number
            found[own] = part.region_counts()[self.draw[own] % max(len(part), 1)]
        return found

    def __getitem__(self, index: int) -> RoiSample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(self.which[index])
        part, name = self.parts[number], self.names[number]
        again, place = divmod(int(self.draw[index]), len(part))
        sample = part[place]
        mark = f"{name}/" if not again else f"{name}@{again}/"  # a sample that is shown again has names of its own
        regions = tuple(_renamed(r, mark, self.hidden[number]) for r in sample.record.regions)
        record = replace(sample.record, id=f"{mark}{sample.record.id}", source=f"{name}/{sample.record.source}", regions=regions)
        return replace(sample, record=record)


def _renamed(region: RegionRecord, mark: str, hidden: Sequence[Task]) -> RegionRecord:
    nothing: dict[str, Any] = {field: None for task in hidden for field in _HIDDEN[task]}
    return replace(region, id=f"{mark}{region.id}", **nothing)
