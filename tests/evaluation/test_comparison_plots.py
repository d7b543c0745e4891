import pytest
from matplotlib.colors import to_rgba

from evaluation.comparison_page import figures
from evaluation.comparison_plots import Line, forest, group_map
from evaluation.plots import DARK, LIGHT


def drawn(figure):
    """Of each line of a forest, from the top: its name, its point, whether it is coloured, whether it is dashed."""
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    bars = [x for x in axes.lines if len(x.get_xdata()) == 2 and x.get_zorder() == 2]
    points = [x for x in axes.lines if x.get_zorder() == 3]
    assert [float(x.get_ydata()[0]) for x in points] == list(range(len(names)))
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    blue = {to_rgba(theme.series[0]) for theme in (LIGHT, DARK)}
    assert [to_rgba(a.get_color()) for a in bars] == [to_rgba(p.get_color()) for p in points]
    told = [to_rgba(x.get_color()) in blue for x in bars]
    return list(zip(names, [float(x.get_xdata()[0]) for x in points], told, [x.is_dashed() for x in bars], strict=True))


def difference(first, second, estimate, p_holm, untested=False, few=False):
    """Of an interval without 0, whatever its corrected p."""
    ends = {"low": estimate - 0.01, "high": estimate + 0.01}
    return {"task": "quality", "statistic": "srcc", "first": first, "second": second, "estimate": estimate, "p_holm": p_holm} | {
        **ends, "few": few, "untested": untested
    }  # fmt: skip


def differences(answers, found):
    """The figures of models of which the first is the best."""
    names = list(dict.fromkeys(n for d in found for n in (d["first"], d["second"])))
    srcc = {
        n: {"estimate": 0.9 - k / 10, "low": 0.1, "high": 0.95, "few": found[0]["few"]}
        for k, n in enumerate(["best", *(n for n in names if n != "best")])
    }
    models = {n: {"quality": {"intervals": {"srcc": i}, "by_type": {}, "by_area": {}}} for n, i in srcc.items()}
    result = {"models": dict(reversed(models.items())), "differences": found}
    tables = {"quality": dict.fromkeys(models, answers.dropna(subset="quality_pred")), "importance": {}}
    return dict(figures(result, tables, LIGHT))


def test_what_is_told_from_chance_is_coloured_and_nothing_else(answers):
    found = differences(
        answers,
        [
            difference("best", "b", 0.1, 0.049),
            difference("c", "best", -0.3, 0.001),
            difference("best", "d", 0.2, 0.05),
            difference("b", "c", 0.2, 0.001),
            difference("best", "b", -0.4, 0.001) | {"statistic": "rmse"},
            difference("best", "d", 0.3, 0.001) | {"statistic": "krcc"},
        ],
    )
    assert drawn(found["differences_quality"]) == [
        ("over c", pytest.approx(0.3), True, False),
        ("over d", 0.2, False, False),
        ("over b", 0.1, True, False),
    ]
    (axes,) = found["differences_quality"].axes
    assert axes.get_xlabel() == "blue: told from chance, p < 0.05 after Holm's correction; grey: not told from chance"
    assert [(name, value, dashed) for name, value, _, dashed in drawn(found["srcc_quality"])] == [
        (n, pytest.approx(0.9 - k / 10), False) for k, n in enumerate(("best", "b", "c", "d"))
    ]
    assert found["srcc_quality"].axes[0].get_xlabel() == ""


def test_what_was_not_tested_is_never_coloured_and_hints_are_dashed(answers):
    found = differences(answers, [difference("best", "b", 0.1, None, True, True), difference("best", "c", 0.2, 0.001, True, True)])
    assert drawn(found["differences_quality"]) == [("over c", 0.2, False, True), ("over b", 0.1, False, True)]
    hint = "dashed: a hint, since sources count as fewer than 20"
    assert found["differences_quality"].axes[0].get_xlabel() == f"grey: not told from chance; {hint}"
    assert found["srcc_quality"].axes[0].get_xlabel() == hint


def test_the_line_of_no_difference_is_drawn_for_differences():
    rows = [Line("a", 0.1, 0.0, 0.2)]
    at_zero = [[x for x in forest(rows, "t", "d", zero=zero).axes[0].lines if list(x.get_xdata()) == [0, 0]] for zero in (True, False)]
    assert [len(found) for found in at_zero] == [1, 0]


def test_a_group_without_a_correlation_has_a_dash_and_no_bar():
    own = {"blur": {"srcc": 0.5, "n": 20}, "noise": {"srcc": None, "n": 4}}
    models = {"a": {"quality": {"by_type": own}}, "b": {"quality": {"by_type": {"blur": {"srcc": 0.25, "n": 20}}}}, "c": {}}
    blur, noise = group_map(models, "quality", "by_type", "title").axes
    assert [(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in blur.patches] == [(0, 0.5), (1, 0.25)]
    assert [t.get_text() for t in blur.texts] == []
    assert len(noise.patches) == 0
    assert [(t.get_text(), t.xy) for t in noise.texts] == [("–", (0, 0)), ("–", (0, 1))]
    assert [t.get_text() for t in blur.get_yticklabels()] == ["a", "b"]
