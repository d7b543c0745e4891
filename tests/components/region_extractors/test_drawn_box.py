"""The drawn box: on the picture, as the image's encoder sees it, or on a sheet, which is nothing but the place."""

import dataclasses

import pytest
import torch

from components.outline import Outline
from components.region_extractors.drawn_box import DrawnBox
from tests.components.region_extractors.regions import CHANNELS, SIZES, WIDTH, filled, random_pyramid


def tiny(**options):
    torch.manual_seed(0)
    return DrawnBox(CHANNELS, SIZES, WIDTH, **{**DrawnBox.tiny(), **options}).eval()


@torch.no_grad()
def tokens_of(extractor, regions, seed=1):
    return extractor(extractor.prepare(random_pyramid(seed=seed)), regions)


def test_on_a_sheet_only_the_box_matters():
    extractor, regions = tiny(), filled((16, 8, 24, 40), (3, 3, 9, 11))
    other = dataclasses.replace(regions, masks=torch.zeros_like(regions.masks), areas=regions.areas / 2)
    assert torch.equal(tokens_of(extractor, regions), tokens_of(extractor, other, seed=2))
    moved = dataclasses.replace(regions, boxes=regions.boxes + torch.tensor([0.004, 0, 0, 0]))  # a quarter of a pixel
    assert (tokens_of(extractor, regions) - tokens_of(extractor, moved)).abs().max() > 1e-4


def drawn(**options):
    torch.manual_seed(0)
    return DrawnBox(CHANNELS, SIZES, WIDTH, **{"hidden": 16, **options}).eval()


def test_the_box_is_drawn_on_the_picture_unless_told_otherwise():
    extractor = drawn()
    assert (extractor.shares_encoder, extractor.outline, extractor.crop_size) == (True, Outline((1.0, 0.0, 0.0), 0.01), 0)
    other = drawn(colour="#00ff80", line=0.03, size=128)
    assert (other.outline, other.crop_size) == (Outline((0.0, 1.0, 128 / 255), 0.03), 128)
    assert (tiny().shares_encoder, tiny().outline, tiny().tokens, drawn(grid=3).tokens) == (False, None, 1, 9)


@torch.no_grad()
def test_a_sheet_is_32_cells_and_its_line_one():
    extractor, regions = drawn(on="sheet"), filled((16, 8, 24, 40))
    assert sum(p.numel() for p in extractor.parameters()) == 1024 * 16 + 16 + 16 * WIDTH + WIDTH
    assert torch.equal(tokens_of(extractor, regions), tokens_of(drawn(on="sheet", size=32, line=1.0), regions))


@torch.no_grad()
def test_a_token_is_what_the_encoder_saw_of_its_part_of_the_picture():
    extractor, regions, seen = drawn(grid=2), filled((8, 16, 30, 20), (0, 0, 64, 64), (3, 3, 9, 11)), random_pyramid(2)
    regions.valid[0, 1] = False
    tokens = extractor(seen, regions)
    assert tokens.shape == (1, 3, 4, WIDTH)
    assert not tokens[0, 1].any()
    part = [m[1, :, : m.shape[2] // 2, m.shape[3] // 2 :].mean((1, 2)) for m in seen.maps]  # upper right: the second
    expected = extractor.out(torch.nn.functional.gelu(sum(layer(x) for layer, x in zip(extractor.levels, part, strict=True))))
    torch.testing.assert_close(tokens[0, 2, 1], expected, rtol=1e-5, atol=1e-6)


def test_weights_of_the_sheet_are_refused_by_the_picture():
    old = tiny().state_dict()
    tiny().check_state(old)
    drawn().check_state(drawn().state_dict())
    with pytest.raises(ValueError, match=r"an empty sheet, .*set model\.region_extractor\.on to sheet"):
        drawn().check_state(old)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on": "sheet", "size": 0}, "on a sheet size and line are cells, above 0; got size 0"),
        ({"on": "sheet", "line": 0.0}, "on a sheet size and line are cells, above 0; got size None, line 0.0"),
        ({"line": 1.0}, r"line: got 1.0, expected a fraction .*\(of an empty sheet it is in cells: on=sheet\)"),
        ({"line": 0.0}, "line: got 0.0, expected a fraction"),
        ({"size": 0}, "grid and size must be at least 1, got grid 4, size 0"),
        ({"grid": 0}, "grid and size must be at least 1, got grid 0, size None"),
        ({"colour": "rad"}, "colour: got 'rad', expected a name such as red"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        drawn(**options)
