"""A third of the swap matrix, chosen by a fixed seed, and what is refused; the whole is one command away, and its page is current."""

import importlib.util
import re

import pytest
import torch

from components.llm_adapters.base import LLM_ADAPTERS
from components.llm_adapters.tiny_causal import TinyCausal
from components.vision_encoders.base import VISION_ENCODERS
from tests.conftest import ROOT

spec = importlib.util.spec_from_file_location("swap_matrix", ROOT / "benchmarks" / "swap_matrix.py")
matrix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(matrix)
CHOSEN = matrix.third(0)


@pytest.fixture(scope="module")
def documented():
    """What the page in the docs says: each cell's fault, and the seconds that all of it took."""
    text = (ROOT / "docs" / "swap_matrix.md").read_text()
    seconds = int(re.search(r"It took (\d+) s", text)[1])
    found = dict.fromkeys(matrix.cells(), "")
    told = re.search(r"## What does not\n\n(.*?)\n\n##", text, re.DOTALL)[1]
    return found | {
        tuple(cell.split(" x ")): fault for cell, fault in re.findall(r"^- (.+? x .+? x \w+): (.+)$", told, re.MULTILINE)
    }, seconds


def test_a_third_of_it_does_what_the_page_says(documented):
    assert dict(matrix.run(CHOSEN)) == {cell: documented[0][cell] for cell in CHOSEN}


def test_the_page_is_current(documented):
    """Parts, wording, table and refusals are what `python benchmarks/swap_matrix.py` would write of the cells' faults."""
    assert (ROOT / "docs" / "swap_matrix.md").read_text() == matrix.page(*documented)


def test_the_third_knows_every_part():
    for axis, parts in enumerate((matrix.encoders(), matrix.llms(), matrix.ADAPTATIONS)):
        assert {cell[axis] for cell in CHOSEN} == set(parts)
    assert len(CHOSEN) == len(matrix.cells()) // 3
    assert matrix.third(1) != CHOSEN


def test_every_encoder_and_every_adapter_is_in_it():
    assert {node["plugin"] for node in matrix.encoders().values()} == set(VISION_ENCODERS.names())
    assert {node["plugin"] for node in matrix.llms().values()} == set(LLM_ADAPTERS.names())
    assert {"Llama", "Qwen2", "Qwen3", "Mistral", "Phi-3", "Gemma"} < set(matrix.llms())


def test_what_an_adapter_does_not_offer_is_listed_with_the_reason(monkeypatch):
    """One without the option is trained as it is."""

    class Plain(TinyCausal):
        def __init__(self, *, width: int = 32, layers: int = 2) -> None:
            super().__init__(width=width, layers=layers, mlp=48)

        @classmethod
        def tiny(cls):
            return {"layers": 1}

    names, get = LLM_ADAPTERS.names(), LLM_ADAPTERS.get
    monkeypatch.setattr(LLM_ADAPTERS, "names", lambda: [*names, "plain"])
    monkeypatch.setattr(LLM_ADAPTERS, "get", lambda name, where="": Plain if name == "plain" else get(name, where))
    assert matrix.offered("`plain`") == ("full",)
    cells = [cell for cell in matrix.cells() if cell[1] == "`plain`"]
    assert {cell[2] for cell in cells} == {"full"}
    assert dict(matrix.run(cells[:1])) == {cells[0]: ""}
    page = matrix.page(dict.fromkeys(matrix.cells(), ""), 1)
    assert "- `plain` x lora: it has no such option" in page
    assert "all four | full |" in page


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
    found = dict.fromkeys(matrix.cells(), "")
    assert "None of the pairs above failed" in matrix.page(found, 1)
    found["Swin", "Gemma", "qlora"] = "the loss is nan"
    page = matrix.page(found, 1)
    assert "- Swin x Gemma x qlora: the loss is nan" in page
    assert "frozen, full, lora |" in page
    assert "Every adapter of the registry offers all four ways" in page
