"""The drawn box: exact ink, and nothing but the place."""

import dataclasses

import pytest
import torch

from components.region_extractors.drawn_box import DrawnBox, draw_boxes
from tests.components.region_extractors.regions import CHANNELS, SIZES, WIDTH, filled, random_pyramid


def tiny(**options):
    torch.manual_seed(0)
    return DrawnBox(CHANNELS, SIZES, WIDTH, **{**DrawnBox.tiny(), **options}).eval()


@torch.no_grad()
def tokens_of(extractor, regions, seed=1):
    return extractor(extractor.prepare(random_pyramid(seed=seed)), regions)


def test_a_box_on_the_cells_is_drawn_as_a_frame():
    frame = torch.zeros(8, 8)
    frame[2:6, 1:7] = 1.0
    frame[3:5, 2:6] = 0.0
    torch.testing.assert_close(draw_boxes(torch.tensor([[[1, 2, 6, 4]]]) / 8, 8, 1.0)[0, 0], frame)


def test_ink_equals_that_of_a_fine_drawing():
    """Against a plain loop over 400 x 400 points: inside the box, not inside the box without its line."""
    left, top, width, height, size, line = 0.23, 0.11, 0.51, 0.37, 5, 0.7
    sheet = torch.zeros(size, size)
    fine = 400
    for i in range(fine):
        for j in range(fine):
            y, x = (i + 0.5) / fine, (j + 0.5) / fine
            edge = min(x - left, left + width - x, y - top, top + height - y)
            sheet[i * size // fine, j * size // fine] += 0 <= edge < line / size
    drawn = draw_boxes(torch.tensor([[[left, top, width, height]]]), size, line)[0, 0]
    torch.testing.assert_close(drawn, sheet / (fine / size) ** 2, rtol=0, atol=0.02)


def test_a_box_thinner_than_two_lines_is_filled():
    torch.testing.assert_close(draw_boxes(torch.tensor([[[0.25, 0.25, 0.25, 0.5]]]), 4, 1.0).sum(), torch.tensor(2.0))


def test_no_box_no_ink():
    assert not draw_boxes(torch.zeros(2, 3, 4), 8, 1.0).any()


def test_only_the_box_matters():
    extractor, regions = tiny(), filled((16, 8, 24, 40), (3, 3, 9, 11))
    other = dataclasses.replace(regions, masks=torch.zeros_like(regions.masks), areas=regions.areas / 2)
    assert torch.equal(tokens_of(extractor, regions), tokens_of(extractor, other, seed=2))
    moved = dataclasses.replace(regions, boxes=regions.boxes + torch.tensor([0.004, 0, 0, 0]))  # a quarter of a pixel
    assert (tokens_of(extractor, regions) - tokens_of(extractor, moved)).abs().max() > 1e-4


@pytest.mark.parametrize("options", [{"size": 0}, {"line": 0.0}])
def test_errors(options):
    with pytest.raises(ValueError, match="size and line are cells, above 0; got size"):
        tiny(**options)
