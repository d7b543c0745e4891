"""A cache that keeps every column."""

import torch
from transformers import AutoConfig

from components.cache import RowCache

TINY = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}


def grown(cache, branch, count):
    for layer in range(len(cache.layers)):
        cache.update(torch.ones(1, 1, count, 4), torch.ones(1, 1, count, 4), layer)
    return cache.read(branch, torch.arange(count)[None])


def test_a_window_forgets_nothing():
    cache = RowCache(AutoConfig.for_model("mistral", **TINY, sliding_window=3))
    grown(cache, None, 7)
    assert [layer.keys.shape[-2] for layer in cache.layers] == [7, 7]
    assert not any(cache.is_sliding)


def test_rows_are_those_of_all_columns_from_the_first_branch_on():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    assert grown(cache, None, 3) is None
    rows = grown(cache, torch.tensor([[1, 2]]), 2)
    assert rows.branch.tolist() == [[0, 0, 0, 1, 2]]
    assert rows.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert rows.new == 2
    assert grown(cache, None, 1).branch.tolist() == [[0, 0, 0, 1, 2, 0]]


def test_a_fork_grows_by_itself():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    grown(cache, None, 3)
    fork = cache.fork()
    assert fork.layers[0].keys is cache.layers[0].keys
    grown(fork, torch.tensor([[1]]), 1)
    assert (fork.get_seq_length(), cache.get_seq_length()) == (4, 3)
    assert cache.rows.branch.shape == (1, 3)
    assert not cache.branched
