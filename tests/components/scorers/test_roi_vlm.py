"""The composition: packed training and cached reading are one model."""

import dataclasses

import numpy as np
import pytest
import torch

from components.batch import join, split
from components.footprint import working_bytes
from components.objectives import rank_loss
from components.preprocess import prepare_regions, stack_regions
from components.prompts import LEVELS
from components.readouts.levels import soft_levels
from components.registry import ConfigError
from components.scorers.base import SCORERS
from components.splice import supervised_columns
from components.vision_encoders.base import VISION_ENCODERS
from tests.components.scorers.samples import batch_of, labelled, picture


def build(**changes):
    torch.manual_seed(0)
    return SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny(), **changes}).eval()


SMALL = {"region_extractor": {"plugin": "roi_replay", "embed": 16}, "geometry_token": True}
CROPS = {"region_extractor": {"plugin": "crop", "crop_size": 32, "hidden": 16, "encoder": "shared"}}
DRAWN = {"region_extractor": {"plugin": "drawn_box", "hidden": 16, "grid": 2}, "geometry_token": True}


def unpackable(**config):
    return {"packing": "none", "llm": {"plugin": "hf_causal", "tokenizer": "project", "attention": "eager", "config": config}}


ALIBI = unpackable(model_type="bloom", vocab_size=768, hidden_size=32, n_layer=2, n_head=4)
RECURRENT = unpackable(
    model_type="qwen3_next",
    vocab_size=768,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    layer_types=["linear_attention", "full_attention"],
    linear_key_head_dim=8,
    linear_value_head_dim=8,
    linear_num_key_heads=2,
    linear_num_value_heads=2,
    num_experts=0,
)


@pytest.mark.parametrize(
    "changes",
    [{}, SMALL, CROPS, DRAWN, {"packing": "none"}, ALIBI, RECURRENT],
    ids=[
        "mfe",
        "roi_replay and geometry",
        "crops through the encoder",
        "drawn boxes and geometry",
        "a row for each question",
        "alibi",
        "recurrent",
    ],
)
def test_taught_logits_equal_cached_ones(changes):
    """The distribution that training sees at a level word is the one that scoring reads, for every region."""
    scorer = build(**changes)
    batch = labelled(scorer)
    with torch.no_grad():
        pyramid = scorer.vision_encoder(batch.images)
        image_tokens, region_tokens = (
            scorer.projector(pyramid),
            scorer._region_tokens(scorer.region_extractor.prepare(pyramid), batch.regions),
        )
        packed = scorer.pack(batch, image_tokens.shape[1])
        columns = supervised_columns(packed)
        logits = scorer.read(packed, image_tokens, region_tokens, columns)
    rows, soft_columns = packed.soft.unbind(1)
    at_levels = logits[rows, torch.searchsorted(columns, soft_columns.contiguous())].gather(1, packed.soft_ids).softmax(-1)
    scores = scorer.score_batch(batch, ["quality", "importance"])
    read = [list(row[task].levels.values()) for image in scores for row in image for task in ("quality", "importance")]
    torch.testing.assert_close(at_levels, torch.tensor(read), atol=1e-5, rtol=1e-4)


ALL = {"objective": {"text": 0.5, "rank": 0.5, "judgments": 0.7}}


def trained_on(scorer, batch):
    """The losses of a training step, whose draws are seeded."""
    torch.manual_seed(0)
    return scorer.train().loss(batch)


@pytest.mark.parametrize(
    "changes",
    [{}, SMALL, {"train_vision_encoder": False}, ALL],
    ids=["mfe", "roi_replay and geometry", "frozen encoder", "every objective"],
)
def test_packed_equals_a_row_for_each_question(changes):
    """Loss, its parts and every gradient."""
    packed, plain = build(**changes), build(**changes, packing="none")
    batch = labelled(packed)
    losses = [trained_on(scorer, batch) for scorer in (packed, plain)]
    for name in losses[0]:
        torch.testing.assert_close(losses[0][name], losses[1][name], rtol=1e-5, atol=0)
    gradients = []
    for scorer, loss in zip((packed, plain), losses, strict=True):
        loss["loss"].backward()
        gradients.append({n: p.grad for n, p in scorer.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    whole = torch.stack([g.norm() for g in gradients[0].values()]).norm()
    for name, gradient in gradients[0].items():  # some are zero but for rounding: the queries of an attention to a single token
        assert (gradient - gradients[1][name]).norm() <= 1e-4 * gradient.norm() + 1e-9 * whole, name
    assert packed.packed_lengths(batch)["row"] > plain.packed_lengths(batch)["row"]
    assert [packed.packed_lengths(batch)[k] for k in ("prefix", *packed.tasks)] == [
        plain.packed_lengths(batch)[k] for k in ("prefix", *plain.tasks)
    ]


def test_crops_through_the_images_encoder_cost_no_parameter_and_are_seen_as_images():
    """The encoder stands in the model once; each valid crop, and no padding, is what it sees of it alone, standardised as images are."""
    scorer, own = build(**CROPS, standardize=True), build(region_extractor={"plugin": "mask_pool", "embed": 16, "shape_size": 0})
    encoder = sum(p.numel() for p in own.vision_encoder.parameters())
    assert sum(p.numel() for p in scorer.vision_encoder.parameters()) == encoder
    inside = {id(p) for p in scorer.region_extractor.parameters()}
    assert inside.isdisjoint(id(p) for p in scorer.vision_encoder.parameters())
    wired = sum(c * 16 + 16 for c in scorer.vision_encoder.channels) + 16 * scorer.llm.width + scorer.llm.width
    assert sum(p.numel() for p in scorer.region_extractor.parameters()) == wired
    parts = [id(p) for part in scorer.parts().values() for p in part.parameters()]
    assert sorted(parts) == sorted(id(p) for p in scorer.parameters())
    batch = labelled(scorer)
    scorer.calibrate([batch])
    batch.regions.crops[~batch.regions.valid] = torch.nan
    with torch.no_grad():
        tokens = scorer._region_tokens(None, batch.regions)
        valid = batch.regions.crops[batch.regions.valid]
        alone = [scorer.standardize(scorer.vision_encoder(crop[None])) for crop in valid]
        for found, pyramid in zip(tokens[batch.regions.valid], alone, strict=True):
            means = [torch.nn.functional.adaptive_avg_pool2d(m, 2).flatten(2)[0].T for m in pyramid.maps]
            layers = scorer.region_extractor.levels
            hidden = sum(layer(x) for layer, x in zip(layers, means, strict=True))
            expected = scorer.region_extractor.out(torch.nn.functional.gelu(hidden))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_crops_teach_the_encoder_that_they_share():
    """Where it is trained; where it is frozen, its statistics stay too, and a batch without regions is no error."""
    scorer = build(**CROPS).train()
    batch = labelled(scorer)
    through = torch.autograd.grad(scorer._region_tokens(None, batch.regions).sum(), [*scorer.vision_encoder.parameters()])
    assert all(float(g.abs().sum()) > 0 for g in through[:1])
    frozen = build(**CROPS, train_vision_encoder=False).train()
    before = {name: x.clone() for name, x in frozen.vision_encoder.state_dict().items()}
    frozen.loss(batch)["loss"].backward()
    assert all(torch.equal(x, before[name]) for name, x in frozen.vision_encoder.state_dict().items())
    batch.regions.valid[:] = False
    batch.labels.quality[:] = batch.labels.importance[:] = torch.nan
    assert scorer._region_tokens(None, batch.regions).shape[:3] == (2, 3, 4)


def test_drawn_boxes_are_pictures_for_the_images_encoder():
    """Of its own size unless another is given; it sees the picture of each valid region, and a change inside the box and elsewhere."""
    scorer, small = build(**DRAWN), build(region_extractor={**DRAWN["region_extractor"], "size": 32})
    assert (scorer.crop_size, small.crop_size, scorer.tokens) == (64, 32, 5)
    image, masks = picture(1)
    regions = prepare_regions(image, masks, scorer.preprocess, scorer.crop_size)
    left, top, width, height = (regions.boxes[0] * torch.tensor([image.shape[2], image.shape[1]] * 2)).round().int().tolist()
    inside = image.clone()
    inside[:, top + height // 4 : top + height * 3 // 4, left + width // 4 : left + width * 3 // 4] ^= 255

    def tokens(x):
        with torch.no_grad():
            return scorer._region_tokens(None, stack_regions([prepare_regions(x, masks, scorer.preprocess, scorer.crop_size)]))[0]

    pyramid = scorer.vision_encoder(regions.crops[:1])
    torch.testing.assert_close(tokens(image)[0, :4], scorer.region_extractor(pyramid, first(regions))[0, 0], rtol=1e-4, atol=1e-5)
    assert (tokens(inside)[0, :4] - tokens(image)[0, :4]).abs().max() > 1e-3
    assert torch.equal(tokens(inside)[0, 4], tokens(image)[0, 4])  # of size, place and shape
    moved = dataclasses.replace(regions, crops=prepare_regions(image, masks.roll(9, 2), scorer.preprocess, scorer.crop_size).crops)
    with torch.no_grad():
        assert (scorer._region_tokens(None, stack_regions([moved]))[0] - tokens(image)).abs().max() > 1e-3


def first(regions):
    return stack_regions([regions]).between(0, 1)


def test_drawn_boxes_teach_the_encoder_that_sees_them_and_are_counted():
    scorer = build(**DRAWN).train()
    batch = labelled(scorer)
    through = torch.autograd.grad(scorer._region_tokens(None, batch.regions).sum(), [*scorer.vision_encoder.parameters()])
    assert float(through[0].abs().sum()) > 0
    sheet = build(region_extractor={"plugin": "drawn_box", "on": "sheet"})
    assert sheet.crop_size == 0
    shared, own = build(**CROPS), build(region_extractor={**CROPS["region_extractor"], "encoder": "own"})
    one = 12 * 32**2 + 2 * working_bytes(shared.vision_encoder, (1, 3, 32, 32))
    for regions, seen in ((5, 5), (32, 32), (500, 32)):
        assert shared.answer_bytes((64, 64), regions) - own.answer_bytes((64, 64), regions) == seen * one
    assert scorer.answer_bytes((64, 64), 5) - sheet.answer_bytes((64, 64), 5) > 5 * (3 * one + 4 * 12 * 64**2)
    with pytest.raises(ValueError, match="drew on an empty sheet"):
        scorer.check_trained({**sheet.state_dict()})


@pytest.mark.parametrize("regions", [1, 40])
def test_scoring_many_crops_is_scoring_each(regions):
    scorer = build(**CROPS)
    image, masks = picture(1)
    masks = masks[:1].repeat(regions, 1, 1)
    masks[:, 10, 20:] = torch.rand(regions, 70) > 0.5
    seen = []
    scorer.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    together = scorer.score(image, masks, ["quality"])
    assert seen == ([1, 1] if regions == 1 else [1, 32, 8])
    alone = scorer.score(image, masks[-1:], ["quality"])
    assert together[-1]["quality"].value == pytest.approx(alone[0]["quality"].value, abs=1e-5)


@pytest.mark.parametrize("most", [1, 4 * 32**2, 10 * 32**2])
def test_crops_are_seen_some_at_a_time(most, monkeypatch):
    """Of all images together so many pixels at most, or one region of each image; with gradients all at once, to the same tokens."""
    scorer = build(**CROPS)
    regions = labelled(scorer).regions
    seen = []
    scorer.vision_encoder.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    monkeypatch.setattr("components.scorers.roi_vlm._PIXELS", most)
    whole = scorer._region_tokens(None, regions)
    with torch.no_grad():
        parts = scorer._region_tokens(None, regions)
    step = {1: 1, 4 * 32**2: 2, 10 * 32**2: 3}[most]
    assert seen == [int(regions.valid.sum()), *(int(part.sum()) for part in regions.valid.split(step, 1))]
    torch.testing.assert_close(parts[regions.valid], whole[regions.valid], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "crop_size", "message"),
    [
        ({"plugin": "timm_pyramid", "name": "resnet10t", "image_size": 64}, 40, "crop_size: 40 is no multiple of 32"),
        (
            {
                "plugin": "timm_pyramid",
                "name": "vit_small_patch16_224",
                "image_size": 64,
                "model_args": {"depth": 4, "embed_dim": 16, "num_heads": 2},
            },
            32,
            "crop_size: got 32, but this encoder sees 64 pixels a side and nothing else",
        ),
        ({"plugin": "hf_vision", **VISION_ENCODERS.get("hf_vision").tiny()}, 32, "crop_size: got 32, but this encoder sees 64"),
    ],
)
def test_crops_that_the_encoder_cannot_see_are_refused(encoder, crop_size, message):
    node = {**CROPS["region_extractor"], "crop_size": crop_size}
    with pytest.raises(ConfigError, match=message):
        build(vision_encoder=encoder, region_extractor=node)
    assert build(vision_encoder=encoder, region_extractor={**node, "crop_size": 64}, image_level=-1).crop_size == 64
    with pytest.raises(ConfigError, match="^" + message.removeprefix("crop_")):
        build(vision_encoder=encoder, region_extractor={**DRAWN["region_extractor"], "size": crop_size})


def test_a_batch_without_judgments_has_the_entries_of_the_others():
    scorer = build(objective={"judgments": 1e-9}).train()
    losses = scorer.loss(labelled(scorer))
    assert float(losses["judgment"]) == 0
    assert set(losses) == {"loss", "text", "levels", "judgment", "answers"}


def test_judgments_are_of_training_alone():
    scorer, plain = build(objective={"judgments": 1.0, "rank": 1.0}), build()
    batch = labelled(scorer)
    measured, taught = scorer.loss(batch), trained_on(scorer, batch)
    assert set(taught) == {"loss", "text", "levels", "rank", "judgment", "answers"}
    assert set(measured) == set(taught) - {"judgment"}
    assert taught["answers"] == measured["answers"] == 14  # of five regions: all scores, and four distortions
    for name in ("text", "levels"):
        torch.testing.assert_close(measured[name], plain.loss(batch)[name])
    torch.testing.assert_close(measured["loss"], measured["text"] + measured["levels"] + measured["rank"])


def test_the_rank_loss_is_that_of_what_scoring_reads():
    scorer = build(objective={"rank": 1.0})
    batch = labelled(scorer)
    found = scorer.loss(batch)
    predicted, wanted, group = [], [], []
    for b, image in enumerate(scorer.score_batch(batch, ["quality", "importance"])):
        for r, row in enumerate(image):
            for task in ("quality", "importance"):
                predicted.append(list(row[task].levels.values()))
                wanted.append(soft_levels(float(getattr(batch.labels, task)[b, r]), 0))
                group.append(2 * b + (task == "quality"))
    expected = rank_loss(torch.tensor(predicted), torch.tensor(wanted), torch.tensor(group)) / 14
    torch.testing.assert_close(found["rank"], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("packing", ["image", "none"])
@pytest.mark.parametrize("judged", [0.0, 1.0])
def test_what_an_image_takes_is_known_without_it(packing, judged):
    """A bound that holds, and is not far off."""
    scorer = build(packing=packing, objective={"judgments": judged}).train()
    batch = labelled(scorer)
    bound = scorer.row_tokens(batch.regions.valid.sum(1).numpy(), 1)
    rows = scorer.pack(batch, scorer._image_tokens).ids
    assert len(rows) * rows.shape[1] <= (bound.max() * len(bound) if packing == "image" else bound.sum())
    assert bound[0] <= 1.3 * (
        rows.shape[1] if packing == "image" else (scorer.pack(batch, scorer._image_tokens).image == 0).sum() * rows.shape[1]
    )


def test_more_distortions_make_longer_rows():
    one, two, six = (build().row_tokens(np.array([0, 1, 3]), types) for types in (1, 2, 6))
    assert one[0] == two[0] == six[0]  # the prefix
    assert (one[1:] < two[1:]).all()
    assert (two[1:] < six[1:]).all()
    assert six[2] - six[0] == 3 * (six[1] - six[0])


def test_what_is_ranked_must_be_taught_as_levels():
    with pytest.raises(ConfigError, match=r"objective.rank: got 0.5, but no task is taught as a distribution .* 'levels' with soft: true"):
        build(objective={"rank": 0.5}, readouts={"quality": {"plugin": "levels", "soft": False}, "distortion": {"plugin": "text"}})


@pytest.mark.parametrize(("changes", "reason"), [(ALIBI, "'bloom' .*alibi"), (RECURRENT, "'qwen3_next' .*recurrent")])
def test_a_model_that_cannot_read_packed_rows(changes, reason):
    with pytest.raises(ValueError, match=rf"{reason}.*Set model\.packing to none"):
        build(**{**changes, "packing": "image"})


def test_regions_do_not_see_each_other():
    scorer = build()
    image, masks = picture(1)
    alone = scorer.score(image, masks[:1])[0]["quality"].value
    assert scorer.score(image, masks)[0]["quality"].value == pytest.approx(alone, abs=1e-6)


def test_chunks_do_not_change_scores():
    batch = batch_of(build())
    whole, chunked = build(), build(max_branches=2)
    for a, b in zip(whole.score_batch(batch, ["quality"]), chunked.score_batch(batch, ["quality"]), strict=True):
        assert [r["quality"].value for r in a] == pytest.approx([r["quality"].value for r in b], abs=1e-6)


def test_a_frozen_encoder_gets_no_gradient():
    scorer = build(train_vision_encoder=False)
    scorer.loss(labelled(scorer))["loss"].backward()
    assert all(p.grad is None for p in scorer.vision_encoder.parameters())


def test_a_precomputed_batch_gives_the_same_loss_and_gradients():
    scorer = build(train_vision_encoder=False, standardize=True)
    batch = labelled(scorer)
    scorer.calibrate([batch])
    known = join(split(scorer.precompute(batch)))
    assert known.images.shape == (2, 3, 0, 0)
    assert known.pyramid.maps[0].dtype == torch.float16
    found = []
    for given in (batch, known):
        scorer.zero_grad()
        loss = scorer.loss(given)["loss"]
        loss.backward()
        found.append((loss, [p.grad.clone() for p in scorer.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=2e-3, atol=0)  # half precision
    assert len(found[0][1]) == len(found[1][1])
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(b, a, rtol=0.05, atol=5e-3)


def test_what_is_trained_cannot_be_precomputed():
    scorer = build(train_vision_encoder=True)
    assert not scorer.can_precompute
    with pytest.raises(ValueError, match="the vision encoder is trained, so what it sees changes"):
        scorer.precompute(labelled(scorer))


def test_random_encoders_are_trained_and_loaded_ones_are_frozen(tmp_path):
    assert all(p.requires_grad for p in build().vision_encoder.parameters())
    node = {**SCORERS.get("roi_vlm").tiny()["vision_encoder"], "weights": "pretrained"}
    assert not any(p.requires_grad for p in build(vision_encoder=node).vision_encoder.parameters())


def test_a_geometry_token_beside_any_extractor():
    plain, told = build(), build(geometry_token=True)
    assert (plain.tokens, told.tokens) == (2, 3)
    assert told.parts().keys() - plain.parts().keys() == {"geometry"}
    assert {k for k in told.state_dict() if not k.startswith("geometry.")} == set(plain.state_dict())
    loss = told.loss(labelled(told))["loss"]
    loss.backward()
    assert all(p.grad.abs().sum() > 0 for p in told.geometry.parameters())


def test_fewer_tasks():
    scorer = build(readouts={"quality": {"plugin": "levels"}})
    assert scorer.tasks == ("quality",)
    image, masks = picture(1)
    assert set(scorer.score(image, masks)[0]) == {"quality"}
    with pytest.raises(ValueError, match="task 'importance'"):
        scorer.score(image, masks, ["importance"])


def test_levels_can_be_read_as_text_too():
    scorer = build(readouts={"quality": {"plugin": "text", "max_tokens": 8}})
    image, masks = picture(1)
    score = scorer.score(image, masks, ["quality"])[0]["quality"]
    assert score.parsed == any(word in score.text for word in LEVELS["quality"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_level": 7}, "image_level 7: the vision encoder has 4 levels, 0 to 3"),
        ({"objective": {"juries": 1.0}}, "objective: unknown key 'juries'"),
        ({"objective": {"levels": "much"}}, r"objective: got .*much"),
        ({"readouts": {"beauty": {"plugin": "text"}}}, "tasks are quality, importance, distortion, got beauty"),
    ],
)
def test_configuration_errors(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)


def test_a_readout_that_cannot_serve_its_task_is_refused_at_construction():
    with pytest.raises(ValueError, match="serves quality, importance, not distortion"):
        build(readouts={"distortion": {"plugin": "levels"}})
