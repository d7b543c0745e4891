"""The page of a comparison: one file that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from evaluation import comparison_plots as drawn
from evaluation import plots, ranking
from evaluation.bootstrap import SIGNIFICANT, UNTESTED_SOURCES
from evaluation.differences import LOWER, families, leading, told_from_chance, untested
from evaluation.entries import Entry
from evaluation.gallery import encode_jpeg, region_card
from evaluation.protocols import SCORES, Score
from evaluation.report import Images, address, environment, probability, write_whole

CARDS = 6
_FIGURES = ("srcc_", "differences_", "scatter_", "by_type_", "by_area_", "types_", "severities_", "confusion_")  # how their names begin
_CONFUSED = (("types", "distortion"), ("severities", "severity"))  # what a figure's name begins with, and whose matrix it is
_PARTS = {"quality": "Quality", "importance": "Importance", "distortion": "Distortions"}
_ENDS = 3  # models at each end of a disagreement
_SHOWN = 20  # differences drawn; all are in the table of differences.csv


def write_page(
    out: Path, result: Mapping[str, Any], tables: Mapping[str, Mapping[str, pd.DataFrame]], entries: Sequence[Entry], images: Images | None
) -> Path:
    """Writes `out`/plots/*.png and `out`/report.html, each file whole or not at all. Figures that only an earlier comparison had are
    removed.

    Args:
        result: what `comparison.compare` returns.
        tables: task -> model -> its rows on the regions that are compared.
    """
    (out / "plots").mkdir(parents=True, exist_ok=True)
    light, dark = ({n: plots.png(f) for n, f in figures(result, tables, theme)} for theme in (plots.LIGHT, plots.DARK))
    matrices = {n: plots.png(f) for n, f in confusions(result["models"])}
    for name, data in {**light, **matrices}.items():
        write_whole(out / "plots" / f"{name}.png", data)
    for path in (out / "plots").glob("*.png"):
        if path.stem not in {**light, **matrices} and path.stem.startswith(_FIGURES):
            path.unlink()
    models = result["models"]
    sections = ranking.sections(models, SCORES)
    html = (
        environment()
        .get_template("comparison.html.j2")
        .render(
            title=" · ".join(models) if len(models) < 4 else f"{len(models)} models",
            headline=headline(result),
            result=result,
            sections={t: (s, _rows(ranking.rows_of(models, s), s)) for t, s in sections.items()},
            sections_of=lambda about: [title for title, s in sections.items() if s.about == about],
            parts=_PARTS,
            placed=_placed(sections),
            dashes=ranking.dashes(models, SCORES),
            hints=ranking.hints(models, SCORES),
            figures={n: (address(plots.webp(light[n]), "webp"), address(plots.webp(dark[n]), "webp")) for n in light},
            confusions={kind: dict(_confused(models, key)) for kind, key in _CONFUSED},
            gallery=disagreements(tables, images) if images else [],
            pictures=images is not None,
            devices=sorted({m["device"] for m in models.values() if m["device"]}),
            differences=leading(result["differences"]),
            families=_named(result["differences"]),
            untested=untested(result["differences"]),
            untested_sources=UNTESTED_SOURCES,
        )
    )
    write_whole(out / "report.html", html.encode())
    return out / "report.html"


def figures(
    result: Mapping[str, Any], tables: Mapping[str, Mapping[str, pd.DataFrame]], theme: plots.Theme
) -> Iterator[tuple[str, Figure]]:
    """The figures for which there is data, by the name of their file."""
    models = result["models"]
    for task in SCORES:
        shown = {n: t for n, t in tables[task].items() if len(t)}
        if not shown:
            continue
        rows = _ordered([(n, m[task].get("intervals", {}).get("srcc")) for n, m in models.items() if task in m])
        if rows:
            yield f"srcc_{task}", drawn.forest(rows, f"SRCC of {task}", "95 % intervals over source images", theme)
        pairs = [d for d in leading(result["differences"]) if d["task"] == task and d["low"] is not None]
        best = rows[0].name if rows else ""
        own = [d for d in pairs if best in (d["first"], d["second"])]
        told = _ordered([(_versus(d, best), d if d["first"] == best else _turned(d)) for d in own], tested=True)
        if told:
            yield (
                f"differences_{task}",
                drawn.forest(told[:_SHOWN], f"{best} against the others", f"difference of SRCC on {task}, paired", theme, True),
            )
        yield f"scatter_{task}", drawn.scatters(shown, task, theme)
        for group, title in (("by_type", f"SRCC of {task} by labelled distortion"), ("by_area", f"SRCC of {task} by share of the image")):
            if any(m[task][group] for m in models.values() if task in m):
                yield f"{group}_{task}", drawn.group_map(models, task, group, title, theme)


def confusions(models: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Figure]]:
    """The confusion matrices of each model, by the name of their file; the page has them as tables, which many models do not make heavy."""
    for kind, key in _CONFUSED:
        for name, m in models.items():
            if m.get(key, {}).get("n"):
                yield f"{kind}_{name}", plots.confusion_matrix(m[key]["confusion"], m[key]["labels"], drawn.short(name))


def _confused(models: Mapping[str, Mapping[str, Any]], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each model the columns of its confusion matrix, and its rows by their labels: shares and counts."""
    for name, m in models.items():
        if m.get(key, {}).get("n"):
            labels = m[key]["labels"]
            counts, shares = plots.confusion_shares(m[key]["confusion"], labels)
            rows = {label: list(zip(s, c, strict=True)) for label, s, c in zip(labels, shares.tolist(), counts.tolist(), strict=False)}
            yield name, {"labels": labels, "rows": rows, "n": int(counts.sum())}


def _rows(models: Mapping[str, Mapping[str, Any]], section: ranking.Section) -> dict[str, list[tuple[str, int]]]:
    return dict(zip(models, ranking.cells(models, section.columns), strict=True))


def _placed(sections: Mapping[str, ranking.Section]) -> dict[str, str]:
    """The last table of a task's types, or areas -> the figure below it."""
    found: dict[str, str] = {}
    for task in SCORES:
        for figure, part in (("by_type", "by distortion"), ("by_area", "by share of the image")):
            titles = [t for t, s in sections.items() if s.about == task and part in t]
            found |= {titles[-1]: f"{figure}_{task}"} if titles else {}
    return found


def _named(differences: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The families of the other statistics, by what is said of each: its rows, and whether less is better."""
    found = families(differences).items()
    return {f"{task.capitalize()}, {ranking.NUMBERS[key]}": {"rows": own, "lower": key in LOWER} for (task, key), own in found}


def headline(result: Mapping[str, Any]) -> str:
    """The finding in a sentence: whose correlation is highest, and whether what it is ahead of the second by is told from chance."""
    for task in SCORES:
        ranked = sorted(
            ((m[task]["srcc"], n) for n, m in result["models"].items() if m.get(task, {}).get("srcc") is not None), reverse=True
        )
        if len(ranked) < 2:
            continue
        (value, first), (_, second) = ranked[:2]
        pair = next(d for d in leading(result["differences"]) if d["task"] == task and {d["first"], d["second"]} == {first, second})
        if pair["same_predictions"]:
            return f"{first} and {second} have the same predictions of {task}, with the highest SRCC, {value:.3f}."
        by, p = f"{abs(pair['estimate']):.3f}", pair["p_holm"]
        if p is not None and p < SIGNIFICANT:
            return f"{first} leads on {task} with SRCC {value:.3f}; {second} is {by} behind ({_p(p)} after Holm's correction)."
        why = "not told from chance: "
        why += f"{_p(p)} after Holm's correction" if p is not None else "too few sources" if pair["untested"] else "there is no interval"
        return f"{first} has the highest SRCC of {task}, {value:.3f}; {second} is {by} behind, which is {why}."
    return "No two models have a correlation to compare."


def _p(p: float) -> str:
    said = probability(p)
    return f"p {said}" if said.startswith("<") else f"p = {said}"


def disagreements(tables: Mapping[str, Mapping[str, pd.DataFrame]], images: Images) -> list[dict[str, Any]]:
    """The regions that the models rank most differently, at most one of an image; ranks, so that scales may differ.

    Of each its picture, and rows from the highest rank to the lowest: a model's name or "label", and its rank in [0, 1]. Of many models
    those are shown that rank it highest and lowest; `between` counts the others. A region that `images` does not know (KeyError), since
    they are those of one run and another has more, is passed over.
    """
    task: Score | None = next((t for t in SCORES if len(tables[t]) > 1 and len(next(iter(tables[t].values())))), None)
    if task is None:
        return []
    rows = tables[task]
    ranks = pd.DataFrame({n: t.set_index("id")[f"{task}_pred"].rank(pct=True) for n, t in rows.items()})
    first = next(iter(rows.values())).set_index("id")
    order = (ranks.max(axis=1) - ranks.min(axis=1)).sort_values(ascending=False, kind="stable").index
    labels = first[task].rank(pct=True)
    cards: list[dict[str, Any]] = []
    for region in first.loc[order].drop_duplicates("image").index:
        try:
            shown = images(region)
        except KeyError:
            continue
        told = _extremes([*((n, float(ranks.loc[region, n])) for n in rows), ("label", float(labels[region]))])
        picture = address(encode_jpeg(region_card(*shown)), "jpeg")
        cards.append({"id": region, "picture": picture, "rows": told, "between": max(0, len(rows) - 2 * _ENDS), "task": task})
        if len(cards) == CARDS:
            break
    return cards


def _extremes(rows: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The label, and the models of the highest and of the lowest ranks, sorted from high to low."""
    ranked = sorted(rows, key=lambda row: -row[1])
    models = [row for row in ranked if row[0] != "label"]
    kept = models if len(models) <= 2 * _ENDS else models[:_ENDS] + models[-_ENDS:]
    return [row for row in ranked if row[0] == "label" or row in kept]


def _ordered(rows: Sequence[tuple[str, Mapping[str, Any] | None]], tested: bool = False) -> list[drawn.Line]:
    """From the highest to the lowest; of those that are `tested`, differences, the ones told from chance count as findings."""
    known = [
        drawn.Line(n, d["estimate"], d["low"], d["high"], not tested or told_from_chance(d), d["few"])
        for n, d in rows
        if d and d["low"] is not None
    ]
    return sorted(known, key=lambda row: -row.estimate)


def _versus(difference: Mapping[str, Any], best: str) -> str:
    return f"over {difference['second'] if difference['first'] == best else difference['first']}"


def _turned(difference: Mapping[str, Any]) -> dict[str, Any]:
    return {**difference, "estimate": -difference["estimate"], "low": -difference["high"], "high": -difference["low"]}
