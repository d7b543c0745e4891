"""Bounds are positive, and say which option is meant."""

import math

import pytest

from components.registry import ConfigError
from inference.page.limits import Limits


def test_megabytes_are_decimal():
    assert Limits(megabytes=2.5).bytes == 2_500_000


@pytest.mark.parametrize(("field", "option"), [("megabytes", "--max-mb"), ("pixels", "--max-pixels"), ("images", "--max-images")])
def test_what_is_not_positive_is_refused(field, option):
    with pytest.raises(ConfigError, match=f"{option}: got 0, expected a positive number"):
        Limits(**{field: 0})
    with pytest.raises(ConfigError, match=f"{option}: got inf, expected a positive number"):
        Limits(**{field: math.inf})
