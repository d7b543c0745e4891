"""Who takes part in a task of a comparison, on which regions, and what is told about those who do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from components.tasks import TASKS
from evaluation.entries import Entry, heard, label_column
from evaluation.protocols import unparsed

MIN_SHARE = 0.9  # of a task's labelled regions: fewer answers, and a model is left out of the task, for it would take the others' regions

Coverage = Mapping[str, Mapping[str, Mapping[str, int]]]  # model -> task -> what `entries.align` counts
Tables = Mapping[str, Mapping[str, pd.DataFrame]]  # task -> model -> its rows on the regions that are compared


def answered(entries: Sequence[Entry], task: str) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Of each model that was asked: its rows on the regions that have a label and an answer of every such model; and who is left out, why.

    While the models have less than `MIN_SHARE` of the labelled regions in common, the one that answered least is left out, so that none
    takes the regions from the others that it failed on, or that its file lacks.
    """
    rows = {e.name: heard(e.table, task) for e in entries if e.answers(task)}
    label = label_column(task)
    labelled = len(set().union(*(e.table.loc[e.table[label].notna(), "id"] for e in entries)))
    excluded: dict[str, str] = {}
    while len(rows) > 1 and len(_common(rows)) < MIN_SHARE * labelled:
        least = min(rows, key=lambda name: len(rows[name]))
        excluded[least] = f"it answered {len(rows.pop(least)):,} of {labelled:,} labelled regions, and nobody could be judged on the others"
    common = _common(rows)
    return {name: r[r["id"].isin(common)].reset_index(drop=True) for name, r in rows.items()}, excluded


def _common(rows: Mapping[str, pd.DataFrame]) -> set[str]:
    return set.intersection(*(set(r["id"]) for r in rows.values())) if rows else set()


def alike(rows: Mapping[str, pd.DataFrame], column: str, parsed: str) -> set[frozenset[str]]:
    """The pairs of models that gave every region the same answer.

    Args:
        rows: model -> what it was judged on, in one order for all.
        column: of the answers; those that did not parse, by the column `parsed`, are one answer.
    """
    answers = {name: own[column].where(own[parsed].eq(True)).astype(object).reset_index(drop=True) for name, own in rows.items()}
    return {frozenset(pair) for pair in combinations(answers, 2) if answers[pair[0]].equals(answers[pair[1]])}


def without_answer(entries: Sequence[Entry], task: str, judged: Tables, coverage: Coverage) -> list[str]:
    """A line for each model that takes part in a task and has no answer about some of its regions."""
    found = []
    for entry in (e for e in entries if e.name in judged[task] and coverage[e.name][task]["skipped"]):
        count = coverage[entry.name][task]
        lacking = f"{count['skipped']:,} of {count['labelled']:,} labelled regions, the first is {_first_lacking(entries, entry, task)!r}"
        found.append(f"{entry.name} has no answer about {task} for {lacking}: no model is judged on them")
    return found


def _first_lacking(entries: Sequence[Entry], entry: Entry, task: str) -> str:
    labelled = pd.concat([e.table.loc[e.table[label_column(task)].notna(), "id"] for e in entries])
    answers = {*heard(entry.table, task)["id"], *entry.table.loc[unparsed(entry.table, task), "id"]}
    return str(labelled[~labelled.isin(answers)].iloc[0])


def alone(entries: Sequence[Entry], judged: Tables) -> list[str]:
    """A line for each of several models that was asked no task that another was asked.

    Raises:
        ValueError: so it is with all of them.
    """
    tasks = {e.name: [task for task in TASKS if e.answers(task)] for e in entries}
    if len(entries) > 1 and max(map(len, judged.values())) < 2:
        told = ", ".join(f"{name} about {' and '.join(own) or 'nothing'}" for name, own in tasks.items())
        raise ValueError(
            f"no two models answered about the same task ({told}), so there is nothing to compare: measure them on one in common; a file's "
            "column task says which of quality and importance a row is about"
        )
    lonely = [n for n, own in tasks.items() if not any(set(own) & set(other) for m, other in tasks.items() if m != n)]
    return [f"{name} answered about no task that another did, so it is compared with none" for name in lonely if len(tasks) > 1]


def remedies(left_out: Sequence[Mapping[str, int]]) -> str:
    """What to do about models that answered too little, by what their answers lack."""
    found = []
    if any(c["skipped"] for c in left_out):
        found.append("add the missing rows, or measure all on the same regions")
    if any(c["unparsed"] for c in left_out):
        found.append("a file needs a score in each row, and a model answers that parse: `grammar: true` in its model.readouts")
    return "; ".join(found)
