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


def filled(cache, value, count):
    given = torch.full((1, 1, count, 4), float(value))
    return cache.update(given, -given, 0)


@torch.no_grad()
def test_words_are_added_without_a_copy_of_what_came_before():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    filled(cache, 1, 64)
    keys, _ = filled(cache, 2, 3)
    later, values = filled(cache, 3, 2)
    assert later.data_ptr() == keys.data_ptr()
    assert torch.equal(later[0, 0, :, 0], torch.tensor([1.0] * 64 + [2] * 3 + [3] * 2))
    assert torch.equal(values, -later)
    assert torch.equal(keys[0, 0, :, 0], torch.tensor([1.0] * 64 + [2] * 3))  # what was returned before is what it was
    for n in range(40):  # beyond the room
        later, _ = filled(cache, n, 1)
    assert torch.equal(later[0, 0, -40:, 0], torch.arange(40.0))
    assert later.shape[-2] == cache.get_seq_length() == 109


@torch.no_grad()
def test_forks_that_grow_in_turns_do_not_see_each_other():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    filled(cache, 1, 64)
    filled(cache, 2, 2)  # has room from here on
    forks = [cache.fork(), cache.fork()]
    for step in range(3):
        for n, fork in enumerate((cache, *forks)):
            keys, _ = filled(fork, 10 * (n + 1) + step, 1)
            assert keys[0, 0, 66:, 0].tolist() == [10 * (n + 1) + s for s in range(step + 1)]
    assert filled(forks[0].fork(), 5, 1)[0][0, 0, 66:, 0].tolist() == [20, 21, 22, 5]


@torch.no_grad()
def test_the_room_of_a_fork_that_is_done_serves_the_next():
    """A question more copies nothing of the prefix, which is kept once: it stands in the room."""
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    filled(cache, 1, 64)
    places = set()
    for n in range(4):
        fork = cache.fork()
        keys, values = filled(fork, 10 + n, 3)
        assert keys[0, 0, :, 0].tolist() == [1.0] * 64 + [10.0 + n] * 3
        assert torch.equal(values, -keys)
        fork.give_back()
        places.add(keys.data_ptr())
        assert cache.layers[0].keys[0, 0, :, 0].tolist() == [1.0] * 64
        assert cache.layers[0].keys.data_ptr() == keys.data_ptr()
    assert len(places) == 1


@torch.no_grad()
def test_room_is_lent_to_one_at_a_time():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    filled(cache, 1, 64)
    for _ in range(2):
        forks = [cache.fork() for _ in range(3)]
        for step in range(3):
            for n, fork in enumerate(forks):
                keys, _ = filled(fork, 10 * n + step, 1)
                assert keys[0, 0, 64:, 0].tolist() == [10.0 * n + s for s in range(step + 1)]
        for fork in forks:
            fork.give_back()
        assert len(cache.layers[0]._idle) == 1


@torch.no_grad()
def test_room_of_other_columns_or_far_too_large_is_not_lent():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    filled(cache, 1, 64)
    fork = cache.fork()
    filled(fork, 2, 40)
    fork.give_back()
    assert cache.layers[0]._idle == []  # a many regions' room would be kept beside each image
    late = cache.fork()
    filled(late, 3, 2)
    filled(cache, 4, 1)  # the cache goes on by itself
    late.give_back()
    assert cache.layers[0]._idle == []


@torch.no_grad()
def test_room_that_is_too_small_or_out_of_date_is_not_taken():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    filled(cache, 1, 64)
    first = cache.fork()
    filled(first, 2, 1)
    first.give_back()
    assert filled(cache.fork(), 3, 30)[0][0, 0, 64:, 0].tolist() == [3.0] * 30
    assert len(cache.layers[0]._idle) == 1  # which those who need little still find
    filled(cache, 4, 1)
    assert filled(cache.fork(), 5, 1)[0][0, 0, 64:, 0].tolist() == [4, 5]


def test_while_gradients_are_kept_nothing_is_written_over():
    cache = RowCache(AutoConfig.for_model("llama", **TINY))
    parts = [torch.ones(1, 1, n, 4, requires_grad=True) for n in (64, 2, 2)]
    for part in parts:
        keys, values = cache.update(part * 2, part * 3, 0)
        (keys * values).sum().backward(retain_graph=True)
    assert [p.grad[0, 0, 0, 0].item() for p in parts] == [36, 24, 12]
