from __future__ import annotations

import numpy as np
import PIL.Image
import pytest

from datamodules.datasets.photographs import Photographs


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """(96, 96, 3) uint8: an embedded test photograph, read-only so that whoever changes it fails."""
    chelsea = next(p for p in Photographs().photographs["test"] if p.name == "chelsea").read()
    image = np.array(PIL.Image.fromarray(chelsea[:300, 80:380]).resize((96, 96), PIL.Image.Resampling.LANCZOS))
    image.setflags(write=False)
    return image
