"""How much smaller than it is a region is seen."""

import pytest

from components.scorers.base import SCORERS
from inference.reduced import times
from tests.pyiqa_stand_in import pyiqa_measures

__all__ = ["pyiqa_measures"]


@pytest.mark.parametrize(("crop_size", "wanted"), [(16, 25.0), (100, 4.0), ("native", 1.0)])
def test_a_native_region_is_seen_as_large_as_it_is(crop_size, wanted):
    scorer = SCORERS.build({"plugin": "pyiqa", "crop_size": crop_size})
    assert times(scorer, (3000, 4000), (5, 6, 400, 30)) == wanted
