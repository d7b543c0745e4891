"""The token of size, place and shape."""

import pytest
import torch

from components.geometry import CELLS, GeometryToken, describe_regions
from tests.components.region_extractors.regions import SIDE, filled


def test_the_values_of_a_known_box():
    values = describe_regions(filled((16, 32, 32, 8)))[0, 0]
    assert values[:6].tolist() == pytest.approx([(32 * 8) ** 0.5 / SIDE, 0.25, 0.5, 0.5, 0.125, 0.125 / 2**0.5])
    torch.testing.assert_close(values[6:], torch.ones(CELLS**2))


def test_the_distance_is_0_in_the_middle_and_1_in_a_corner():
    regions = filled((0, 0, 64, 64), (0, 0, 1, 1))
    regions.boxes[0, 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # a point at the upper right
    assert describe_regions(regions)[0, :, 5].tolist() == pytest.approx([0, 1], abs=1e-6)


def test_the_shape_of_a_triangle():
    """A mask below the diagonal of its box, 16 pixels for 8 cells: 1 below, 3/4 on it, 0 above."""
    regions = filled((8, 40, 16, 16))
    regions.masks[0, 0, 40:56, 8:24] = torch.ones(16, 16, dtype=torch.bool).tril()
    expected = torch.ones(CELLS, CELLS).tril() - 0.25 * torch.eye(CELLS)
    torch.testing.assert_close(describe_regions(regions)[0, 0, 6:].reshape(CELLS, CELLS), expected)


def test_one_token_of_the_regions_own_numbers():
    module, regions = GeometryToken(20), filled((16, 32, 32, 8), (1, 2, 3, 4))
    together = module(regions)
    assert together.shape == (1, 2, 1, 20)
    torch.testing.assert_close(together[:, 1:], module(filled((1, 2, 3, 4))), rtol=1e-5, atol=1e-6)
    together.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())


def test_padding_is_finite_and_half_precision_stays():
    regions = filled((16, 32, 32, 8))
    regions.masks.zero_()
    regions.boxes.zero_()
    regions.areas.zero_()
    assert GeometryToken(20)(regions).isfinite().all()
    assert GeometryToken(20).bfloat16()(regions).dtype == torch.bfloat16
