"""One run for people: plots as files, one HTML page that needs nothing but a browser, and a table for the terminal."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from components.tasks import TASKS
from evaluation import plots
from evaluation.correlations import MIN_POINTS
from evaluation.gallery import Mask, Pixels, encode_jpeg, region_card
from evaluation.protocols import CONTROLS, SCORES, Score, asked, usable

Images = Callable[[str], tuple[Pixels, Mask]]  # KeyError: none of this region

CARDS = 3  # in each row of the gallery
_MISSING = "–"


@dataclass(frozen=True)
class Fact:
    """One task of one region, in words: what the label says and what the model says."""

    name: str
    label: str
    answer: str


@dataclass(frozen=True)
class Card:
    """One region of the gallery: `picture` is a data address, `texts` are the model's answers as given."""

    title: str
    picture: str
    facts: tuple[Fact, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One row of the gallery."""

    title: str
    detail: str
    cards: tuple[Card, ...]


def write_report(
    folder: Path,
    table: pd.DataFrame,
    metrics: Mapping[str, Any],
    curves_csv: Path | None,
    images: Images,
    run: Mapping[str, Any],
    config_yaml: str,
) -> Path:
    """Writes `folder`/plots/*.png and `folder`/report.html, each file whole or not at all, and returns the page's path.

    Args:
        table: one row per region, as `protocols.evaluate` takes it.
        metrics: what `protocols.evaluate` gave for it.
        curves_csv: a Lightning `metrics.csv`, None where nothing was trained.
        images: a region's id -> its image (H, W, 3) uint8 and its mask (H, W) bool. Called only for the regions that are shown.
        run: facts about the run; `name`, if there, becomes the page's title.
        config_yaml: the resolved configuration.
    """
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    light, dark = (
        {name: plots.png(figure) for name, figure in figures(table, metrics, curves_csv, theme)} for theme in (plots.LIGHT, plots.DARK)
    )
    for name, data in light.items():
        write_whole(folder / "plots" / f"{name}.png", data)
    page = environment().get_template("report.html.j2")
    html = page.render(
        title=str(run.get("name", "ROI-IQA")),
        headline=headline(metrics),
        notes=notes(metrics),
        metrics=metrics,
        scores=SCORES,
        figures={name: (address(plots.webp(light[name]), "webp"), address(plots.webp(dark[name]), "webp")) for name in light},
        gallery=gallery(table, images),
        run={key: _readable(value) for key, value in run.items()},
        config=config_yaml,
    )
    write_whole(folder / "report.html", html.encode())
    return folder / "report.html"


def figures(table: pd.DataFrame, metrics: Mapping[str, Any], curves_csv: Path | None, theme: plots.Theme) -> Iterator[tuple[str, Figure]]:
    """The figures for which there is data, by the name of their file."""
    for task in SCORES:
        if metrics[task]["n"]:
            yield f"scatter_{task}", plots.scatter(table, task, theme, bars=True)
            if f"{task}_std" in table and usable(table, task)[f"{task}_std"].notna().any():
                yield f"calibration_{task}", plots.calibration(table, task, theme)
    if any(metrics["control"]["whole_image"][task]["srcc"] is not None for task in SCORES):
        yield "control", plots.control_bars(metrics, theme)
    for key, title in (("distortion", "Distortion type"), ("severity", "Severity")):
        if metrics[key]["n"]:
            yield f"confusion_{key}", plots.confusion_matrix(metrics[key]["confusion"], metrics[key]["labels"], title, theme)
    if curves_csv is not None:
        yield "curves", plots.learning_curves(curves_csv, theme)


def headline(metrics: Mapping[str, Any]) -> str:
    """The run in one sentence, with its control in the same breath."""
    task = next((t for t in SCORES if metrics[t]["srcc"] is not None), None)
    if task is None:
        return f"No correlation exists: none of the {metrics['n_regions']:,} regions' scores can be ranked against labels."
    n, value, control = metrics[task]["n"], metrics[task]["srcc"], metrics["control"]["whole_image"][task]["srcc"]
    start = f"Predicted {task} ranks {n:,} regions with SRCC {value:.3f}"
    return f"{start}." if control is None else f"{start}; shown the whole image instead, the same model reaches {control:.3f}."


def gallery(table: pd.DataFrame, images: Images) -> list[Row]:
    """The regions judged most rightly and most wrongly, and those predicted best and worst; at most one of an image in each row."""
    task = next((t for t in SCORES if len(usable(table, t))), None)
    ranked: list[tuple[str, str, pd.DataFrame]] = []
    if task:
        rows = usable(table, task)
        rows = rows.assign(error=(rows[f"{task}_pred"] - rows[task]).abs())
        ranked.append(("Judged best", f"smallest error of predicted {task}", rows.sort_values("error", kind="stable")))
        ranked.append(("Judged worst", f"largest error of predicted {task}", rows.sort_values("error", kind="stable", ascending=False)))
    if asked(table, "quality"):
        rows = table[table["quality_pred"].notna()]
        highest = rows.sort_values("quality_pred", kind="stable", ascending=False)
        ranked.append(("Looks best to the model", "highest predicted quality", highest))
        ranked.append(("Looks worst to the model", "lowest predicted quality", rows.sort_values("quality_pred", kind="stable")))
    shown = [(title, detail, rows.drop_duplicates("image").head(CARDS)) for title, detail, rows in ranked if len(rows)]
    return [Row(title, detail, tuple(_card(r, images) for r in chosen.to_dict("records"))) for title, detail, chosen in shown]


def console_table(metrics: Mapping[str, Any]) -> str:
    """The headline numbers and the controls, aligned for a terminal."""
    titles = [("SRCC", 8), ("PLCC", 8), ("4 par.", 8), ("5 par.", 8), ("KRCC", 8), ("RMSE", 8), ("in-image", 10), ("pairs", 8)]
    lines = [" " * 14 + "".join(f"{t:>{width}}" for t, width in [*titles, ("n", 9), ("dropped", 9), ("distinct", 9)])]
    for task in SCORES:
        m = metrics[task]
        numbers = "".join(f"{_number(m[key]):>8}" for key in ("srcc", "plcc", "plcc_fitted", "plcc_fitted_5", "krcc", "rmse"))
        numbers += f"{_number(m['within_image_srcc']):>10}{_percent(m['pair_accuracy']):>8}"
        lines.append(f"{task:14}{numbers}" + "".join(f"{m[key]:>9,}" for key in ("n", "dropped", "distinct")))
        blank = f"{_MISSING:>8}"
        for name in CONTROLS:
            control = metrics["control"][name][task]
            numbers = f"{_number(control['srcc']):>8}{_number(control['plcc']):>8}{blank * 3}{_number(control['rmse']):>8}"
            lines.append(f"{'  ' + name.replace('_', ' '):14}{numbers}{_MISSING:>10}{blank}{control['n']:>9,}{'':18}")
    lines += notes(metrics)
    lines += ["", f"{'':14}{'accuracy':>8}{'macro-F1':>10}{'precision':>11}{'recall':>8}{'F1':>8}{'n':>9}"]
    for key in ("distortion", "severity"):
        m = metrics[key]
        numbers = f"{_percent(m['accuracy']):>8}{_number(m['macro_f1']):>10}{_number(m['precision']):>11}{_number(m['recall']):>8}"
        lines.append(f"{key:14}{numbers}{_number(m['f1']):>8}{m['n']:>9,}")
    by_task = ", ".join(f"{task} {count:,}" for task, count in metrics["unparsed_by_task"].items())
    lines += ["", f"unparsed answers {metrics['unparsed']:,}" + (f" ({by_task})" if by_task else "")]
    lines.append(f"{metrics['n_regions']:,} regions of {metrics['n_images']:,} images from {metrics['n_sources']:,} sources")
    return "\n".join(lines)


def notes(metrics: Mapping[str, Any]) -> list[str]:
    """Why numbers of the scores do not exist, a line for each task that was asked about."""
    found = []
    for task in SCORES:
        m = metrics[task]
        if 0 < m["n"] < MIN_POINTS:
            found.append(f"{task}: no correlation over {m['n']} regions, at least {MIN_POINTS} are needed")
        elif m["n"] and not m["fit_converged"]:
            found.append(f"{task}: no fit ({m['fit_reason']})")
        elif m["n"] and not m["fit_5_converged"]:
            found.append(f"{task}: no fit of five parameters ({m['fit_5_reason']})")
    return found


def _card(region: Mapping[Any, Any], images: Images) -> Card:
    facts = [Fact(task.capitalize(), _number(region[task], 2), _score(region, task)) for task in SCORES if f"{task}_parsed" in region]
    if "distortion_parsed" in region:
        answer = _named(region["types_pred"], region["severities_pred"]) if region["distortion_parsed"] else "did not parse"
        facts.append(Fact("Distortion", _named(region["types"], region["severities"]), answer))
    texts = [region.get(f"{task}_text") for task in TASKS]
    picture = encode_jpeg(region_card(*images(region["id"])))
    return Card(str(region["id"]), address(picture, "jpeg"), tuple(facts), tuple(t for t in texts if isinstance(t, str) and t))


def _score(region: Mapping[Any, Any], task: Score) -> str:
    if not region[f"{task}_parsed"]:
        return "did not parse"
    std = region.get(f"{task}_std")
    return _number(region[f"{task}_pred"], 2) + ("" if std is None or pd.isna(std) else f" ± {std:.2f}")


def _named(types: object, severities: object) -> str:
    """("blur;noise", "minor;severe") -> "minor blur, severe noise"."""
    if not isinstance(types, str):
        return _MISSING
    if not types:
        return "clean"
    grades = severities.split(";") if isinstance(severities, str) else []
    names = types.split(";")
    return ", ".join(f"{grade} {name}".strip() for grade, name in zip(grades + [""] * (len(names) - len(grades)), names, strict=False))


def environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=lambda value: _number(value).replace("-", "−"), percent=_percent, probability=probability)
    return environment


def _number(value: Any, digits: int = 3) -> str:
    return _MISSING if value is None or pd.isna(value) else f"{value:.{digits}f}"


def probability(p: float | None) -> str:
    """A p-value as it is written: no sample shows that it is 0."""
    return _MISSING if p is None else "< 0.001" if p < 0.0005 else f"{p:.3f}"


def _percent(value: Any) -> str:
    return _MISSING if value is None or pd.isna(value) else f"{value:.1%}"


def _readable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def write_whole(path: Path, data: bytes) -> None:
    """Through a temporary neighbour, so that a reader or a kill never meets half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        temporary.unlink(missing_ok=True)
