"""TeacherIQA: the published counts and costs, its two stages, its views."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from components.registry import ConfigError
from components.scorers.base import SCORERS
from configs.schema import load_config, load_model
from tests.components.scorers.backbones import LARGE, SMALL, node
from tests.components.scorers.samples import batch_of, labelled, picture


def build(**changes):
    torch.manual_seed(0)
    return SCORERS.build({"plugin": "teacher_iqa", **SCORERS.get("teacher_iqa").tiny(), **changes})


def pairs(scorer):
    batch = labelled(scorer)
    return dataclasses.replace(batch, clean=(batch.regions.crops * 0.5))


def attending(scorer):
    for attend in scorer.reader.attention:
        nn.init.constant_(attend.gamma, 0.37)
    return scorer


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return SCORERS.build(load_model("model/teacher_iqa")).eval()


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def gmacs(compute, *given):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        compute(*given)
    return counter.get_total_flops() / 2e9


def test_counts_are_the_published_ones(published):
    """Reference facts B6."""
    encoder, decoder, reader = published.parts().values()
    assert count(published) == 53_341_127
    assert count(encoder, decoder) == 40_148_739
    assert count(encoder) == 23_508_032
    assert count(reader) == 13_192_388
    assert count(decoder.picture) == 91_075
    assert len(published.state_dict()) == 648


def test_costs_are_the_published_ones(published, monkeypatch):
    """Reference facts B6. Scoring alone spares what draws the picture."""
    view = torch.empty(1, 3, 224, 224, device="meta")
    maps = published.vision_encoder(view).maps
    restored = published.decoder(maps)
    assert restored.bottom.shape == (1, 2048, 7, 7)
    drawing = gmacs(published.decoder.picture, restored.joined[-1], maps)
    assert drawing == pytest.approx(0.5, abs=0.05)  # given to one decimal
    assert gmacs(published.restore, view) == pytest.approx(6.99, rel=0.02)
    rating = gmacs(published, view)
    assert rating + drawing == pytest.approx(8.69, rel=0.02)
    seen = []
    monkeypatch.setattr(published, "_rated", lambda views: seen.append(views.shape) or views.new_zeros(len(views)))
    published.rate(torch.empty(1, 3, published.crop_size, published.crop_size, device="meta"))
    assert seen == [view.shape] * 25
    assert 25 * (rating + drawing) == pytest.approx(217, rel=0.02)


@pytest.mark.parametrize("name", LARGE)
def test_a_net_of_several_strides_replaces_the_published_one_by_its_name(name):
    """With nothing else changed in the experiment; a plain ViT, which has one stride, is refused before anything is read."""
    config = load_config("teacher_iqa", [f"model.vision_encoder.name={name}"])
    with torch.device("meta"):
        if name.startswith("vit"):
            with pytest.raises(ConfigError, match=r"A plain ViT has one stride and cannot be used; mobile_iqa and pooled_mlp take it"):
                SCORERS.build(config.model)
            return
        scorer = SCORERS.build(config.model).eval()
    view = torch.empty(2, 3, 224, 224, device="meta")
    assert scorer.vision_encoder.strides == LARGE[name]
    assert scorer(view).shape == (2,)
    assert scorer.restore(view).shape == view.shape


@pytest.mark.parametrize("family", [name for name in SMALL if len(set(SMALL[name][1])) > 1])
@pytest.mark.parametrize("stage", ["restoration", "quality"])
def test_whatever_net_it_has_each_stage_trains_what_it_reads(family, stage):
    scorer = attending(build(vision_encoder=node(family), stage=stage)).train()
    assert scorer.vision_encoder.strides == SMALL[family][1]
    scorer.loss(pairs(scorer))["loss"].backward()
    assert [n for n, p in scorer.named_parameters() if p.requires_grad and p.grad is None] == []
    image, masks = picture(1)
    assert all(0 <= row["quality"].value <= 1 for row in scorer.score(image, masks, ["quality"]))


def test_restoration_is_measured_in_pixels():
    """A restorer that draws grey is off by the clean pictures' mean distance from grey."""
    scorer = build(stage="restoration")
    with torch.no_grad():
        scorer.decoder.picture.out.weight.zero_()
        scorer.decoder.picture.out.bias.zero_()
    batch = pairs(scorer)
    clean = batch.clean[batch.regions.valid] * scorer.std + scorer.mean
    found = scorer.loss(batch)
    torch.testing.assert_close(found["loss"], (clean - 0.5).abs().mean())
    assert found["answers"] == 5
    image, masks = picture(1)
    crop = batch_of(scorer, [1]).regions.crops[0, 0] * scorer.std + scorer.mean
    expected = 1 - (crop - 0.5).square().mean().sqrt()
    assert scorer.score(image, masks[:1], ["quality"])[0]["quality"].value == pytest.approx(float(expected), abs=1e-5)


def test_learning_to_restore_lowers_the_error():
    scorer = build(stage="restoration").train()
    batch = pairs(scorer)
    optimizer = torch.optim.AdamW([p for p in scorer.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = scorer.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_each_stage_trains_what_it_reads_and_hands_on_everything():
    first, second = build(stage="restoration"), build()
    assert not any(p.requires_grad for p in first.reader.parameters())
    assert not any(p.requires_grad for p in second.decoder.picture.parameters())
    assert first.trained_keys() == second.trained_keys() == set(first.state_dict())
    assert first.foundations() == second.foundations() == {}
    first.loss(pairs(first))["loss"].backward()
    second.loss(labelled(second))["loss"].backward()
    for scorer in (first, second):
        still = [n for n, p in scorer.named_parameters() if p.requires_grad and p.grad is None]
        assert not still
    second.load_trained(first.state_dict())
    view = torch.randn(1, 3, 64, 64)
    assert torch.equal(first.eval().restore(view), second.eval().restore(view))


def test_the_score_reads_all_it_is_given():
    """With attention at work: the deepest map and each joined level change it."""
    scorer = attending(build()).eval()
    maps = [x.detach().requires_grad_() for x in scorer.vision_encoder(torch.randn(2, 3, 64, 64)).maps]
    score = scorer.reader(scorer.decoder(tuple(maps)))
    assert score.shape == (2,)
    found = torch.autograd.grad(score.sum(), maps, allow_unused=True)
    assert found[0] is None  # the finest level is for the picture alone
    assert all(float(g.abs().sum()) > 0 for g in found[1:])


def test_a_larger_crop_is_the_mean_of_its_views():
    scorer = attending(build(crop_size=80, views=4)).eval()
    crops = torch.randn(2, 3, 80, 80)
    seen = []
    scorer.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        rated = scorer.rate(crops)
        assert [x.shape for x in seen] == [(2, 3, 64, 64)] * 4
        torch.testing.assert_close(rated, torch.stack([scorer(x) for x in seen[:4]]).mean(0))
        torch.testing.assert_close(scorer.rate(crops[1:]), rated[1:])  # a region's views do not depend on the others
    assert len({x[0, 0, 0, 0].item() for x in seen[:4]}) > 1


def test_training_sees_a_view_at_a_chance_place():
    scorer = build(crop_size=80, views=4).train()
    seen = []
    scorer.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    crops = torch.randn(3, 3, 80, 80)
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        scorer.rate(crops)
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 32}, "crop_size: got 32, expected 0 or at least 64, the size of a view"),
        ({"views": 0}, "views: got 0, expected at least 1"),
        (
            {"vision_encoder": node("vit")},
            r"levels at strides \(16, 16, 16, 16, 16\) with .*needs strides \(2, 4, 8, 16, 32\) or \(4, 8, 16, 32\).*convnext_tiny",
        ),
        ({"vision_encoder": {**node("resnet"), "most_levels": 3}}, r"levels at strides \(8, 16, 32\)"),
        (
            {"vision_encoder": {**node("resnet"), "model_args": {"channels": [8, 12, 24, 64]}}},
            r"with \(64, 8, 12, 24, 64\) channels, and .*each with a multiple of 8",
        ),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


@pytest.mark.parametrize("stage", ["restoration", "quality"])
def test_batches_with_and_without_regions_can_be_added(stage):
    scorer = build(stage=stage).train()
    batch = pairs(scorer)
    some = scorer.loss(batch)
    batch.regions.valid[:] = False
    none = scorer.loss(batch)
    assert none.keys() == some.keys()
    assert not any(none.values())


def test_restoring_without_clean_images_is_refused():
    scorer = build(stage="restoration")
    with pytest.raises(ValueError, match=r"these data give no clean images: set data\.pairs to true"):
        scorer.loss(labelled(scorer))
