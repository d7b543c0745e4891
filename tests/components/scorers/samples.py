"""Small pictures, batches and labels for the tests of scorers."""

import numpy as np
import torch

from components.batch import Batch, Labels
from components.preprocess import prepare_image, prepare_regions, stack
from components.scorers.base import SCORERS

SEVERAL = 3
INSTALLED = [name for name in SCORERS.names() if name != "pyiqa"]  # whose package is not for commercial use; it has tests with a stand-in


def picture(seed, height=70, width=90):
    """An image with regions of differing size: a box, a single pixel, everything."""
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    masks = torch.zeros(SEVERAL, height, width, dtype=torch.bool)
    masks[0, 10:40, 20 : 50 + seed] = True
    masks[1, 5, 7] = True
    masks[2] = True
    return image, masks


def batch_of(scorer, seeds=(1, 2), keep=SEVERAL):
    pairs = [picture(s) for s in seeds]
    images = [prepare_image(i, scorer.preprocess) for i, _ in pairs]
    regions = [prepare_regions(i, m[: keep - b], scorer.preprocess, scorer.crop_size) for b, (i, m) in enumerate(pairs)]
    return stack(images, regions)


def labelled(scorer):
    batch = batch_of(scorer)
    shape = batch.regions.valid.shape
    known = ((("blur", "minor"),), (), None)
    labels = Labels(torch.rand(shape), torch.full(shape, torch.nan), torch.rand(shape), torch.full(shape, torch.nan), (known, known[:2]))
    labels.quality[~batch.regions.valid] = torch.nan
    labels.importance[~batch.regions.valid] = torch.nan
    return Batch(batch.images, batch.regions, labels, (("a", "b", "c"), ("d", "e")))
