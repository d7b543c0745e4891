"""Answers as HTML: a card for each region, and the ranked table of a map. Everything that is not ours is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from components.prompts import SEVERITIES
from components.tasks import RegionScores, RoiScore, Task
from inference.draw import colour, ink_on, shown_task
from inference.page.chart import chart, in_words
from inference.page.visit import Marked, Visit
from inference.quality_map import QualityMap
from inference.reduced import FACTOR

RANKED = 8  # regions in a map's table
_TITLES: dict[Task, str] = {"quality": "Quality", "importance": "Importance", "distortion": "Distortion"}
_NOTHING = (
    '<div class="roi-nothing"><b>No region yet.</b> Choose one in the picture, as it says above it: how good it is, how much it matters '
    "and what is wrong with it is said here.</div>"
)


def cards(visit: Visit, models: Sequence[str], tasks: Sequence[Task]) -> str:
    """The regions of a visit, the newest first, as it is what was just asked."""
    if not visit.regions:
        return _NOTHING
    listed = reversed(list(enumerate(visit.regions, 1)))
    told = "".join(_card(number, region, models, tasks) for number, region in listed)
    return f'<div class="roi-cards" role="list" aria-live="polite" aria-label="Answers, the newest first">{told}</div>'


def ranking(maps: Sequence[QualityMap], models: Sequence[str], notes: Sequence[str]) -> str:
    """The regions that spoil the image most, for each model, and what is to be noted of its map ("" for nothing)."""
    given = zip(maps, models, notes, strict=True)
    return "".join(_ranked(found, model if len(models) > 1 else "", note) for found, model, note in given)


def disc(number: int, score: RoiScore | None) -> str:
    """A region's number in the colour that it has on the picture."""
    ground = colour(score)
    return f'<span class="roi-disc" style="background:rgb{ground};color:rgb{ink_on(ground)}">{number}</span>'


def _card(number: int, region: Marked, models: Sequence[str], tasks: Sequence[Task]) -> str:
    row, shown = region.row, shown_task(tasks)
    coloured = disc(number, row.scores.get(shown) if shown else None)
    head = f'{coloured}<b>{escape(row.region)}</b><span class="roi-muted">{row.area:.1%} of the image</span>'
    blocks = "".join(
        _answers(r.scores, model if len(models) > 1 else "", times)
        for model, r, times in zip(models, region.rows, region.reduced, strict=True)
    )
    label = f"Region {number}: {escape(row.region)}"
    told = f'<header>{head}</header><div class="roi-compared">{blocks}</div>'
    return f'<article class="roi-card" role="listitem" aria-label="{label}">{told}</article>'


def _answers(scores: RegionScores, model: str, times: float) -> str:
    named = f'<div class="roi-model">{escape(model)}</div>' if model else ""
    charts = "".join(_figure(score) for task, score in scores.items() if task != "distortion")
    ill = scores.get("distortion")
    told = "" if ill is None else _distortion(ill)
    return f'<section class="roi-answers">{named}<div class="roi-charts">{charts}</div>{told}{_small(times)}</section>'


def _small(times: float) -> str:
    """Of a region whose fine distortions the model cannot see."""
    if times <= FACTOR:
        return ""
    said = f"Reduced {times:.1f} times before the model looked: noise, compression and slight blur vanish."
    return f'<p class="roi-note">{said}</p>'


def _figure(score: RoiScore) -> str:
    title = f'<span class="roi-title">{_TITLES[score.task]}</span>'
    if score.value is None:
        return f'<figure class="roi-figure" data-task="{score.task}"><figcaption>{title}{_unparsed(score)}</figcaption></figure>'
    spread = "" if score.std is None else f' <span class="roi-muted">± {score.std:.2f}</span>'
    value = f'<span class="roi-value">{score.value:.2f}</span>{spread}'
    return f'<figure class="roi-figure" data-task="{score.task}"><figcaption>{title}{value}</figcaption>{chart(score)}</figure>'


def _distortion(score: RoiScore) -> str:
    if not score.parsed:
        told = _unparsed(score)
    elif not score.distortions:
        told = '<span class="roi-chip roi-clean">none</span>'
    else:
        told = "".join(_chip(kind, severity) for kind, severity in score.distortions)
    return f'<div class="roi-distortion" data-task="distortion"><span class="roi-title">{_TITLES["distortion"]}</span>{told}</div>'


def _chip(kind: str, severity: str) -> str:
    """A distortion with its strength in words, and as one to five filled steps."""
    strength = SEVERITIES.index(severity) + 1
    steps = "".join(f'<i class="{"roi-on" if n < strength else ""}"></i>' for n in range(len(SEVERITIES)))
    return f'<span class="roi-chip">{escape(severity)} {escape(kind)}<span class="roi-steps" aria-hidden="true">{steps}</span></span>'


def _unparsed(score: RoiScore) -> str:
    return f'<span class="roi-muted">not understood: “{escape(score.text[:120])}”</span>'


def _ranked(found: QualityMap, model: str, note: str) -> str:
    worst = found.worst()[:RANKED]
    named = f'<div class="roi-model">{escape(model)}</div>' if model else ""
    lines = "".join(_line(place, found, n) for place, n in enumerate(worst, 1))
    return (
        f'{named}<table class="roi-ranking"><caption>The regions that spoil the image most: low quality where it matters. '
        f"{len(found.scores)} regions were scored.</caption><thead><tr><th scope='col'></th><th scope='col'>Quality</th>"
        f"<th scope='col'>Importance</th><th scope='col'>Distortion</th></tr></thead><tbody>{lines}</tbody></table>"
        + (f'<p class="roi-note">{escape(note[0].upper() + note[1:])}.</p>' if note else "")
    )


def _line(place: int, found: QualityMap, n: int) -> str:
    scores = found.scores[n]
    cells = "".join(f"<td>{_cell(scores.get(task))}</td>" for task in _TITLES)
    return f"<tr><th scope='row'>{disc(place, None)}</th>{cells}</tr>"


def _cell(score: RoiScore | None) -> str:
    if score is None:
        return "–"
    if score.task == "distortion":
        named = ", ".join(f"{escape(severity)} {escape(kind)}" for kind, severity in score.distortions)
        return (named or "none") if score.parsed else "not understood"
    if score.value is None:
        return "not understood"
    bar = f'<span class="roi-mini" role="img" aria-label="{escape(in_words(score))}"><i style="width:{score.value:.0%}"></i></span>'
    return f"{bar}{score.value:.2f}" + ("" if score.std is None else f' <span class="roi-muted">± {score.std:.2f}</span>')
