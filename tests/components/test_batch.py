"""The containers."""

import torch

from components.batch import Batch, Labels, Regions, pad_stack


def test_pad_stack():
    out = pad_stack([torch.ones(1, 2), torch.ones(3, 2)], 7)
    assert out.tolist() == [[[1, 1], [7, 7], [7, 7]], [[1, 1], [1, 1], [1, 1]]]


def test_a_batch_moves_with_all_it_holds():
    scores = torch.zeros(1, 1)
    regions = Regions(torch.ones(1, 1, 4, 4, dtype=torch.bool), torch.zeros(1, 1, 3, 2, 2), torch.zeros(1, 1, 4), scores, scores.bool())
    batch = Batch(torch.zeros(1, 3, 4, 4), regions, Labels(scores, scores, scores, scores, ((None,),)), (("a",),))
    moved = batch.to("meta")
    assert moved.images.is_meta
    assert moved.regions.masks.is_meta
    assert moved.labels.quality.is_meta
    assert moved.ids == (("a",),)
    assert not batch.images.is_meta
