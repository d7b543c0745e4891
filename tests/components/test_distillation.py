"""What a student learns from its teacher: closed forms, and what cannot be a pair."""

import dataclasses

import pytest
import torch
import yaml

from components.distillation import Terms, check_pair, distilled
from components.registry import ConfigError
from components.scorers.base import SCORERS
from tests.components.scorers.samples import batch_of, labelled


def build(seed=0, plugin="mobile_iqa", **changes):
    torch.manual_seed(seed)
    return SCORERS.build({"plugin": plugin, **SCORERS.get(plugin).tiny(), **changes}).eval()


@pytest.fixture(scope="module")
def pair():
    return build(0), build(1, bounded=False, pool=1)


def test_one_learns_nothing_from_oneself_but_the_labels():
    student = build()
    batch = labelled(student)
    found = distilled(student, build(), batch, Terms())
    assert found["levels"] == found["opinions"] == 0
    torch.testing.assert_close(found["loss"], student.loss(batch)["loss"])


@pytest.mark.parametrize(("criterion", "power"), [("mse", 2), ("l1", 1)])
def test_terms_are_means_over_regions_and_numbers(pair, criterion, power):
    student, teacher = build(0, criterion=criterion), pair[1]
    batch = labelled(student)
    batch.labels.quality[0, 1] = torch.nan  # it teaches by the teacher alone
    found = distilled(student, teacher, batch, Terms())
    crops = batch.regions.crops[batch.regions.valid]
    own, shown = student(crops), teacher(crops)
    for name in ("levels", "opinions"):
        torch.testing.assert_close(found[name], ((getattr(own, name) - getattr(shown, name)).abs() ** power).mean())
    torch.testing.assert_close(found["score"], student.loss(batch)["loss"])


@pytest.mark.parametrize("weights", [(2.0, 0.0, 0.5), (0.0, 3.0, 0.0), (0.25, 1.5, 7.0)])
def test_weights_weigh_their_terms(pair, weights):
    """The loss, and what the student is told by it."""
    student, teacher = build(0), pair[1]
    batch, names = labelled(student), ("score", "levels", "opinions")
    found = distilled(student, teacher, batch, Terms(**dict(zip(names, weights, strict=True))))
    torch.testing.assert_close(found["loss"], sum(w * found[name] for w, name in zip(weights, names, strict=True)))
    trained = [*student.parameters()]
    told = torch.autograd.grad(found["loss"], trained, retain_graph=True, materialize_grads=True)
    each = [torch.autograd.grad(found[name], trained, retain_graph=True, materialize_grads=True) for name in names]
    for i, gradient in enumerate(told):
        torch.testing.assert_close(gradient, sum(w * term[i] for w, term in zip(weights, each, strict=True)), rtol=1e-4, atol=1e-7)
    assert all(any(float(g.abs().max()) > 0 for g in term) for term in each)


def test_the_teacher_gets_no_gradient(pair):
    student, teacher = build(0), pair[1]
    distilled(student, teacher, labelled(student), Terms())["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_without_regions_or_labels_there_is_nothing_to_learn_from_them(pair):
    student = build(0)
    batch = dataclasses.replace(labelled(student))
    batch.labels.quality[:] = torch.nan
    found = distilled(student, pair[1], batch, Terms())
    assert found["score"] == 0
    assert found["loss"] > 0
    none = batch_of(student)
    none.regions.valid[:] = False
    nothing = distilled(student, pair[1], none, Terms())
    assert nothing.keys() == found.keys()
    assert not any(nothing.values())


def test_a_pair_of_one_shape_is_accepted(pair):
    check_pair(*pair)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plugin": "pooled_mlp"}, r"the teacher is PooledMLP, which has no levels and opinions to compare: only mobile_iqa has"),
        ({"width": 24}, r"the shapes of what is compared differ: .*'width': 16.* of the student, .*'width': 24"),
        ({"grid": 7}, r"'grid': 6.* of the student, .*'grid': 7"),
        ({"crop_shape": [64, 96]}, r"the sizes of the crops that they see differ: 64 of the student, \(64, 96\) of the teacher"),
        ({"opinions": 3}, r"'opinions': 2.* of the student, .*'opinions': 3"),
        (
            {"vision_encoder": {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64}},
            r"student's encoder gives 5 levels at strides 2, 4, 8, 16, 32 with .*; the teacher's gives 4 levels at strides "
            r"4, 8, 16, 32 with 64, 128, 256, 512 channels, of 64 x 64 pixels. Give the student model.vision_encoder.most_levels=4",
        ),
        (
            {"vision_encoder": {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 96, "most_levels": 5}},
            r"the pictures that they see differ: size 64 of the student, 96 of the teacher. .*: model.vision_encoder.image_size=96$",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_pair(build(), build(**changes))


def test_any_net_can_be_shown_the_pictures_of_its_teacher():
    """What the message asks for is enough."""
    shown = {"name": "vit_tiny_patch16_224", "image_size": 64, "most_levels": 5, "plugin": "timm_pyramid"}
    shown["interpolation"] = "bilinear"
    with pytest.raises(ConfigError, match=r"mean \(0.5, 0.5, 0.5\) of the student, \(0.485, .*; std .*; interpolation bilinear") as refused:
        check_pair(build(vision_encoder=shown), build())
    told = dict(word.split("=") for word in str(refused.value).partition("the teacher's: ")[2].split())
    changed = {key.removeprefix("model.vision_encoder."): yaml.safe_load(value) for key, value in told.items()}
    assert changed.keys() == {"mean", "std", "interpolation"}
    check_pair(build(vision_encoder={**shown, **changed}), build())


def test_a_student_of_fewer_levels_needs_another_teacher():
    fewer = {"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64}
    with pytest.raises(
        ConfigError, match=r"gives 4 levels .* gives 5 levels .* Train a teacher with model.vision_encoder.most_levels=4, or"
    ):
        check_pair(build(vision_encoder=fewer), build())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"levels": -1.0}, "distillation.levels: got -1.0, expected a weight of at least 0"),
        ({"score": float("nan")}, "distillation.score: got nan, expected a weight"),
        ({"score": 0.0, "levels": 0.0, "opinions": 0.0}, "score, levels, opinions are all 0, so nothing would be learned"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        Terms(**weights)
