"""Models by data sets: what each reaches on each, where entries were measured on different test data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.comparison import compare, judge
from evaluation.entries import Entry, agree
from evaluation.protocols import SCORES, plain
from evaluation.ranking import Column, latex, markdown, value
from evaluation.report import Images, write_whole


def by_data(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries of each data set, by its name: those belong together that share regions and agree on their labels.

    Names of regions alone do not tell two data sets apart, and fingerprints cover more than the test data.
    """
    groups: list[list[Entry]] = []
    for entry in entries:
        own = next((g for g in groups if agree(g[0], entry)), None)
        if own is None:
            groups.append([entry])
        else:
            own.append(entry)
    return dict(zip(_names([g[0] for g in groups]), groups, strict=True))


def compare_across(groups: Mapping[str, Sequence[Entry]], out: Path, images: Images | None = None, draws: int = 1000) -> dict[str, Any]:
    """Writes across.json, .csv, .md and .tex into `out`, and a comparison into a folder of it for each data set with several models.

    Args:
        images: as `comparison.compare` takes it, for the first data set.

    Returns:
        What across.json holds: `datasets`, name -> regions, sources and notes; `models`, name -> `trained_on`, and data set -> its results.

    Raises:
        ValueError: a data set on which an entry occurs twice, or such that `comparison.compare` refuses.
    """
    models: dict[str, dict[str, Any]] = {}
    datasets: dict[str, dict[str, Any]] = {}
    for number, (name, entries) in enumerate(groups.items()):
        try:
            if len(entries) > 1:
                found = compare(entries, out / _folder(name), images if number == 0 else None, draws)
            else:
                found = judge(entries, draws)[0]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        datasets[name] = {"regions": found["regions"], "sources": found["sources"], "notes": found["notes"]}
        for entry in entries:
            models.setdefault(entry.name, {"trained_on": entry.trained_on})[name] = found["models"][entry.name]
    result: dict[str, Any] = plain({"datasets": datasets, "models": models})
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "across.json", json.dumps(result, indent=2, ensure_ascii=False).encode())
    rows = labelled(result)
    sections = columns(result)
    told = [f"- {name}: {note}" for name, data in datasets.items() for note in data["notes"]]
    write_whole(out / "across.md", "\n".join([*(f"## {t}\n\n{markdown(rows, c)}" for t, c in sections.items()), *told, ""]).encode())
    write_whole(out / "across.tex", "\n".join(f"% {t}\n{latex(rows, c)}" for t, c in sections.items()).encode())
    write_whole(out / "across.csv", _long(result).to_csv(index=False).encode())
    return result


def columns(result: Mapping[str, Any]) -> dict[str, list[Column]]:
    """For each task that any model was asked, on each data set: of scores SRCC, PLCC and SRCC of the whole-image control."""
    shown = dict.fromkeys(SCORES, ("srcc", "plcc", "whole_image")) | {"distortion": ("macro_f1",)}
    out = {}
    for task, keys in shown.items():
        found = [Column(f"{d}: {_TITLES[k]}", (d, task, k), "" if k == "whole_image" else "high") for d in result["datasets"] for k in keys]
        if any(value(m, c.path) is not None for m in result["models"].values() for c in found):
            out[task.capitalize()] = found
    return out


def labelled(result: Mapping[str, Any]) -> dict[str, Any]:
    """The models by the names of their rows, which say what each was trained on: a number on that is no test of another data set."""
    models = result["models"].items()
    return {f"{name} (trained on {m['trained_on']})" if m["trained_on"] else name: m for name, m in models}


_TITLES = {"srcc": "SRCC", "plcc": "PLCC", "whole_image": "whole image", "macro_f1": "macro-F1"}


_KEPT = (
    "srcc",
    "plcc",
    "plcc_fitted",
    "plcc_fitted_5",
    "krcc",
    "rmse",
    "within_image_srcc",
    "pair_accuracy",
    "whole_image",
    "n",
    "distinct",
    "tied",
)


def _long(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model, data set and score task, with the interval of SRCC and the counts of what was not judged."""
    rows = []
    for name, model in result["models"].items():
        for dataset in result["datasets"]:
            for task in SCORES:
                own = model.get(dataset, {}).get(task)
                if own:
                    interval = own.get("intervals", {}).get("srcc", {})
                    kept = {k: own[k] for k in _KEPT} | model[dataset]["coverage"][task]
                    place = {"model": name, "trained_on": model["trained_on"], "dataset": dataset, "task": task}
                    rows.append({**place, **kept, "srcc_low": interval.get("low"), "srcc_high": interval.get("high")})
    return pd.DataFrame(rows)


def _names(first: Sequence[Entry]) -> list[str]:
    """A name for each data set: as its runs describe it, with the fingerprint's beginning or a number where two share it."""
    told = [e.dataset or "unnamed data" for e in first]
    marked = [f"{t} {(e.data or str(n))[:4]}" if told.count(t) > 1 else t for n, (t, e) in enumerate(zip(told, first, strict=True), 1)]
    return [f"{m} {n}" if marked.count(m) > 1 else m for n, m in enumerate(marked, 1)]


def _folder(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
