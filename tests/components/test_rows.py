"""What a token of a packed row looks at: told token by token here, in tables, pieces and blocks there."""

import pytest
import torch

from components import rows as module
from components.rows import Rows

WINDOW = 6


def causal(image, head, row, column):
    return column <= row


def window(image, head, row, column):
    return (column <= row) & (column > row - WINDOW)


RULES = {"causal": (causal, torch.inf), "window": (window, WINDOW)}


def layout(prefix, *images):
    """Rows of `prefix` tokens and branches of the lengths given for each image, padded; -1 as a length is a column of padding."""
    made = []
    for lengths in images:
        branch, positions = [0] * prefix, list(range(prefix))
        for number, length in enumerate(lengths, 1):
            branch += [number] * length
            positions += range(prefix, prefix + length)
        made.append((branch, positions))
    longest = max(len(branch) for branch, _ in made)
    branch = torch.tensor([b + [-1] * (longest - len(b)) for b, _ in made])
    return branch, torch.tensor([p + [0] * (longest - len(p)) for _, p in made])


LAYOUTS = {
    "one image": layout(9, (3, 4, 1, 5)),
    "images that differ": layout(9, (3, 4, 1, 5), (5, 2), (12,)),
    "no prefix": layout(0, (3, 4)),
    "no branch": layout(9, ()),
    "an image without questions": layout(5, (), (3, 3)),
}


def told(rows, rule):
    """(B, T, S) by the words of the contract."""
    count, length = rows.branch.shape
    table = torch.zeros(count, rows.new, length, dtype=torch.bool)
    for b in range(count):
        for i in range(length - rows.new, length):
            for j in range(length):
                own, other = int(rows.branch[b, i]), int(rows.branch[b, j])
                p, q = rows.positions[b, i], rows.positions[b, j]
                allowed = own != -1 and other in (0, own) and bool(rule(None, None, p, q))
                table[b, i - (length - rows.new), j] = allowed or i == j
    return table


@pytest.fixture(params=LAYOUTS)
def branch_and_positions(request):
    return LAYOUTS[request.param]


@pytest.fixture(params=RULES)
def rule(request):
    return RULES[request.param]


def cases(branch, positions):
    """Everything read at once, and only what stands behind some columns read before."""
    length = branch.shape[1]
    return [Rows(branch, positions, length - known) for known in (0, 3, min(9, length - 1), length - 1)]


def test_table(branch_and_positions, rule):
    for rows in cases(*branch_and_positions):
        assert torch.equal(rows.table(rule[0])[:, 0], told(rows, rule[0]))


@pytest.mark.parametrize("size", [2, 4, 512])
def test_pieces_are_the_table(branch_and_positions, rule, size, monkeypatch):
    monkeypatch.setattr(module, "PIECE", size)
    for rows in cases(*branch_and_positions):
        found = rows.pieces(rule[0], torch.float32, rule[1])
        assert sum(found.stretches) == rows.length
        assert sum(piece.length for piece in found.pieces) == rows.new
        edges = torch.tensor([0, *found.stretches]).cumsum(0).tolist()
        table, at = torch.zeros(len(rows.branch), rows.new, rows.length, dtype=torch.bool), 0
        for piece in found.pieces:
            columns = torch.cat([torch.arange(edges[i], edges[i + 1]) for i in piece.sources])
            if piece.mask is None:
                seen = torch.ones(piece.length, len(columns), dtype=torch.bool).tril()
            else:
                assert piece.mask.shape == (len(rows.branch), 1, piece.length, len(columns))
                assert piece.mask.stride(-2) % 16 == 0
                seen = piece.mask[:, 0] == 0
                assert torch.equal(piece.mask[:, 0] == -torch.inf, ~seen)
            table[:, at : at + piece.length][..., columns] = seen
            at += piece.length
        assert torch.equal(table, told(rows, rule[0]))


def test_a_piece_is_not_shown_other_branches(monkeypatch):
    """Where branches begin together, only the prefix and the piece's own columns are attended to."""
    monkeypatch.setattr(module, "PIECE", 4)
    found = Rows(*layout(9, (2,) * 6, (2,) * 6), 21).pieces(causal, torch.float32, torch.inf)
    assert found.stretches == (9, 4, 4, 4)
    assert [piece.sources for piece in found.pieces] == [(0,), (0, 1), (0, 2), (0, 3)]
    assert found.pieces[0].mask is None


@pytest.mark.parametrize("lengths", [((40, 100, 30), (150,)), ((3,), ())])
@pytest.mark.parametrize("known", [0, 100, 130])
def test_blocks_are_the_table(rule, lengths, known):
    branch, positions = layout(140, *lengths)
    rows = Rows(branch, positions, branch.shape[1] - known)
    found, table = rows.blocks(rule[0]), rows.table(rule[0])[:, 0]
    b, i, j = torch.meshgrid(*(torch.arange(n) for n in table.shape), indexing="ij")
    assert torch.equal(found.mask_mod(b, torch.zeros_like(b), i, j), table)
    assert found.shape == (len(branch), 1, rows.new, rows.length)
    height, width = -(-rows.new // 128), -(-rows.length // 128)
    padded = torch.zeros(len(branch), height * 128, width * 128, dtype=torch.bool)
    padded[:, : rows.new, : rows.length] = table
    blocks = padded.unflatten(2, (width, 128)).unflatten(1, (height, 128)).transpose(2, 3)  # (B, height, width, 128, 128)
    for counts, indices, wanted in (
        (found.kv_num_blocks, found.kv_indices, blocks.any(-1).any(-1) & ~blocks.all(-1).all(-1)),
        (found.full_kv_num_blocks, found.full_kv_indices, blocks.all(-1).all(-1)),
    ):
        listed = torch.zeros_like(wanted)
        for image, row in torch.cartesian_prod(torch.arange(len(branch)), torch.arange(height)).tolist():
            listed[image, row, indices[image, 0, row, : counts[image, 0, row]].long()] = True
        assert torch.equal(listed, wanted)
