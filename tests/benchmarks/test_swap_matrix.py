"""A third of the swap matrix, chosen by a fixed seed, and what is refused; the whole is one command away."""

import importlib.util
import itertools

import pytest
import torch

from components.vision_encoders.base import VISION_ENCODERS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("swap_matrix", ROOT / "benchmarks" / "swap_matrix.py")
matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matrix)
CHOSEN = matrix.third(0)


def test_a_third_of_it_works():
    assert [(*cell, told) for cell, told in matrix.run(CHOSEN) if told] == []


def test_the_third_knows_every_part():
    for axis, parts in enumerate((matrix.encoders(), matrix.FAMILIES, matrix.ADAPTATIONS)):
        assert {cell[axis] for cell in CHOSEN} == set(parts)
    assert len(CHOSEN) == len(matrix.cells()) // 3
    assert matrix.third(1) != CHOSEN


def test_every_encoder_is_in_it():
    assert {node["plugin"] for node in matrix.encoders().values()} == set(VISION_ENCODERS.names())


@pytest.mark.parametrize("name", matrix.REFUSED)
def test_what_is_refused_is_refused_with_a_reason(name):
    assert len(matrix.refusal(matrix.REFUSED[name])) > 20


def test_a_pair_that_should_be_refused_and_is_not_is_told():
    with pytest.raises(AssertionError, match="is not refused"):
        matrix.refusal({})


def test_faults_are_found(monkeypatch):
    """A part that learns nothing, scores that are none, and an error are cells that failed."""
    scorer = matrix.Parts().scorer("ResNet", "Llama", "full")
    with monkeypatch.context() as change:
        change.setattr(matrix.torch.optim.AdamW, "step", lambda self: None)
        assert matrix.fault(scorer) == "vision_encoder has learned nothing"
    with monkeypatch.context() as change:
        change.setattr(scorer, "score_batch", lambda batch, tasks: [[]])
        assert matrix.fault(scorer) == "the scores are []"
    with monkeypatch.context() as change:
        change.setattr(scorer, "loss", lambda batch: {"loss": next(scorer.parameters()).sum() * torch.nan})
        assert matrix.fault(scorer) == "the loss is nan"
    with monkeypatch.context() as change:
        change.setattr(matrix.Parts, "scorer", lambda self, *cell: 1 / 0)
        assert [told for _, told in matrix.run(CHOSEN[:1])] == ["ZeroDivisionError: division by zero"]


def test_frozen_weights_that_move_are_found(monkeypatch):
    scorer = matrix.Parts().scorer("ResNet", "Llama", "lora")
    frozen = next(p for p in scorer.llm.parameters() if not p.requires_grad)
    step = torch.optim.AdamW.step

    def nudge(self):
        step(self)
        frozen.data.add_(1e-3)

    monkeypatch.setattr(matrix.torch.optim.AdamW, "step", nudge)
    assert matrix.fault(scorer) == "frozen weights have moved"


@torch.no_grad()
def test_a_cell_begins_with_its_parts_as_they_were_made():
    """Parameters and running statistics; so the order of cells decides nothing."""
    parts = matrix.Parts()
    scorer = parts.scorer("ResNet", "Llama", "lora")
    made = {name: x.clone() for part in (scorer.vision_encoder, scorer.llm) for name, x in part.state_dict().items()}
    for x in (*scorer.vision_encoder.state_dict().values(), *(p for p in scorer.llm.parameters() if p.requires_grad)):
        x.add_(1)
    again = parts.scorer("ResNet", "Llama", "lora")
    assert again.llm is scorer.llm
    for part in (again.vision_encoder, again.llm):
        assert [name for name, x in part.state_dict().items() if not torch.equal(x, made[name])] == []


def test_what_is_refused_was_not_read(monkeypatch):
    monkeypatch.setattr(matrix.RoiVLM, "load_pretrained", lambda self: 1 / 0)
    assert len(matrix.refusal(matrix.REFUSED["QLoRA on int8"])) > 20


def test_the_page_tells_what_failed():
    found = dict.fromkeys(itertools.product(matrix.encoders(), matrix.FAMILIES, matrix.ADAPTATIONS), "")
    assert "None of the pairs above failed" in matrix.page(found, 1)
    found["Swin", "Gemma", "qlora"] = "the loss is nan"
    page = matrix.page(found, 1)
    assert "- Swin x Gemma x qlora: the loss is nan" in page
    assert "frozen, full, lora |" in page


def test_the_page_in_the_docs_is_of_the_same_parts():
    text = (ROOT / "docs" / "swap_matrix.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == list(matrix.encoders())
    assert all(f" {family} |" in text for family in matrix.FAMILIES)
