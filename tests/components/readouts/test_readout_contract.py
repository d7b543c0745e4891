"""What every readout promises; finds every readout by itself."""

import pytest
import torch

from components.llm_adapters.base import LLM_ADAPTERS
from components.prompts import Dialogue
from components.reading import Prefixes, converse
from components.readouts.base import READOUTS, Label
from components.tasks import TASKS

KNOWN = {"quality": Label(0.7, 0.1), "importance": Label(0.2), "distortion": Label(distortions=(("blur", "minor"),))}
REGIONS = 3


@pytest.fixture(scope="module")
def llm():
    torch.manual_seed(0)
    name = "tiny_causal"
    return LLM_ADAPTERS.build({"plugin": name, **LLM_ADAPTERS.get(name).tiny()}).eval()


@pytest.fixture(params=READOUTS.names())
def readout(request, llm):
    torch.manual_seed(0)
    return READOUTS.build({"plugin": request.param, **READOUTS.get(request.param).tiny()}, Dialogue(llm.tokenizer), llm.width)


def ask(llm, readout, task, rows):
    """`REGIONS` regions, of which `rows` are asked together, over a prefix of four tokens."""
    torch.manual_seed(1)
    prefix, regions = torch.randn(1, 4, llm.width), torch.randn(REGIONS, 2, llm.width)
    cache = llm.new_cache()
    with torch.no_grad():
        llm(prefix, torch.arange(4)[None], cache=cache)
        words = llm.embed(torch.tensor(readout.dialogue.questions[task][1:]))
        if readout.token is not None:
            words = torch.cat([words, readout.token[None]])
    questions = [torch.cat([regions[row], words]) for row in rows]
    talks = [readout.talk(task) for _ in rows]
    return converse(llm, Prefixes(cache, 4, 1), questions, [0] * len(rows), talks, readout.dialogue)


def test_serves_its_tasks_and_refuses_others(readout):
    assert set(readout.tasks) <= set(TASKS)
    for task in TASKS:
        if task in readout.tasks:
            readout.check(task)
        else:
            with pytest.raises(ValueError, match=task):
                readout.check(task)


def test_targets_are_ids_that_end_or_a_number(readout, llm):
    for task in readout.tasks:
        target = readout.target(task, KNOWN[task])
        if target.value is not None:
            assert (target.ids, target.value) == ((), KNOWN[task].value)
            assert readout.token.shape == (llm.width,)
            continue
        assert target.ids[-1] == readout.dialogue.eos
        assert all(0 <= i < len(readout.dialogue.tokenizer) for i in target.ids)
        if target.soft_at is not None:
            assert target.ids[target.soft_at] in target.soft_ids
            assert sum(target.soft_probabilities) == pytest.approx(1)


def test_unknown_labels_teach_nothing(readout):
    assert all(readout.target(task, Label()) is None for task in readout.tasks)


@torch.no_grad()
def test_batched_equals_single(readout, llm):
    for task in readout.tasks:
        together = ask(llm, readout, task, list(range(REGIONS)))
        assert len(together) == REGIONS
        for r, score in enumerate(together):
            (alone,) = ask(llm, readout, task, [r])
            assert alone.text == score.text
            assert (alone.value is None) == (score.value is None)
            if score.value is not None:
                assert alone.value == pytest.approx(score.value, abs=1e-5)
                assert 0 <= score.value <= 1
                assert score.std is None or alone.std == pytest.approx(score.std, abs=1e-5)


def test_state_dict_round_trip_and_meta_device(readout, llm):
    name = type(readout).__module__.rpartition(".")[2]
    other = READOUTS.build({"plugin": name, **READOUTS.get(name).tiny()}, readout.dialogue, llm.width)
    other.load_state_dict(readout.state_dict())
    with torch.device("meta"):
        meta = READOUTS.build({"plugin": name, **READOUTS.get(name).tiny()}, readout.dialogue, llm.width)
    assert all(p.is_meta for p in meta.parameters())


@torch.no_grad()
def test_scores_carry_no_gradient(readout, llm):
    for task in readout.tasks:
        for score in ask(llm, readout, task, [0]):
            assert score.value is None or isinstance(score.value, float)
