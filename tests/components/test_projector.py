"""The projector."""

import pytest
import torch

from components.batch import Pyramid
from components.projector import Projector


def test_cells_become_tokens_row_by_row():
    projector = Projector(3, 3, kind="linear", level=1)
    torch.nn.init.eye_(projector.mlp.weight)
    torch.nn.init.zeros_(projector.mlp.bias)
    level = torch.randn(2, 3, 4, 5)
    tokens = projector(Pyramid((torch.zeros(2, 1, 8, 10), level)))
    assert tokens.shape == (2, 20, 3)
    assert torch.equal(tokens[1, 7], level[1, :, 1, 2])


def test_pooling_averages_cells():
    projector = Projector(3, 3, kind="linear", level=0, pool=2)
    torch.nn.init.eye_(projector.mlp.weight)
    torch.nn.init.zeros_(projector.mlp.bias)
    level = torch.randn(1, 3, 4, 4)
    torch.testing.assert_close(projector(Pyramid((level,)))[0, 3], level[0, :, 2:, 2:].mean((1, 2)))


def test_the_released_shape():
    """Reference facts 1.3: 768 -> 4096 -> 4096 with biases."""
    with torch.device("meta"):
        projector = Projector(768, 4096)
    assert sum(p.numel() for p in projector.parameters()) == 768 * 4096 + 4096 + 4096 * 4096 + 4096


def test_pool_error():
    with pytest.raises(ValueError, match="at least 1 cell, got 0"):
        Projector(3, 3, pool=0)
