"""Small pictures, batches and labels for the tests of scorers."""

import dataclasses
import math

import numpy as np
import torch

from components.batch import Labels
from components.preprocess import own_pixels, prepare_image, prepare_regions, stack
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


def scene(seed, height=70, width=90):
    """An image with regions that look unlike: a plain colour, noise, stripes, and all of it. Six seeds have other colours each."""
    rng = np.random.default_rng(seed)
    image = np.zeros((3, height, width), np.uint8)
    image[0, :, :30] = 230
    image[:, :, 30:60] = rng.integers(0, 256, (3, height, 30))
    image[:2, :, 60::6] = image[:2, :, 61::6] = image[2, :, 60:] = 255
    masks = torch.zeros(4, height, width, dtype=torch.bool)
    masks[0, 5:60, 2:28] = True
    masks[1, 10:50, 32:58] = True
    masks[2, 8:66, 62:88] = True
    masks[3] = True
    image = np.roll(image, seed % 3, axis=0) // (1 if seed % 6 >= 3 else 2)
    return torch.from_numpy(np.ascontiguousarray(image)), masks


@torch.no_grad()
def sensitive(scorer):
    """A random scorer whose answers depend on the region, as a trained one's do. As it is initialised, those of unlike regions are 1e-6
    apart, and answers that were mixed up would pass for equal."""
    if not hasattr(scorer, "llm"):
        for weight in scorer.parameters():
            weight *= 1.5 if weight.ndim > 1 else 1
        return scorer
    seen = []
    listening = scorer.region_extractor.register_forward_hook(lambda _, given, tokens: seen.append(tokens.flatten(0, 1)))
    scorer.score(*scene(3), scorer.tasks[:1])
    listening.remove()
    mean = torch.cat(seen).mean(0)
    spread = (torch.cat(seen) - mean).std()
    scorer.region_extractor.register_forward_hook(lambda _, given, tokens: (tokens - mean) / spread)
    for part, factor in ((scorer.llm, 10), (scorer.readouts, 5)):
        for weight in part.parameters():
            weight *= factor if weight.ndim > 1 else 1
    return scorer


def apart(answers, pick=min):
    """How far the answers about two regions are from each other at least (or at most): of each two, the difference of a score in the
    task where they differ most, without end where their words differ."""
    return pick(max(_apart(one[task], other[task]) for task in one) for n, one in enumerate(answers) for other in answers[:n])


def _apart(one, other):
    if (one.text, one.distortions, one.parsed) != (other.text, other.distortions, other.parsed):
        return math.inf
    return 0.0 if one.value is None else abs(one.value - other.value)


def batch_of(scorer, seeds=(1, 2), keep=SEVERAL):
    pairs = [picture(s) for s in seeds]
    images = [prepare_image(i, scorer.preprocess) for i, _ in pairs]
    regions = [prepare_regions(i, m[: keep - b], scorer.preprocess, scorer.crop_size) for b, (i, m) in enumerate(pairs)]
    return dataclasses.replace(stack(images, regions), native=own_pixels([i for i, _ in pairs], scorer.preprocess))


def labelled(scorer):
    batch = batch_of(scorer)
    shape = batch.regions.valid.shape
    known = ((("blur", "minor"),), (), None)
    labels = Labels(torch.rand(shape), torch.full(shape, torch.nan), torch.rand(shape), torch.full(shape, torch.nan), (known, known[:2]))
    labels.quality[~batch.regions.valid] = torch.nan
    labels.importance[~batch.regions.valid] = torch.nan
    return dataclasses.replace(batch, labels=labels, ids=(("a", "b", "c"), ("d", "e")))
