"""Small real models and a photograph for the tests of the page."""

import io

import numpy as np
import torch
from PIL import Image

from components.scorers.base import SCORERS
from inference.engine import Engine
from inference.saved import About, save


def node(name="roi_vlm"):
    return {"plugin": name, **SCORERS.get(name).tiny()}


@torch.no_grad()
def scorer(seed=0, name="roi_vlm"):
    """With weights so large that answers about unlike regions lie apart: as it is initialised, mixed-up ones would pass for equal."""
    torch.manual_seed(seed)
    found = SCORERS.build(node(name))
    found.load_pretrained()
    for part, gain in (("region_extractor", 20), ("llm", 5), ("readouts", 5)):
        for weight in found.parts().get(part, torch.nn.Module()).parameters():
            weight *= gain if weight.ndim > 1 else 1
    return found.eval()


def engine(seed=0, name="roi_vlm"):
    return Engine(scorer(seed, name))


def saved(folder, seed=0):
    """The folder of a saved model."""
    save(folder, scorer(seed), node(), About())
    return folder


def photo(height=90, width=120):
    """(H, W, 3) uint8: a bright square on a dark ground, with a little texture."""
    image = np.random.default_rng(0).integers(30, 60, (height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 4 : width // 2] += 150
    return image


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()
