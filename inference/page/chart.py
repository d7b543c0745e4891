"""A score as a small picture (SVG): the probabilities of its level words at their places in [0, 1], above them mean and deviation."""

from __future__ import annotations

from html import escape

from components.prompts import LEVELS
from components.tasks import RoiScore
from inference.draw import colour

_WIDTH, _LEFT, _RIGHT = 300, 32, 268  # of the picture; places of 0 and 1
_TRACK, _TOP, _FLOOR, _WORDS = 13, 36, 82, 97  # heights of the mean, of a probability of 1, of 0, of the words
_BAR = 30


def chart(score: RoiScore) -> str:
    """A score whose value is known -> SVG that takes the colours of its surroundings; its label says all in words."""
    assert score.value is not None
    words = LEVELS[score.task]
    bars = "".join(_bar(n, word, score.levels[word]) for n, word in enumerate(words) if word in score.levels)
    names = "".join(_name(n, word, len(words)) for n, word in enumerate(words))
    height = _WORDS + 6 if score.levels else _TRACK + 26
    if not score.levels:  # the scale has its ends only
        names = f'<text x="{_LEFT}" y="{_TRACK + 20}">0</text><text x="{_RIGHT}" y="{_TRACK + 20}">1</text>'
    floor = f'<line x1="{_LEFT - 20}" y1="{_FLOOR}" x2="{_RIGHT + 20}" y2="{_FLOOR}" class="roi-floor"/>' if score.levels else ""
    return (
        f'<svg class="roi-chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(in_words(score))}">'
        f"{_mean(score)}{bars}{floor}{names}</svg>"
    )


def in_words(score: RoiScore) -> str:
    """What a chart shows, for those who do not see it."""
    if score.value is None:
        return f"{score.task}: not understood"
    said = f"{score.task} {score.value:.2f} of 1" + ("" if score.std is None else f", standard deviation {score.std:.2f}")
    levels = ", ".join(f"{word} {share:.0%}" for word, share in score.levels.items())
    return f"{said}; {levels}" if levels else said


def _x(value: float) -> float:
    return _LEFT + value * (_RIGHT - _LEFT)


def _mean(score: RoiScore) -> str:
    """A track from 0 to 1, on it the mean as a dot and one standard deviation to each side."""
    value = score.value or 0.0
    red, green, blue = colour(score)
    out = f'<line x1="{_LEFT}" y1="{_TRACK}" x2="{_RIGHT}" y2="{_TRACK}" class="roi-track"/>'
    if score.std is not None:
        low, high = _x(max(0.0, value - score.std)), _x(min(1.0, value + score.std))
        out += f'<line x1="{low:.1f}" y1="{_TRACK}" x2="{high:.1f}" y2="{_TRACK}" class="roi-spread" stroke="rgb({red},{green},{blue})"/>'
    return f'{out}<circle cx="{_x(value):.1f}" cy="{_TRACK}" r="7" class="roi-dot" fill="rgb({red},{green},{blue})"/>'


def _name(place: int, word: str, count: int) -> str:
    """A level's word below its bar; outer ones that are long end at the edges."""
    x, anchor = _x(place / (count - 1)), "middle"
    if len(word) > 7 and place in (0, count - 1):
        x, anchor = (-4.0, "start") if place == 0 else (_WIDTH + 4.0, "end")
    return f'<text x="{x:.1f}" y="{_WORDS}" style="text-anchor:{anchor}">{escape(word)}</text>'


def _bar(place: int, word: str, probability: float) -> str:
    x, height = _x(place / 4), probability * (_FLOOR - _TOP)
    top = _FLOOR - height
    share = f'<text x="{x:.1f}" y="{top - 4:.1f}" class="roi-share">{probability:.0%}</text>' if probability >= 0.005 else ""
    return (
        f'<rect x="{x - _BAR / 2:.1f}" y="{top:.1f}" width="{_BAR}" height="{height:.1f}" rx="2" class="roi-bar">'
        f"<title>{escape(word)} {probability:.1%}</title></rect>"
        f"{share}"
    )
