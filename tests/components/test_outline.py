"""Exact ink, on a sheet and on a picture."""

import pytest
import torch

from components.outline import Outline, draw_boxes

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


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


def test_on_a_picture_the_line_has_its_colour_and_the_rest_stays_to_the_bit():
    picture = torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[0.2, 0.3, 0.5, 0.4]])  # pixels 4 to 13 across, 6 to 13 down
    drawn = Outline((1.0, 0.0, 0.2), 0.1).draw(picture, box, MEAN, STD)
    frame = torch.zeros(20, 20, dtype=torch.bool)
    frame[6:14, 4:14] = True
    frame[8:12, 6:12] = False
    assert drawn.shape == (1, 3, 20, 20)
    assert torch.equal(drawn[0][:, ~frame], picture[:, ~frame])
    seen = drawn[0] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    torch.testing.assert_close(seen[:, frame], torch.tensor([1.0, 0.0, 0.2])[:, None].expand(3, int(frame.sum())), rtol=0, atol=1e-5)


def test_a_line_of_half_a_pixel_is_half_as_strong():
    picture = torch.zeros(3, 10, 10)
    drawn = Outline((1.0, 1.0, 1.0), 0.05).draw(picture, torch.tensor([[0.2, 0.2, 0.6, 0.6]]), (0.0,) * 3, (1.0,) * 3)
    torch.testing.assert_close(drawn[0, 0, 2, 3:7], torch.full((4,), 0.5))
    assert float(drawn[0, 0, 2, 2]) == pytest.approx(0.75)  # the corner, of two lines


def test_each_box_has_a_picture_of_its_own():
    picture = torch.rand(3, 16, 16)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.3, 0.4]])
    outline = Outline((1.0, 0.0, 0.0), 0.03)
    both = outline.draw(picture, boxes, MEAN, STD)
    for r in range(2):
        assert torch.equal(both[r : r + 1], outline.draw(picture, boxes[r : r + 1], MEAN, STD))
