"""What the scorers of crops see, whoever shows it to them: a region's box, brought to its size by PIL alone."""

import pytest
import torch
from PIL import Image

from components import rle
from components.scorers.base import SCORERS
from datamodules.collate import Collate
from datamodules.records import ImageRecord, RegionRecord
from datamodules.samples import RoiSample
from tests.components.scorers.samples import picture

OF_CROPS = {"mobile_iqa": {}, "teacher_iqa": {}, "pyiqa": {"crop_size": 16, "smallest": 0}}


def by_pil(image, scorer):
    """(3, h, w) uint8 -> as chencn2020/MobileIQA@c74fec9 resizes: straight to the size, antialiased; normalised as the scorer says."""
    side = (scorer.crop_size, scorer.crop_size)
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(side, Image.Resampling[scorer.preprocess.interpolation.upper()])
    mean, std = (torch.tensor(v)[:, None, None] for v in (scorer.preprocess.mean, scorer.preprocess.std))
    return (torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(*side, 3).permute(2, 0, 1) / 255 - mean) / std


@pytest.mark.parametrize("name", OF_CROPS)
def test_a_long_region_is_resized_by_pil_in_training_in_scoring_and_in_the_control(name):
    scorer = SCORERS.build({"plugin": name, **SCORERS.get(name).tiny(), **OF_CROPS[name]}).eval()
    image, masks = picture(1, 60, 400)
    masks = masks[2:].clone()
    masks[0, :30] = False  # 30 x 400 pixels
    record = ImageRecord("a", "a", "train", 60, 400, (RegionRecord("a-0", rle.encode(masks[0].numpy())["counts"], quality=0.5),), b"")
    sample, crop = RoiSample(image, record), by_pil(image[:, 30:], scorer)
    found = {whole: Collate(scorer.preprocess, scorer.crop_size, whole)([sample]).regions.crops[0] for whole in (False, True)}
    torch.testing.assert_close(found[False], crop[None], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[True], by_pil(image, scorer)[None], rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = float(scorer.unit(scorer.rate(crop[None])).clamp(0, 1))
    assert scorer.score(image, masks)[0]["quality"].value == pytest.approx(expected, abs=1e-5)
