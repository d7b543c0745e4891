import pytest
import torch

from components.pooling import mask_pool


def rectangles(*boxes, size=512):
    masks = torch.zeros(1, len(boxes), size, size, dtype=torch.bool)
    for r, (top, bottom, left, right) in enumerate(boxes):
        masks[0, r, top:bottom, left:right] = True
    return masks


@pytest.mark.parametrize("cells", [128, 64, 16])
def test_a_constant_map_pools_to_itself(cells):
    constant = torch.tensor([3.0, -0.5])[None, :, None, None].expand(1, 2, cells, cells)
    pooled = mask_pool(constant, rectangles((100, 300, 150, 401), (0, 512, 0, 512)))
    torch.testing.assert_close(pooled, torch.tensor([[[3.0, -0.5], [3.0, -0.5]]]), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("cells", "selected"), [(128, 3150), (64, 806), (32, 208), (16, 48)])
def test_released_cell_counts(cells, selected):
    """Facts, Appendix C: how many cells of each level the mask of rows 100-299, columns 150-400 selects."""
    masks = rectangles((100, 300, 150, 401))
    index = torch.arange(float(cells * cells)).reshape(1, 1, cells, cells)
    hit = centres(masks[0, 0], cells)
    assert hit.sum().item() == selected
    assert mask_pool(index, masks).item() == pytest.approx(index[0, 0][hit].mean().item(), rel=1e-5)


def centres(mask, cells):
    """The rule in words: a cell counts iff one of the 2 x 2 mask pixels at its centre is set."""
    step = len(mask) // cells
    at = torch.arange(cells) * step + step // 2
    return sum(mask[at + dy][:, at + dx].long() for dy in (-1, 0) for dx in (-1, 0)) > 0


@pytest.mark.parametrize("cells", [32, 16, 8])
def test_only_the_centre_of_each_cell_is_seen(cells):
    masks = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) > 0.97
    one_hot = torch.eye(cells * cells).reshape(1, cells * cells, cells, cells)
    seen = mask_pool(one_hot, masks) > 0
    for r in range(3):
        assert torch.equal(seen[0, r].reshape(cells, cells), centres(masks[0, r], cells))


def test_a_region_that_misses_every_centre_vanishes():
    feature = torch.ones(1, 4, 16, 16, requires_grad=True)
    pooled = mask_pool(feature, rectangles((0, 10, 0, 10)))
    assert torch.equal(pooled, torch.zeros(1, 1, 4))
    pooled.sum().backward()
    assert torch.equal(feature.grad, torch.zeros_like(feature))


def test_float32_inside_autocast():
    feature = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mask_pool(feature, masks)
    assert torch.equal(inside, mask_pool(feature, masks))
    assert mask_pool(feature.bfloat16(), masks).dtype == torch.bfloat16
