"""The seam to pyiqa, with a stand-in: what it is asked, what it is shown, how its numbers become scores, and what is refused."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import torch

from components import rle
from components.batch import join, split
from components.reading import AnswerError
from components.registry import ConfigError
from components.scorers.base import SCORERS
from components.scorers.pyiqa import mirrored
from datamodules.collate import Collate
from datamodules.records import ImageRecord, RegionRecord
from datamodules.samples import RoiSample
from inference.engine import Engine
from inference.export import export_onnx
from inference.saved import CARD, CONFIG, About, load_saved, save
from tests.components.scorers.samples import batch_of, labelled, picture
from train import sizes


def build(**options):
    return SCORERS.build({"plugin": "pyiqa", "crop_size": 16, **options})


def native(**options):
    return SCORERS.build({"plugin": "pyiqa", **options})


def shown_to(pyiqa_measures, monkeypatch, least=1):
    """What measures are shown from now on, which fail where a side is shorter than `least`."""
    seen = []

    class Watched(pyiqa_measures.measure):
        def forward(self, x):
            seen.append(x)
            assert min(x.shape[-2:]) >= least, "no whole block"
            return super().forward(x)

    monkeypatch.setattr(pyiqa_measures, "measure", Watched)
    return seen


def sample(seed, height, width, boxes):
    """A `picture` of its own size with such boxes (left, top, width, height)."""
    image, _ = picture(seed, height, width)
    codes = [rle.encode_rectangle((height, width), x, y, x + w, y + h) for x, y, w, h in boxes]
    regions = tuple(RegionRecord(f"{seed}-{r}", code["counts"], quality=0.5) for r, code in enumerate(codes))
    return RoiSample(image, ImageRecord(str(seed), str(seed), "train", height, width, regions, b""))


SAMPLES = (sample(1, 70, 90, [(20, 10, 31, 30), (3, 50, 80, 9)]), sample(2, 131, 67, [(0, 0, 67, 131), (66, 30, 1, 101), (11, 13, 17, 19)]))


def boxes_of(sample):
    return [sample.image[:, y : y + h, x : x + w].float() / 255 for x, y, w, h in sample.boxes().tolist()]


def alike(seen, wanted):
    return len(seen) == len(wanted) and all(torch.equal(x, crop[None]) for x, crop in zip(seen, wanted, strict=True))


def test_nothing_is_fetched_before_it_is_needed(pyiqa_measures):
    scorer = build(metric="musiq")
    assert pyiqa_measures.asked == []
    scorer.score(*picture(1))
    scorer.score(*picture(2))
    assert pyiqa_measures.asked == [("musiq", "cpu")]


def test_it_answers_about_quality_alone():
    scorer = build()
    assert scorer.tasks == ("quality",)
    with pytest.raises(ValueError, match="PyIQA answers quality"):
        scorer.score(*picture(1), ["importance"])


@pytest.mark.parametrize("lower", [False, True])
def test_calibrated_numbers_keep_their_order_or_turn_it(pyiqa_measures, monkeypatch, lower):
    monkeypatch.setattr(pyiqa_measures.measure, "lower_better", lower)
    scorer = build()
    scorer.calibrate([labelled(scorer)])
    crops = torch.rand(20, 3, 16, 16) * torch.linspace(0.1, 1, 20)[:, None, None, None]
    raw, rated = scorer.measured(crops), scorer.rate(crops).detach()
    assert torch.equal(rated.argsort(descending=lower), raw.argsort())
    assert torch.all((rated > 0) & (rated < 1))


def test_the_mean_region_scores_a_half():
    scorer = build()
    batch = labelled(scorer)
    scorer.calibrate([batch])
    values = scorer.measured(batch.regions.crops.flatten(0, 1)[batch.regions.valid.flatten()])
    assert scorer.calibration(values.mean()).item() == pytest.approx(0.5)
    assert scorer.calibration(values.mean() + values.std(correction=0)).item() == pytest.approx(torch.tensor(1.0).sigmoid().item())
    scorer.calibrate([join([batch])])  # a second look at the same changes nothing
    assert scorer.calibration(values.mean()).item() == pytest.approx(0.5)


def test_the_measure_is_neither_trained_nor_saved(pyiqa_measures):
    scorer = build()
    scorer.load_pretrained()
    assert {n for n, _ in scorer.named_parameters()} == {"calibration.slope", "calibration.offset"}
    assert set(scorer.state_dict()) == {f"calibration.{n}" for n in ("slope", "offset", "mean", "spread")}
    told = scorer.foundations()["metric"]
    assert told["model"] == "pyiqa's topiq_nr"
    assert told["weights"] == build().foundations()["metric"]["weights"]


def test_what_the_measure_weighs_is_counted(pyiqa_measures):
    """It is no part, since it is neither trained nor saved; a table of costs has it all the same."""
    scorer = build()
    assert sizes(scorer) == {"calibration": {"parameters": 2, "trainable": 2}}  # nothing is fetched for the sake of a number
    scorer.load_pretrained()
    assert sizes(scorer) == {"calibration": {"parameters": 2, "trainable": 2}, "metric": {"parameters": 3, "trainable": 0}}


def test_errors(pyiqa_measures, monkeypatch):
    with pytest.raises(ConfigError, match="crop_size is native, or at least 1 pixel, got 0"):
        build(crop_size=0)
    with pytest.raises(ConfigError, match=r"crop_size: got 'natural', expected .*Literal\['native'\]"):
        build(crop_size="natural")
    for options in ({"smallest": -1, "crop_size": "native"}, {"smallest": 8}):
        with pytest.raises(ConfigError, match=rf"smallest is at least 0, and 0 where crops are resized: got {options['smallest']}"):
            build(**options)
    monkeypatch.setattr(pyiqa_measures.measure, "metric_mode", "FR")
    with pytest.raises(ConfigError, match="'lpips' compares with a reference"):
        build(metric="lpips").load_pretrained()


def test_a_calibration_on_nothing_or_on_no_numbers_is_refused(monkeypatch):
    scorer = build()
    batch = labelled(scorer)
    monkeypatch.setattr(scorer, "measured", lambda crops: torch.full((len(crops),), torch.nan))
    with pytest.raises(ValueError, match=r"topiq_nr gives no finite number for 5 of 5 training regions.*a larger crop_size than 16"):
        scorer.calibrate([batch])
    batch.regions.valid[:] = False
    with pytest.raises(ValueError, match="no training regions to calibrate topiq_nr on"):
        scorer.calibrate([batch])


def test_without_pyiqa_the_remedy_and_the_licence_are_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "pyiqa")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"not for commercial use .*pip install pyiqa"):
        build()


def test_regions_are_shown_as_they_stand_in_the_image(pyiqa_measures, monkeypatch):
    """Two images of unlike sizes, regions of unlike sizes, in one batch: in scoring, in the control, in training, and turned."""
    seen = shown_to(pyiqa_measures, monkeypatch)
    scorer, wanted = native(), [crop for each in SAMPLES for crop in boxes_of(each)]
    batch = Collate(scorer.preprocess, scorer.crop_size)(SAMPLES)
    scorer.score_batch(batch, scorer.tasks)
    assert alike(seen, wanted)
    seen.clear()
    whole = Collate(scorer.preprocess, scorer.crop_size, whole=True)(SAMPLES)
    scorer.answer(scorer.look(batch), whole.regions, scorer.tasks)
    assert alike(seen, [each.image.float() / 255 for each in SAMPLES])
    for step in (lambda: scorer.loss(batch), lambda: scorer.calibrate([batch]), lambda: scorer.loss(join(split(batch)))):
        seen.clear()
        step()
        assert alike(seen, wanted)
    seen.clear()
    turned = SAMPLES[0].turned(5)
    scorer.loss(Collate(scorer.preprocess, scorer.crop_size)([turned]))
    assert alike(seen, boxes_of(turned))


def test_an_engine_shows_regions_as_they_stand_in_the_image(pyiqa_measures, monkeypatch):
    seen = shown_to(pyiqa_measures, monkeypatch)
    engine, image = Engine(native(), memory=1e-6), SAMPLES[0].image  # one region at a time
    mask = np.zeros(image.shape[1:], bool)
    mask[40, 7:60] = mask[45:50, 30] = True
    found = engine.score(image, [(20, 10, 31, 30), mask, rle.encode_rectangle((70, 90), 5, 5, 60, 33)])
    assert alike(seen, [image[:, y : y + h, x : x + w].float() / 255 for x, y, w, h in ((20, 10, 31, 30), (7, 40, 53, 10), (5, 5, 55, 28))])
    assert len({answer["quality"].value for answer in found}) == 3


def test_batched_equals_single_to_the_bit(pyiqa_measures):
    scorer = native().eval()
    together = scorer.score_batch(Collate(scorer.preprocess, scorer.crop_size)([SAMPLES[1], SAMPLES[0]]), scorer.tasks)
    for each, rows in zip((SAMPLES[1], SAMPLES[0]), together, strict=True):
        assert rows == [scorer.score(each.image, mask[None])[0] for mask in each.masks()]


@pytest.mark.parametrize(("height", "width", "smallest"), [(30, 31, 96), (1, 5, 12), (2, 40, 33), (50, 60, 50)])
def test_a_smaller_crop_goes_on_as_in_a_mirror(height, width, smallest):
    crop = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8))
    more = [(0, 0), (0, max(0, smallest - height)), (0, max(0, smallest - width))]
    np.testing.assert_array_equal(mirrored(crop, smallest).numpy(), np.pad(crop.numpy(), more, mode="reflect"))


def test_smaller_crops_are_shown_mirrored_and_larger_ones_as_they_are(pyiqa_measures, monkeypatch):
    seen = shown_to(pyiqa_measures, monkeypatch, least=24)
    scorer = native(smallest=24)
    scorer.score(SAMPLES[0].image, SAMPLES[0].masks())
    assert [tuple(x.shape[-2:]) for x in seen] == [(30, 31), (24, 80)]
    assert torch.equal(seen[0][0], boxes_of(SAMPLES[0])[0])
    assert torch.equal(seen[1][0, :, :9], boxes_of(SAMPLES[0])[1])


def test_a_crop_that_is_too_small_is_named_with_what_to_do(pyiqa_measures, monkeypatch):
    shown_to(pyiqa_measures, monkeypatch, least=16)
    scorer = native(metric="niqe")
    batch = Collate(scorer.preprocess, scorer.crop_size)(SAMPLES)
    told = r"pyiqa: niqe fails \(AssertionError: no whole block.*for the region 1-1 of 80 x 9 pixels at 3, 50 of an image of 90 x 70\. .*"
    remedy = r"model\.smallest=96.*model\.crop_size=224"
    for ask in (scorer.loss, lambda batch: scorer.calibrate([batch]), lambda batch: scorer.score_batch(batch, scorer.tasks)):
        with pytest.raises(AnswerError, match=f"(?s){told}{remedy}"):
            ask(batch)
    with pytest.raises(AnswerError, match="region 1-1 of"):  # as a split is measured
        scorer.answer(scorer.look(batch), batch.regions, scorer.tasks)
    other = dataclasses.replace(batch.regions)
    with pytest.raises(AnswerError, match="for the region of 80 x 9 pixels at 3, 50"):  # other regions have none of the batch's names
        scorer.answer(scorer.look(batch), other, scorer.tasks)
    assert len(build(metric="niqe").score(SAMPLES[0].image, SAMPLES[0].masks())) == 2


@pytest.mark.filterwarnings("ignore:std")
def test_no_number_is_no_score(pyiqa_measures):
    """The standard deviation of a single pixel."""
    scorer = native()
    with pytest.raises(AnswerError, match=r"topiq_nr gives no finite number for the region of 1 x 1 pixels at 7, 5"):
        scorer.score(*picture(1))
    assert len(native(smallest=2).score(*picture(1))) == 3


def test_a_device_that_has_failed_is_not_blamed_on_a_crop(monkeypatch):
    scorer = native()
    scorer.load_pretrained()

    def broken(crops):
        raise torch.AcceleratorError("illegal memory access")

    monkeypatch.setattr(scorer, "measured", broken)
    with pytest.raises(torch.AcceleratorError):
        scorer.score(*picture(1))


def test_a_batch_without_the_images_own_pixels_is_refused():
    scorer = native()
    with pytest.raises(ValueError, match="comes without its images' own pixels"):
        scorer.score_batch(dataclasses.replace(batch_of(scorer), native=()), scorer.tasks)


def test_native_crops_are_budgeted_one_at_a_time():
    """The masks in the model's size grow with the regions, the crop does not; the image is its bound."""
    one, resized = native(), build()
    size = (3000, 4000)
    more = one.answer_bytes(size, 20) - one.answer_bytes(size, 10)
    assert more == resized.answer_bytes(size, 20) - resized.answer_bytes(size, 10) - 10 * 4 * 12 * 16**2
    assert one.answer_bytes(size, 1) == more / 10 + 4 * 12 * 3000 * 4000
    assert native(smallest=64).answer_bytes((10, 100), 1) - one.answer_bytes((10, 100), 1) == 4 * 12 * (64 - 10) * 100


def test_native_regions_are_no_one_graph(tmp_path):
    with pytest.raises(ConfigError, match=r"crop_size native cannot be written as one graph.*model\.crop_size=224"):
        export_onnx(native(), tmp_path / "model.onnx")
    assert set(build().graph().inputs) == {"crops"}


def test_a_saved_model_says_how_it_looks_and_is_not_read_otherwise(tmp_path):
    """One that was saved before there was a choice saw resized crops, and does not say so."""
    scorer, node = native(), {"plugin": "pyiqa"}
    save(tmp_path, scorer, node, About())
    assert "cut out of the image in the image's own pixels" in (tmp_path / CARD).read_text()
    assert load_saved(tmp_path)[0].preprocess.native
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["preprocess"].pop("native") is True
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match="another preprocessing"):
        load_saved(tmp_path)
    save(tmp_path / "resized", build(), {**node, "crop_size": 16}, About())
    assert load_saved(tmp_path / "resized")[0].crop_size == 16
    assert "Images are brought to" in (tmp_path / "resized" / CARD).read_text()
