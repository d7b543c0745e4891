"""Examples are real photographs, damaged where they say so and nowhere else."""

import numpy as np
from skimage import data

from inference.page.examples import EXAMPLES, examples


def test_they_are_damaged_where_they_say_so():
    found = examples()
    assert len(found) == len(EXAMPLES)
    for name, image in found.items():
        changed = (image != getattr(data, name.split(",")[0])()).any(axis=2)
        assert changed.any() == ("damaged" in name)
        assert changed.mean() < 0.35
    assert any(np.array_equal(image, data.astronaut()) for image in found.values())
