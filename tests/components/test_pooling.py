import pytest
import torch

from components.pooling import box_coverage, mask_pool, overlap


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


def test_coverage_equals_counting_points():
    """Against a plain loop over points of each cell, for boxes between the pixels."""
    masks = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0)) > 0.5
    boxes = torch.tensor([[[0.13, 0.2, 0.5, 0.61], [0.0, 0.0, 1.0, 1.0], [0.31, 0.47, 0.02, 0.03]]])
    found = box_coverage(masks, boxes, 3)
    points = 60
    for r, (left, top, width, height) in enumerate(boxes[0].tolist()):
        for i in range(3):
            for j in range(3):
                y = (top + height * (i + (torch.arange(points) + 0.5) / points) / 3) * 12
                x = (left + width * (j + (torch.arange(points) + 0.5) / points) / 3) * 20
                share = masks[0, r][y.long()][:, x.long()].float().mean().item()
                assert found[0, r, i, j].item() == pytest.approx(share, abs=0.02)


def test_coverage_of_the_whole_mask_is_its_average():
    masks = torch.rand(2, 2, 24, 24, generator=torch.Generator().manual_seed(0)) > 0.7
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 2, 4)
    torch.testing.assert_close(box_coverage(masks, whole, 6), torch.nn.functional.avg_pool2d(masks.float(), 4))


def test_a_box_without_area_is_not_covered():
    assert torch.equal(box_coverage(rectangles((0, 512, 0, 512)), torch.zeros(1, 1, 4), 4), torch.zeros(1, 1, 4, 4))


def test_overlaps_add_up_to_the_interval():
    found = overlap(torch.tensor([0.25, -1.0, 3.0]), torch.tensor([2.5, 0.5, 2.0]), 4)
    assert found.tolist() == [[0.75, 1.0, 0.5, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
