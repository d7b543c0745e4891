"""A plan in words: what is said, and which changes are proposed in which order."""

import dataclasses

import pytest

from lightning_modules.fit import CARDS, Remedy, cards, changes, exhausted, remedies, told, usable, verdict
from lightning_modules.plan import GIB, Peak, Plan

LLM = {"plugin": "hf_causal", "adaptation": "full", "lora_rank": 128}
CONFIG = {"trainer": {"precision": "32-true", "batch_size": 4, "accumulate": 2}, "model": {"llm": LLM}, "data": {"regions": 6}}
CONFIG |= {"optim": {"optimizer": "adamw"}}


def plan_of(gib):
    peak = Peak(int(gib * GIB), 0, 0, {"llm": 0, "head": GIB // 4}, 0, context=0)
    small = Peak(GIB, 0, 0, {}, 0, context=0)
    return Plan({"llm": (7, 3), "head": (2, 2)}, {"llm": GIB, "head": 0}, GIB, peak, small, {"prefix": 1109, "quality": 20, "row": 1200})


def test_changes_come_least_harm_first():
    found = [" ".join(overrides) for overrides, _ in changes(CONFIG)]
    assert found == [
        "trainer.precision=bf16-mixed",
        "model.llm.gradient_checkpointing=true",
        "trainer.batch_size=1 trainer.accumulate=8",
        "optim.optimizer=adamw_8bit",
        "model.llm.adaptation=lora",
        "model.llm.adaptation=qlora",
        "data.regions=3",
        "model.llm.lora_rank=16",
    ]
    least = {"trainer": {"precision": "bf16-mixed", "batch_size": 1}, "model": {}, "data": {}, "optim": {"optimizer": "adamw_8bit"}}
    assert list(changes(least)) == []


def test_what_is_so_already_is_not_proposed():
    llm = {"plugin": "hf_causal", "adaptation": "qlora", "dtype": "bfloat16", "gradient_checkpointing": True, "lora_rank": 8}
    tight = {"trainer": {"precision": "bf16-mixed", "batch_size": 1}, "model": {"llm": llm}, "data": {"regions": 2}}
    tight |= {"optim": {"optimizer": "paged_adamw_8bit"}}
    assert list(changes(tight)) == []


def test_remedies_add_up_until_it_fits_and_leave_out_what_is_of_no_use():
    sizes = {1: 30.0, 2: 29.95, 3: 20.0, 4: 19.0}
    asked = []

    def replan(overrides):
        asked.append(overrides)
        return plan_of(sizes[len(asked)])

    found = remedies(CONFIG, replan, int(40 * GIB), int(20.5 * GIB))
    assert [r.overrides for r in found] == [("trainer.precision=bf16-mixed",), ("trainer.batch_size=1", "trainer.accumulate=8")]
    assert asked[2] == ("trainer.precision=bf16-mixed", "trainer.batch_size=1", "trainer.accumulate=8")
    assert len(asked) == 3


def test_the_text_holds_the_numbers():
    text = told(plan_of(2), " (so)")
    assert "tokens: prefix 1,109, quality 20; the longest row 1,200 (so)" in text
    rows = {line[:44].strip(): line[44:].split() for line in text.splitlines()}
    assert rows["weights"] == ["2.00", "1.00"]
    assert rows["activations: other parts"] == ["0.25", "0.00"]
    assert rows["GPU memory"] == ["2.25", "1.00"]
    assert "gradients" not in rows  # nothing to say
    assert "vision encoder" not in text
    assert "vision encoder: 1 level\ncheckpoint: " in told(dataclasses.replace(plan_of(2), levels="1 level"))


@pytest.mark.parametrize(
    ("gpu", "tried", "message"),
    [
        (24, [], "fits a card of 24 GB (22 GiB usable): 19.75 GiB are left"),
        (2, [Remedy(("a=1",), "why", GIB)], "so this fits: python train.py x a=1"),
        (1.5, [Remedy(("a=1",), "why", 2 * GIB)], "the least found is 2.00 GiB: take a smaller model or a larger card"),
        (0.5, [Remedy(("a=1",), "why", GIB)], "the least found is 1.00 GiB: take a smaller model or a larger card"),
    ],
)
def test_the_verdict(gpu, tried, message):
    assert message in verdict(plan_of(2), gpu, tried, "python train.py x")


def test_a_card_of_24_gb_has_22_gib():
    """As PyTorch finds them on an L4; `plan_of` adds a quarter."""
    assert "24 GB yes" in cards(plan_of(21.7))
    assert "24 GB no" in cards(plan_of(21.8))
    assert "fits a card of 24 GB (22 GiB usable): 0.05 GiB are left" in verdict(plan_of(21.7), 24, [], "")
    assert "does not fit a card of 24 GB (22 GiB usable): 0.05 GiB are missing" in verdict(plan_of(21.8), 24, [], "")
    assert usable(23.5) == 23.5
    assert all(f"{size} GB" in cards(plan_of(1)) for size in CARDS)


SMALLER = [Remedy(("a=1",), "why", 20 * GIB), Remedy(("b=2", "c=3"), "because", 18 * GIB)]


@pytest.mark.parametrize(
    ("planned", "tried", "card", "messages"),
    [
        (25, SMALLER, 24, ["the GPU of 24.0 GiB has no memory left at step 7, with 33 regions an image. Planned were 25.25 GiB."]),
        (25, SMALLER, 24, ["a=1    ", "-5.25 GiB -> 20.00  (why)", "b=2 c=3 ", "-2.00 GiB -> 18.00  (because)"]),
        (25, SMALLER, 24, ["so add these to the command: a=1 b=2 c=3"]),
        (25, SMALLER[:1], 18, ["that may not be enough; all of them: a=1"]),
        (22, SMALLER, 24, ["That should have fitted: another program may hold a share of the card"]),
        (25, SMALLER, None, ["the GPU has no memory left at step 7"]),
        (25, [], 24, ["Nothing was found that needs less: take a smaller model or a larger card."]),
    ],
)
def test_what_is_said_when_memory_has_run_out(planned, tried, card, messages):
    size = None if card is None else card * GIB
    said = exhausted(plan_of(planned), tried, 7, 33, size, size or 24 * GIB)
    assert all(message in said for message in messages)
    assert ("another program" in said) == (planned < 25)
