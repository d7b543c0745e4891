"""Packing: a branch is read as if it stood alone after the prefix."""

import pytest
import torch

from components.prompts import IMAGE, REGION
from components.readouts.base import Target
from components.splice import Branch, expand, pack, splice, supervised_columns

PREFIX = (1, IMAGE, 5)


def _packed(images=None, packing="image"):
    images = images or [
        [Branch(0, (REGION, 7), Target((8, 9, 2), 1, (9, 10), (0.25, 0.75))), Branch(1, (REGION, 7, 7), Target((8, 2)))],
        [Branch(0, (REGION, 7), Target((8, 2)))],
    ]
    return pack(PREFIX, images, image_tokens=2, region_tokens=2, packing=packing)


def test_expand_repeats_slots():
    assert expand((1, IMAGE, 5, REGION), 3, 2) == [1, IMAGE, IMAGE, IMAGE, 5, REGION, REGION]


def test_layout():
    p = _packed()
    assert p.ids.tolist() == [[1, 0, 0, 5, 0, 0, 7, 8, 9, 0, 0, 7, 7, 8], [1, 0, 0, 5, 0, 0, 7, 8, *[0] * 6]]
    assert p.branch.tolist() == [[0] * 4 + [1] * 5 + [2] * 5, [0] * 4 + [1] * 4 + [-1] * 6]
    assert p.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8]
    assert p.image_slots.tolist() == [1, 2]
    assert p.region_slots.tolist() == [[0, 4, 0, 0], [0, 5, 0, 1], [0, 9, 1, 0], [0, 10, 1, 1], [1, 4, 0, 0], [1, 5, 0, 1]]


def test_a_row_for_each_branch():
    p = _packed(packing="none")
    assert p.image.tolist() == [0, 0, 1]
    assert p.ids.tolist() == [[1, 0, 0, 5, 0, 0, 7, 8, 9], [1, 0, 0, 5, 0, 0, 7, 7, 8], [1, 0, 0, 5, 0, 0, 7, 8, 0]]
    assert p.branch.tolist() == [[0] * 4 + [1] * 5, [0] * 4 + [1] * 5, [0] * 4 + [1] * 4 + [-1]]
    assert p.positions[:2].tolist() == [list(range(9))] * 2
    assert p.region_slots.tolist() == [[0, 4, 0, 0], [0, 5, 0, 1], [1, 4, 1, 0], [1, 5, 1, 1], [2, 4, 0, 0], [2, 5, 0, 1]]
    assert p.hard.tolist() == [[0, 6, 8], [0, 8, 2], [1, 7, 8], [1, 8, 2], [2, 6, 8], [2, 7, 2]]
    assert p.answers == _packed().answers == 3
    assert p.plain
    assert not _packed().plain


def test_an_image_without_questions_keeps_a_row():
    question = Branch(0, (REGION,), Target((8, 2)))
    for packing, rows in (("image", [0, 1]), ("none", [0, 1, 1])):
        assert _packed([[], [question, question]], packing).image.tolist() == rows


def test_targets_stand_one_column_before_their_token():
    p = _packed()
    assert p.hard.tolist() == [[0, 6, 8], [0, 8, 2], [0, 12, 8], [0, 13, 2], [1, 6, 8], [1, 7, 2]]
    assert p.soft.tolist() == [[0, 7]]
    assert p.soft_ids.tolist() == [[9, 10]]
    assert supervised_columns(p).tolist() == [6, 7, 8, 12, 13]


def test_targets_know_their_answer_and_its_topic():
    p = _packed(
        [
            [Branch(0, (REGION, 7), Target((8, 2)), "importance")],
            [],
            [Branch(0, (REGION,), Target((8, 9, 2), 1, (9,), (1.0,))), Branch(0, (REGION,), Target((2,)), judgment=True)],
        ]
    )
    assert p.hard_answer.tolist() == [0, 0, 1, 1, 2]
    assert p.soft_answer.tolist() == [1]
    assert p.topic.tolist() == [1, 6, 6]
    assert p.judgment.tolist() == [False, False, True]
    assert p.answers == 2


def test_a_branch_knows_its_length():
    branch = Branch(0, (REGION, 7, 7), Target((8, 9, 2)))
    p = pack(PREFIX, [[branch]], image_tokens=2, region_tokens=4)
    assert int((p.branch == 1).sum()) == branch.tokens(4)


def test_splice_fills_the_slots_and_nothing_else():
    p = _packed()
    text = torch.randn(2, 14, 3)
    image, region = torch.randn(2, 2, 3), torch.randn(2, 2, 2, 3)
    out = splice(text, p, image, region)
    assert torch.equal(out[:, 1:3], image)
    assert torch.equal(out[0, 9:11], region[0, 1])
    assert torch.equal(out[1, 4:6], region[1, 0])
    untouched = [0, 3, 6, 7, 8, 11, 12, 13]
    assert torch.equal(out[0, untouched], text[0, untouched])


def test_each_row_gets_the_tokens_of_its_image():
    p = _packed(packing="none")
    image, region = torch.randn(2, 2, 3), torch.randn(2, 2, 2, 3)
    out = splice(torch.zeros(3, 9, 3), p, image, region)
    assert torch.equal(out[:, 1:3], image[[0, 0, 1]])
    assert torch.equal(out[:, 4:6], torch.stack([region[0, 0], region[0, 1], region[1, 0]]))


def test_splice_carries_gradients_to_both_kinds_of_tokens():
    p = _packed()
    image, region = torch.randn(2, 2, 3, requires_grad=True), torch.randn(2, 2, 2, 3, requires_grad=True)
    splice(torch.randn(2, 14, 3), p, image, region).sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))
    assert region.grad[0].eq(1).all()
    assert region.grad[1, 1].eq(0).all()  # the second image has one region


@pytest.mark.parametrize("images", [[[]], [[], [Branch(0, (REGION,), Target((8, 2)))]]])
def test_images_without_questions_are_fine(images):
    p = _packed(images)
    assert p.ids.shape[0] == len(images)
    assert len(supervised_columns(p)) == len(p.hard)
