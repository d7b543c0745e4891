"""Standardised feature maps."""

import pytest
import torch

from components.batch import Pyramid
from components.standardize import Standardize


def pyramids(count=5):
    torch.manual_seed(0)
    return [Pyramid((3 + 2 * torch.randn(2, 4, 8, 8), torch.rand(2, 6, 4, 4))) for _ in range(count)]


def test_the_identity_until_it_is_fitted():
    (one,) = pyramids(1)
    for a, b in zip(Standardize((4, 6))(one).maps, one.maps, strict=True):
        assert torch.equal(a, b)


def test_zero_mean_and_unit_variance_afterwards():
    some = pyramids()
    module = Standardize((4, 6))
    module.fit(some)
    for level in range(2):
        cells = torch.cat([module(p).maps[level] for p in some]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(cells.mean(1), torch.zeros(len(cells)), atol=1e-5, rtol=0)
        torch.testing.assert_close(cells.std(1, correction=0), torch.ones(len(cells)), atol=1e-5, rtol=0)


def test_a_constant_channel_keeps_its_scale():
    module = Standardize((1,))
    module.fit([Pyramid((torch.full((1, 1, 2, 2), 7.0),))])
    assert torch.equal(module(Pyramid((torch.full((1, 1, 2, 2), 9.0),))).maps[0], torch.full((1, 1, 2, 2), 2.0))


def test_statistics_travel_with_the_state():
    module, other = Standardize((4, 6)), Standardize((4, 6))
    module.fit(pyramids())
    other.load_state_dict(module.state_dict())
    (one,) = pyramids(1)
    assert torch.equal(module(one).maps[0], other(one).maps[0])


def test_no_images_no_statistics():
    with pytest.raises(ValueError, match="the training split is empty"):
        Standardize((1,)).fit([])
