"""The attention of MobileIQA: closed forms, and against loops that were written from the published description."""

import math

import pytest
import torch
from torch import nn

from components.view_attention import MultiViewAttention, SpatialAttention, TokenAttention

N, VIEWS, C, G = 2, 3, 8, 4
P = G * G


@pytest.fixture(params=[False, True], ids=["published", "corrected"])
def block(request):
    torch.manual_seed(0)
    made = MultiViewAttention(C, G, VIEWS, 0.1, request.param).double().eval()
    for attend in made.spatial:
        nn.init.constant_(attend.gamma, 0.37)
    return made


def softmax(row):
    powers = [math.exp(x - max(row)) for x in row]
    return [p / sum(powers) for p in powers]


def looped_map(linear, x):
    """A vector through a 1 x 1 convolution."""
    rows = zip(linear.weight.flatten(1).tolist(), linear.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(row, x, strict=True)) + bias for row, bias in rows]


def looped_spatial(part, x):
    """One map (C, P), position by position."""
    query, key, value = ([looped_map(m, x[:, p].tolist()) for p in range(P)] for m in (part.query, part.key, part.value))
    out = x.clone()
    for p in range(P):
        share = softmax([sum(a * b for a, b in zip(query[p], key[q], strict=True)) for q in range(P)])
        for c in range(C):
            out[c, p] += float(part.gamma) * sum(share[q] * value[q][c] for q in range(P))
    return out


def looped_tokens(part, tokens, corrected):
    """Tokens (T, D), one after the other."""
    count, width = tokens.shape
    query, key, value = (torch.stack([m.weight @ token + m.bias for token in tokens]) for m in (part.query, part.key, part.value))
    mixed = torch.zeros_like(tokens)
    for t in range(count):
        share = softmax([float(query[t] @ key[s]) / math.sqrt(width) for s in range(count)])
        mixed[t] = sum(share[s] * value[s] for s in range(count))
    if corrected:
        return tokens + mixed
    flat = [mixed[t, d] for d in range(width) for t in range(count)]  # the transpose, read row by row
    return tokens + torch.stack(flat).reshape(count, width)


def looped(block, views):
    """One picture's maps (n, C, G, G), in the words of the published description."""
    table = torch.cat(
        [looped_spatial(part, x.flatten(1)) for part, x in zip(block.spatial, views, strict=True)]
    )  # row = view * C + channel
    corrected = block.corrected
    rows = [torch.cat([table[v * C + c if corrected else VIEWS * c + v] for v in range(VIEWS)]) for c in range(C)]
    by_row = looped_tokens(block.rows, torch.stack(rows), corrected)
    by_position = looped_tokens(block.positions, table.T, corrected).T
    out = torch.zeros(C, P, dtype=views.dtype)
    for v in range(VIEWS):
        for c in range(C):
            row = v * C + c
            token, place = (c, v) if corrected else divmod(row, VIEWS)
            out[c] += (by_row[token, place * P : (place + 1) * P] + by_position[row]) / 2 / VIEWS
    return out.reshape(C, G, G)


def test_it_is_what_a_plain_loop_computes(block):
    views = torch.randn(N, VIEWS, C, G, G, dtype=torch.float64)
    with torch.no_grad():
        together = block(views)
        for picture, found in zip(views, together, strict=True):
            torch.testing.assert_close(found, looped(block, picture), rtol=1e-10, atol=1e-12)


def test_the_slips_change_the_result(block):
    views = torch.randn(N, VIEWS, C, G, G, dtype=torch.float64)
    other = MultiViewAttention(C, G, VIEWS, 0.1, not block.corrected).double().eval()
    other.load_state_dict(block.state_dict())
    with torch.no_grad():
        assert not torch.allclose(block(views), other(views))


def test_new_spatial_attention_is_the_identity():
    x = torch.randn(N, C, G, G)
    assert torch.equal(SpatialAttention(C)(x), x)


def test_positions_are_a_set_to_spatial_attention():
    """Permuting them permutes the result."""
    part = SpatialAttention(C).double()
    nn.init.constant_(part.gamma, 0.37)
    x, order = torch.randn(N, C, P, 1, dtype=torch.float64), torch.randperm(P)
    torch.testing.assert_close(part(x[:, :, order]), part(x)[:, :, order])


def test_equal_tokens_get_their_value_added():
    part = TokenAttention(6, 0.0, corrected=True)
    token = torch.randn(1, 1, 6)
    torch.testing.assert_close(part(token.expand(1, 5, 6)), (token + part.value(token)).expand(1, 5, 6))


def test_views_of_a_corrected_block_may_be_swapped_with_their_weights():
    """What the block does to a picture does not depend on how its views are numbered, once tokens are what they are said to be."""
    torch.manual_seed(0)
    block = MultiViewAttention(C, G, 2, 0.0, corrected=True).eval()
    swapped = MultiViewAttention(C, G, 2, 0.0, corrected=True).eval()
    state = block.state_dict()
    for name, x in list(state.items()):
        if name.startswith("spatial."):
            state[name] = block.state_dict()[name.replace(".0.", ".x.").replace(".1.", ".0.").replace(".x.", ".1.")]
        else:
            width = x.shape[-1] // 2
            halves = torch.cat([x[..., width:], x[..., :width]], -1)
            state[name] = torch.cat([halves[width:], halves[:width]]) if x.ndim == 2 else halves
    swapped.load_state_dict(state)
    views = torch.randn(N, 2, C, G, G)
    with torch.no_grad():
        torch.testing.assert_close(swapped(views.flip(1)), block(views), rtol=1e-4, atol=1e-5)


def test_too_few_channels_are_refused():
    with pytest.raises(ValueError, match="at least 8 channels, an eighth of which are compared; got 7"):
        SpatialAttention(7)
