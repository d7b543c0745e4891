"""Which models read packed rows; what is refused, and where, is tested with the adapter."""

import torch
from torch import nn

from components.attention import Reading
from components.packable import heedless
from components.rows import Rows


def test_each_block_must_get_a_mask_as_it_was_made():
    rows = Rows(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long), 2)
    blocks, masks = [nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Linear(1, 1))], [torch.zeros(1), torch.zeros(1)]
    heard = [(blocks[0][0], masks[0]), (blocks[1][0], masks[1])]
    assert heedless(blocks, Reading(rows, masks, heard)) == ""
    assert heedless(blocks, Reading(rows, masks, heard[:1])) == "not all of its layers look at what a mask says (Sequential)"
    changed = [heard[0], (blocks[1][0], masks[1].clone())]
    assert "(Sequential)" in heedless(blocks, Reading(rows, masks, changed))
    beside = [*heard, (nn.Linear(1, 1), None)]
    assert heedless(blocks, Reading(rows, masks, beside)) == "not all of its layers look at what a mask says (attention)"
