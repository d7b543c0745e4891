"""The paper's ablations are one line each: the commands of docs/variants.md, and what they change."""

import re
import shlex

import pytest
import torch

from components.scorers.base import SCORERS
from configs.benchmarks import benchmarks, find_benchmark
from configs.schema import load_config
from tests.components.scorers.samples import labelled
from tests.conftest import ROOT
from tests.test_docs import fenced

COMMANDS = {
    shlex.split(line)[3].removeprefix("name="): shlex.split(line)[2:]
    for block in fenced((ROOT / "docs" / "variants.md").read_text(), "bash")
    for line in block.splitlines()
    if " name=without_" in line
}
SMALL = {"seagull_7b_stage1": "seagull_tiny_stage1", "seagull_7b_stage2": "seagull_tiny_stage2"}


def config_of(name, small=True):
    experiment, *overrides = COMMANDS[name]
    if not small:
        return load_config(experiment, overrides)
    alone = ["model.region_extractor.geometry=false"] if name == "without_global" else []  # the published extractor has none
    return load_config(SMALL[experiment], [*overrides, *alone])


def step(config):
    """A training step of the configuration's model, on a small random batch: the scorer, its losses, and what has a gradient."""
    torch.manual_seed(0)
    scorer = SCORERS.build(config.model).train()
    losses = scorer.loss(labelled(scorer))
    losses["loss"].backward()
    return scorer, losses, {name for name, p in scorer.named_parameters() if p.grad is not None}


def test_all_four_are_told():
    assert set(COMMANDS) == {"without_local", "without_global", "without_pretraining", "without_judgments"}
    assert all(len(config) == 3 for config in COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_they_differ_from_the_published_stages_in_one_thing(name):
    experiment = COMMANDS[name][0]
    one, other = vars(load_config(experiment)), vars(config_of(name, small=False))
    assert len([key for key in one if one[key] != other[key] and key != "name"]) == 1


@pytest.mark.parametrize(("name", "gone", "left"), [("without_local", "local", "global"), ("without_global", "global", "local")])
def test_without_a_token_a_region_has_the_other(name, gone, left):
    scorer, losses, moved = step(config_of(name))
    assert scorer.tokens == 1
    assert not any(f"region_extractor.{gone}_token" in key for key in moved)
    assert any(f"region_extractor.{left}_token" in key for key in moved)
    assert torch.isfinite(losses["loss"])


def test_without_judgments_none_is_asked():
    assert "judgment" in step(load_config("seagull_tiny_stage1"))[1]
    assert "judgment" not in step(config_of("without_judgments"))[1]


def test_without_pretraining_the_second_stage_begins_anew():
    assert load_config("seagull_tiny_stage2").start_from
    assert config_of("without_pretraining").start_from == ""


def test_the_page_names_the_benchmarks_variants():
    text = (ROOT / "docs" / "variants.md").read_text()
    for name in benchmarks():
        listed = find_benchmark(name).read_text()
        variants = re.findall(r"\{name: (\w+)", listed)
        assert [v for v in variants if f"`{v}`" not in text] == []
