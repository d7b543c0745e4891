"""MobileIQA: the published counts and costs, and what it does with regions."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.batch import Batch
from components.preprocess import prepare_image
from components.registry import ConfigError
from components.scorers.base import SCORERS
from configs.schema import load_config, load_model
from lightning_modules.plan import plan
from tests.components.scorers.backbones import LARGE, SMALL, node
from tests.components.scorers.samples import batch_of, labelled, picture

PARTS = ("vision_encoder", "projectors", "opinions", "fusion")
PUBLISHED = {  # parameters, tensors of the state (reference facts A6)
    "mobile_iqa_teacher": (96_716_468, 469),
    "mobile_iqa": (81_477_659, 510),
}
MILLIONS = {  # of parameters: encoder, projectors, opinions, fusion, head (facts A12)
    "mobile_iqa_teacher": (17.42, 2.04, 68.72, 8.35, 0.19),
    "mobile_iqa": (2.97, 1.25, 68.72, 8.35, 0.19),
}
GMACS = {  # height and width -> all, and of which encoder, projectors, opinions, fusion (facts A12)
    "mobile_iqa_teacher": {
        (1231, 1907): (360.0, 258.9, 72.7, 25.0, 3.3),
        (1188, 1914): (350.0, 251.2, 70.4, 25.0, 3.3),
        (1080, 1740): (293.6, 207.1, 58.2, 25.0, 3.3),
        (512, 512): (65.3, 28.6, 8.4, 25.0, 3.3),
        (224, 224): (35.8, 5.6, 1.9, 25.0, 3.3),
    },
    "mobile_iqa": {
        (1231, 1907): (47.8, 10.0, 9.4, 25.0, 3.3),
        (1188, 1914): (47.2, 9.8, 9.1, 25.0, 3.3),
        (1080, 1740): (43.9, 8.0, 7.6, 25.0, 3.3),
        (512, 512): (30.8, 1.1, 1.3, 25.0, 3.3),
        (224, 224): (29.1, 0.2, 0.5, 25.0, 3.3),
    },
}


def build(**changes):
    torch.manual_seed(0)
    return SCORERS.build({"plugin": "mobile_iqa", **SCORERS.get("mobile_iqa").tiny(), **changes})


@pytest.fixture(params=PUBLISHED, scope="module")
def published(request):
    with torch.device("meta"):
        return request.param, SCORERS.build(load_model(f"model/{request.param}")).eval()


def test_counts_are_the_published_ones(published):
    name, scorer = published
    parameters, tensors = PUBLISHED[name]
    assert sum(p.numel() for p in scorer.parameters()) == parameters
    assert len(scorer.state_dict()) == tensors
    parts = [sum(p.numel() for p in scorer.parts()[part].parameters()) / 1e6 for part in (*PARTS, "head")]
    assert parts == pytest.approx(MILLIONS[name], abs=0.005)  # they are given to two decimals


def gmacs(scorer, size):
    """Of one picture: all, and of which each of `PARTS`."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        scorer(torch.empty(1, 3, *size, device="meta"))
    by_module = {name: sum(counts.values()) / 2e9 for name, counts in counter.get_flop_counts().items()}
    modules = {name: [name, *(f"{name}.{i}" for i in range(5))] for name in PARTS}  # a list of modules is not itself called
    return counter.get_total_flops() / 2e9, [sum(by_module.get(f"MobileIQA.{m}", 0) for m in modules[name]) for name in PARTS]


@pytest.mark.parametrize("size", GMACS["mobile_iqa"])
def test_costs_are_the_published_ones(published, size):
    """All within 2 %; parts are given to one decimal."""
    name, scorer = published
    wanted, *each = GMACS[name][size]
    found, parts = gmacs(scorer, size)
    assert found == pytest.approx(wanted, rel=0.02)
    assert parts == pytest.approx(each, rel=0.02, abs=0.05)


@pytest.mark.parametrize("name", LARGE)
def test_any_net_of_timm_replaces_the_published_one_by_its_name(name):
    """With nothing else changed in the experiment."""
    config = load_config("mobile_iqa", [f"model.vision_encoder.name={name}"])
    with torch.device("meta"):
        scorer = SCORERS.build(config.model).eval()
    seen = scorer(torch.empty(2, 3, scorer.crop_size, scorer.crop_size, device="meta"))
    assert scorer.vision_encoder.strides == LARGE[name]
    assert seen.levels.shape == (2, len(LARGE[name]), 256, 22, 22)
    assert seen.opinions.shape == (2, 3, 256, 22, 22)


@pytest.mark.parametrize("family", SMALL)
def test_whatever_net_it_has_it_learns_from_all_of_its_levels(family):
    scorer = build(vision_encoder=node(family)).train()
    assert scorer.vision_encoder.strides == SMALL[family][1]
    with torch.no_grad():
        for opinion in scorer.opinions:
            for attend in opinion.spatial:
                attend.gamma.fill_(0.37)
    scorer.loss(labelled(scorer))["loss"].backward()
    assert [n for n, p in scorer.named_parameters() if p.grad is None] == []
    assert all(float(project.into.weight.grad.abs().sum()) > 0 for project in scorer.projectors)
    image, masks = picture(1)
    assert all(0 <= row["quality"].value <= 1 for row in scorer.score(image, masks, ["quality"]))


def test_the_grid_does_not_depend_on_the_picture():
    scorer = build().eval()
    for size in ((64, 64), (96, 160)):
        seen = scorer(torch.randn(2, 3, *size))
        assert seen.levels.shape == (2, 5, 16, 6, 6)
        assert seen.opinions.shape == (2, 2, 16, 6, 6)
        assert seen.score.shape == (2,)


def test_a_bounded_score_is_a_sigmoid_of_the_other():
    bounded, free = build().eval(), build(bounded=False).eval()
    crops = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(bounded(crops).score, free(crops).score.sigmoid())


def test_scores_are_brought_from_their_scale_to_the_unit():
    scorer = build(bounded=False, scale=[20.0, -30.0]).eval()
    with torch.no_grad():
        scorer.head.score[-1].weight.zero_()
        for raw, value in ((20.0, 0.0), (-30.0, 1.0), (0.0, 0.4), (40.0, 0.0)):
            scorer.head.score[-1].bias.fill_(raw)
            image, masks = picture(1)
            assert scorer.score(image, masks[:1], ["quality"])[0]["quality"].value == pytest.approx(value)


def test_a_region_is_its_crop_and_everything_is_the_whole_image():
    """What lies outside of the box does not matter; the mask's shape inside of it does not, either."""
    scorer = build().eval()
    image, masks = picture(1)
    known = scorer.score(image, masks, ["quality"])
    changed = image.clone()
    changed[:, 45:] = 0
    holed = masks.clone()
    holed[0, 20:30, 30:40] = False
    assert scorer.score(changed, holed, ["quality"])[0] == known[0]
    assert scorer.score(changed, masks, ["quality"])[2] != known[2]


def test_crops_may_be_rectangles():
    """As published, where each picture is resized to 1907 x 1231; trained and scored, and in a plan."""
    scorer = build(crop_shape=[96, 160])
    batch = labelled(scorer)
    assert batch.regions.crops.shape == (2, 3, 3, 96, 160)
    scorer.train().loss(batch)["loss"].backward()
    scorer.eval()
    image, masks = picture(1)
    left, top, width, height = 20, 10, 31, 30  # of the first region
    crop = prepare_image(image[:, top : top + height, left : left + width], scorer.preprocess, (96, 160))
    with torch.no_grad():
        expected = float(scorer(crop[None]).score)
    assert scorer.score(image, masks[:1], ["quality"])[0]["quality"].value == pytest.approx(expected, abs=1e-6)
    assert scorer.graph().inputs["crops"].shape == (2, 3, 96, 160)
    with torch.device("meta"):
        assert SCORERS.build(load_config("mobile_iqa", ["model.crop_shape=[1231,1907]"]).model).crop_size == (1231, 1907)
        ghosts = [build(crop_shape=shape) for shape in ([96, 160], [64, 64])]
    large, small = (plan(ghost, batch_size=1, regions=2).training.total for ghost in ghosts)
    assert large > small


@pytest.mark.parametrize(("criterion", "power"), [("mse", 2), ("l1", 1)])
def test_the_loss_is_the_mean_over_known_regions(criterion, power):
    scorer = build(criterion=criterion).eval()
    batch = labelled(scorer)
    batch.labels.quality[0, 1] = torch.nan
    known = batch.regions.valid & ~batch.labels.quality.isnan()
    errors = [
        (scorer(batch.regions.crops[b, r][None]).score[0] - batch.labels.quality[b, r]).abs() ** power for b, r in torch.nonzero(known)
    ]
    found = scorer.loss(batch)
    torch.testing.assert_close(found["loss"], torch.stack(errors).mean())
    assert found["answers"] == len(errors) == 4


def test_padding_does_not_reach_the_norms():
    """Statistics of a batch with padding are those of its regions."""
    scorer, other = build().train(), build().train()
    batch = labelled(scorer)
    junk = batch.regions.crops.clone()
    junk[~batch.regions.valid] = 1e6
    regions = type(batch.regions)(**{**vars(batch.regions), "crops": junk})
    torch.manual_seed(1)
    scorer.loss(batch)
    torch.manual_seed(1)
    other.loss(Batch(batch.images, regions, batch.labels))
    for (name, a), b in zip(scorer.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_batch_without_regions_has_no_scores():
    scorer = build().eval()
    batch = batch_of(scorer)
    batch.regions.valid[:] = False
    assert scorer.score_batch(batch, ["quality"]) == [[], []]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 10}, "width: a multiple of 4, at least 8; got 10"),
        ({"opinions": 0}, "opinions: at least 1; got 0"),
        ({"pool": 3}, "pool: 1 to 2: a third of grid 6 at most; got 3"),
        ({"dropout": 1.0}, r"dropout: a share in \[0, 1\); got 1.0"),
        ({"crop_shape": [16, 64]}, r"crop_shape: height and width, at least 32, the encoder's largest stride; got \[16, 64\]"),
        (
            {"crop_shape": [64, 96], "vision_encoder": node("vit")},
            r"crop_shape: got \[64, 96\], but this encoder sees squares of 64 pixels",
        ),
        ({"scale": [1.0, 1.0]}, r"scale: got \[1.0, 1.0\], expected two different numbers"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        build(**changes)
