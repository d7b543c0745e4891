"""Models by data sets: what each reaches on each, where entries were measured on different test data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pandas as pd

from components.tasks import TASKS
from evaluation.comparison import compare, judge
from evaluation.entries import Entry, agree, disputed
from evaluation.names import tell_apart
from evaluation.place import check_place
from evaluation.protocols import SCORES, plain
from evaluation.ranking import Column, latex, markdown, missing, value
from evaluation.report import Images, write_whole


def by_data(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The entries of each data set, by its name: those belong together that share regions and agree on their labels.

    Names of regions alone do not tell two data sets apart, and fingerprints cover more than the test data. An entry belongs to a data set
    with any of whose entries it agrees, so that the order of `entries` changes nothing but the order of the answer.

    Raises:
        ValueError: two entries of one data set that disagree on a label, though others agree with both.
    """
    groups: list[list[Entry]] = []
    for entry in entries:
        joined = [g for g in groups if any(agree(member, entry) for member in g)]
        apart = [g for g in groups if not any(g is j for j in joined)]
        groups = [*apart, [*(member for g in joined for member in g), entry]]
    place = {id(entry): number for number, entry in enumerate(entries)}
    groups = sorted((sorted(g, key=lambda e: place[id(e)]) for g in groups), key=lambda g: place[id(g[0])])
    for group in groups:
        _require_peace(group)
    return dict(zip(_names([g[0] for g in groups]), groups, strict=True))


def compare_across(
    groups: Mapping[str, Sequence[Entry]],
    out: Path,
    images: Images | None = None,
    draws: int = 1000,
    absent: Mapping[str, str] | None = None,
    made_of: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes across.json, .csv, .md and .tex into `out`, and a comparison into a folder of it for each data set with several models.

    Args:
        images: as `comparison.compare` takes it, for the first data set.
        absent, made_of: as `comparison.compare` takes them; the second is for across.json.

    Returns:
        What across.json holds: `datasets`, name -> regions, sources, notes and the `folder` of its comparison (None of one model);
        `models`, name -> `trained_on`, and data set -> its results; `absent` and `made_of`.

    Raises:
        ValueError: a data set on which an entry occurs twice, two models of one name, or such that `comparison.compare` refuses.
    """
    groups = tell_apart(groups)
    models: dict[str, dict[str, Any]] = {}
    datasets: dict[str, dict[str, Any]] = {}
    folders = _folders(list(groups))
    for name, own in groups.items():
        if len(own) > 1:
            check_place(out / folders[name])
    for number, (name, entries) in enumerate(groups.items()):
        folder = folders[name] if len(entries) > 1 else None
        try:
            if folder:
                found = compare(entries, out / folder, images if number == 0 else None, draws, absent=absent)
            else:
                found = judge(entries, draws)[0]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        datasets[name] = {"regions": found["regions"], "sources": found["sources"], "notes": found["notes"], "folder": folder}
        for entry in entries:
            models.setdefault(entry.name, {"trained_on": entry.trained_on})[name] = found["models"][entry.name]
    result: dict[str, Any] = plain({"datasets": datasets, "models": models, "absent": dict(absent or {}), "made_of": made_of})
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "across.json", json.dumps(result, indent=2, ensure_ascii=False).encode())
    rows = labelled(result)
    sections = columns(result)
    told = [f"- {line}" for line in notes(result)]
    write_whole(out / "across.md", "\n".join([*(f"## {t}\n\n{markdown(rows, c)}" for t, c in sections.items()), *told, ""]).encode())
    write_whole(
        out / "across.tex",
        "\n".join([*(f"% {t}\n{latex(rows, c)}" for t, c in sections.items()), *(f"% {line}" for line in notes(result)), ""]).encode(),
    )
    write_whole(out / "across.csv", _long(result).to_csv(index=False).encode())
    return result


def notes(result: Mapping[str, Any]) -> list[str]:
    """Who is missing, what is to be known of each data set's numbers, and what the dashes of `columns` stand for."""
    out = [f"missing: {name} ({reason})" for name, reason in result["absent"].items()]
    shown = [c for found in columns(result).values() for c in found]
    for dataset, told in result["datasets"].items():
        own = {n: m[dataset] for n, m in result["models"].items() if dataset in m}
        elsewhere = [n for n in result["models"] if n not in own]
        lines = list(told["notes"])
        lines += [f"{', '.join(elsewhere)}: not measured on it"] if elsewhere else []
        lines += missing([(own, [replace(c, path=c.path[1:]) for c in shown if c.path[0] == dataset])])
        out += [f"{dataset}: {line}" for line in lines]
    return out


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
    "rmse_fitted",
    "within_image_srcc",
    "within_image_images",
    "pair_accuracy",
    "whole_image",
    "n",
    "distinct",
    "tied",
    "at_bounds",
)
_CLASSED = ("macro_f1", "accuracy", "precision", "recall", "f1", "n")


def _long(result: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each model, data set and task, with the interval of SRCC, or of macro-F1, and the counts of what was not judged."""
    rows = []
    for name, model in result["models"].items():
        for dataset in result["datasets"]:
            for task in TASKS:
                own = model.get(dataset, {}).get(task)
                if own:
                    first = "srcc" if task in SCORES else "macro_f1"
                    interval = own.get("intervals", {}).get(first, {})
                    kept = {k: own.get(k) for k in (_KEPT if task in SCORES else _CLASSED)} | model[dataset]["coverage"][task]
                    place = {"model": name, "trained_on": model["trained_on"], "dataset": dataset, "task": task}
                    rows.append({**place, **kept, f"{first}_low": interval.get("low"), f"{first}_high": interval.get("high")})
    return pd.DataFrame(rows)


def _names(first: Sequence[Entry]) -> list[str]:
    """A name for each data set: as its runs describe it, with the fingerprint's beginning or a number where two share it."""
    told = [e.dataset or "unnamed data" for e in first]
    marked = [f"{t} {(e.data or str(n))[:4]}" if told.count(t) > 1 else t for n, (t, e) in enumerate(zip(told, first, strict=True), 1)]
    return [f"{m} {n}" if marked.count(m) > 1 else m for n, m in enumerate(marked, 1)]


def _require_peace(group: Sequence[Entry]) -> None:
    """Raises ValueError where two entries of a group, which others join, disagree on a label."""
    for first, other in combinations(group, 2):
        found = disputed(first, other)
        if found:
            region, column, one, two = found
            raise ValueError(
                f"{first.name} and {other.name} have different {column} labels for {region!r} ({one!r} and {two!r}), and of "
                f"{[e.name for e in group]} some agree with both: give those of one data set at a time, or measure all again with eval.py"
            )


def _folders(names: Sequence[str]) -> dict[str, str]:
    """A folder's name for each data set, no two alike (on a disk that does not tell capitals apart, too), and none of dots alone."""
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain_name = re.sub(r"[^\w.-]+", "_", name)
        plain_name = plain_name if plain_name.strip(".") else "data"
        tries = (plain_name if n == 1 else f"{plain_name}_{n}" for n in count(1))
        out[name] = next(t for t in tries if t.casefold() not in taken)
        taken.add(out[name].casefold())
    return out
