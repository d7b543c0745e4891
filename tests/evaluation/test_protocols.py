import json
import math

import numpy as np
import pandas as pd
import pytest

from evaluation.protocols import evaluate, pair_accuracy, usable, within_image


def table(quality, pred, image=None, **columns):
    n = len(quality)
    return pd.DataFrame(
        {
            "id": range(n),
            "image": image or ["one"] * n,
            "source": "source",
            "quality": quality,
            "importance": math.nan,
            "types": None,
            "severities": None,
            "quality_pred": pred,
            "quality_parsed": ~np.isnan(np.array(pred, float)),
            **columns,
        }
    )


def distortions(types, severities, types_pred, severities_pred, parsed=True):
    n = len(types)
    columns = {"types": types, "severities": severities, "types_pred": types_pred, "severities_pred": severities_pred}
    return evaluate(table([math.nan] * n, [0.5] * n, distortion_parsed=parsed, **columns))


def test_every_key_is_there_and_json(answers):
    metrics = json.loads(json.dumps(evaluate(answers), allow_nan=False))
    score = {"srcc", "plcc", "plcc_fitted", "krcc", "rmse", "n", "dropped", "fit_converged", "fit_reason", "distinct", "tied"}
    score |= {"within_image_srcc", "within_image_images", "pair_accuracy"}
    score |= {"by_type", "by_area"}
    score |= {"at_bounds", "rmse_fitted", "plcc_fitted_5", "fit_5_converged", "fit_5_reason"}
    assert score == set(metrics["quality"]) == set(metrics["importance"])
    assert {"accuracy", "macro_f1", "per_type_f1", "precision", "recall", "f1", "n", "labels", "confusion"} == set(metrics["distortion"])
    assert {"accuracy", "macro_f1", "n", "labels", "confusion"} < set(metrics["severity"])
    assert {"srcc", "plcc", "rmse"} < set(metrics["control"]["whole_image"]["quality"])
    assert metrics["unparsed"] == 2
    assert metrics["unparsed_by_task"] == {"quality": 1, "importance": 0, "distortion": 1}
    assert (metrics["n_regions"], metrics["n_images"], metrics["n_sources"]) == (48, 12, 4)


def test_perfect_predictions(answers):
    right = answers.assign(
        quality_pred=answers["quality"],
        quality_parsed=True,
        types_pred=answers["types"],
        severities_pred=answers["severities"],
        distortion_parsed=True,
    )
    metrics = evaluate(right)
    quality = metrics["quality"]
    assert [quality[k] for k in ("srcc", "plcc", "krcc", "within_image_srcc", "pair_accuracy")] == pytest.approx([1] * 5)
    assert quality["plcc_fitted"] == pytest.approx(1, abs=1e-4)
    assert quality["rmse"] == 0
    assert quality["within_image_images"] == 12
    for key in ("distortion", "severity"):
        assert [metrics[key][k] for k in ("accuracy", "macro_f1", "precision", "recall", "f1")] == [1] * 5
    assert metrics["severity"]["n"] == 36


def test_permuted_predictions_are_worse(answers):
    permuted = answers.assign(importance_pred=np.random.default_rng(1).permutation(answers["importance_pred"]))
    before, after = (evaluate(t)["importance"] for t in (answers, permuted))
    for key in ("srcc", "plcc", "plcc_fitted", "krcc", "within_image_srcc", "pair_accuracy"):
        assert (after[key] or 0) < before[key]


def test_order_within_images_by_hand():
    rows = table(
        quality=[0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, 0.9, 0.5, 0.5, 0.5],
        pred=[0.0, 0.5, 1.0, 0.7, 0.7, 0.7, 0.9, 0.1, 0.1, 0.2, 0.3],
        image=[*"aaa", *"bbb", *"cc", *"ddd"],
    )
    # a is right; b has one prediction for all; c is wrong but too small for a correlation; d has one label for all
    assert within_image(rows, "quality") == pytest.approx([1, 0])
    assert pair_accuracy(rows, "quality") == pytest.approx((3 + 3 / 2 + 0) / 7)
    quality = evaluate(rows)["quality"]
    assert (quality["within_image_srcc"], quality["within_image_images"]) == (0.5, 2)
    assert quality["distinct"] == 8


def test_what_has_no_label_or_no_answer_is_dropped_and_counted():
    rows = table([0.1, 0.2, 0.3, math.nan, 0.5], [0.1, math.nan, 0.3, 0.4, 0.5])
    metrics = evaluate(rows)
    assert (metrics["quality"]["n"], metrics["quality"]["dropped"], metrics["unparsed"]) == (3, 2, 1)
    assert metrics["quality"]["srcc"] == pytest.approx(1)
    assert metrics["quality"]["plcc_fitted"] is None
    assert metrics["quality"]["fit_converged"] is False


def test_an_answer_marked_unparsed_never_counts():
    rows = table([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).assign(quality_parsed=[True, True, False])
    assert len(usable(rows, "quality")) == 2


def test_a_task_that_was_not_asked_has_no_numbers():
    metrics = evaluate(table([0.1, 0.2], [0.1, 0.2]))
    assert metrics["importance"]["srcc"] is None
    assert (metrics["importance"]["n"], metrics["importance"]["dropped"]) == (0, 0)
    assert (metrics["distortion"]["accuracy"], metrics["distortion"]["n"], metrics["distortion"]["confusion"]) == (None, 0, [])
    assert metrics["unparsed_by_task"] == {"quality": 0}


def test_constant_predictions_have_no_correlation_but_a_flag():
    quality = evaluate(table([0.1, 0.2, 0.3], [0.5, 0.5, 0.5]))["quality"]
    assert (quality["srcc"], quality["plcc"], quality["distinct"], quality["pair_accuracy"]) == (None, None, 1, 0.5)


def test_predictions_at_the_ends_of_the_scale_are_counted():
    """Which networks without a sigmoid put there, where they are ties."""
    quality = evaluate(table([0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 0.0, 0.3, 0.999, 1.0]))["quality"]
    assert (quality["at_bounds"], quality["distinct"], quality["tied"]) == (3, 4, 2)


def test_the_control_is_taken_on_the_models_own_rows():
    rows = table([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, math.nan], quality_image=[0.3, 0.2, 0.1, 0.9])
    control = evaluate(rows)["control"]["whole_image"]
    assert control["quality"]["srcc"] == pytest.approx(-1)
    assert control["quality"]["rmse"] == pytest.approx(math.sqrt((0.2**2 + 0 + 0.2**2) / 3))
    assert control["importance"] == {"srcc": None, "plcc": None, "rmse": None, "n": 0}


def test_the_image_mean_control_gives_each_region_its_images_mean():
    rows = table([0.1, 0.9, 0.4, 0.6], [0.2, 0.8, 0.1, 0.5], image=["a", "a", "b", "b"])
    control = evaluate(rows)["control"]["image_mean"]["quality"]
    assert control["rmse"] == pytest.approx(math.sqrt(((0.5 - 0.1) ** 2 + (0.5 - 0.9) ** 2 + (0.3 - 0.4) ** 2 + (0.3 - 0.6) ** 2) / 4))
    assert control["n"] == 4


def test_distortions_by_hand():
    metrics = distortions(
        types=["", "blur", "blur", "noise", None],
        severities=["", "minor", "severe", "minor", None],
        types_pred=["", "blur", "noise", "", "blur"],
        severities_pred=["", "minor", "severe", "", "minor"],
    )
    assert metrics["distortion"]["n"] == 4
    assert metrics["distortion"]["accuracy"] == 0.5
    assert metrics["distortion"]["labels"] == ["clean", "blur", "noise"]
    assert metrics["distortion"]["per_type_f1"] == pytest.approx({"clean": 2 / 3, "blur": 2 / 3, "noise": 0})
    severity = metrics["severity"]
    assert (severity["n"], severity["accuracy"]) == (3, pytest.approx(2 / 3))  # the third has the wrong type and the right severity
    assert severity["labels"] == ["minor", "severe", "none"]
    assert severity["confusion"] == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert severity["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_an_unparsed_distortion_is_wrong_even_where_the_label_is_clean():
    metrics = distortions(["", "blur"], ["", "minor"], ["", "blur"], ["", "minor"], parsed=[False, True])
    assert metrics["distortion"]["accuracy"] == 0.5
    assert metrics["distortion"]["labels"] == ["clean", "blur", "unparsed"]
    assert metrics["unparsed"] == 1


def test_missing_columns_repeated_regions_and_infinite_scores_are_refused(answers):
    with pytest.raises(ValueError, match=r"lacks \['types_pred'\]"):
        evaluate(answers.drop(columns="types_pred"))
    with pytest.raises(ValueError, match="1 regions occur more than once, the first is 'region-0'"):
        evaluate(pd.concat([answers, answers[:1]]))
    with pytest.raises(ValueError, match="not finite"):
        evaluate(answers.assign(quality_pred=math.inf))
