"""The paper's ablations are one line each: the commands of docs/variants.md, and what they change."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from components.batch import Labels
from components.preprocess import prepare_image, prepare_regions, stack
from components.scorers.base import SCORERS
from configs.benchmarks import benchmarks, find_benchmark, load_benchmark
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


COSTS = re.findall(
    r"^\| `(\w+)` \| ([\d,]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", (ROOT / "docs" / "variants.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("name", "parameters", "tokens", "gmacs", "behind"), COSTS)
def test_the_page_says_what_variants_cost(name, parameters, tokens, gmacs, behind):
    """Of an image with six regions, each of which is asked about three times."""
    config = load_benchmark(find_benchmark("benchmark_quickstart"))[1][name]
    scorer = SCORERS.build(config.model).eval()
    image, masks = torch.zeros(3, 256, 256, dtype=torch.uint8), torch.zeros(6, 256, 256, dtype=torch.bool)
    masks[:, 40:120, 60:150] = True
    batch = stack([prepare_image(image, scorer.preprocess)], [prepare_regions(image, masks, scorer.preprocess, scorer.crop_size)])
    known = torch.full((1, 6), 0.5)
    batch = replace(batch, labels=Labels(known, known, known, known, (((("blur", "minor"),),) * 6,)), ids=(tuple("abcdef"),))
    counts = []
    for compute in (lambda: scorer.loss(batch), lambda: scorer.see(batch.images)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            compute()
        counts.append(counter.get_total_flops() / 2e9)
    assert sum(p.numel() for p in scorer.parameters() if p.requires_grad) == int(parameters.replace(",", ""))
    assert scorer.packed_lengths(batch)["row"] == int(tokens)
    assert [counts[0], counts[0] - counts[1]] == pytest.approx([float(gmacs), float(behind)], abs=0.0006)


def test_the_costs_of_four_are_told():
    assert [cost[0] for cost in COSTS] == ["mfe", "mfe_geometry", "mask_pool", "roi_replay_geometry"]


def test_the_page_names_the_benchmarks_variants():
    text = (ROOT / "docs" / "variants.md").read_text()
    for name in benchmarks():
        listed = find_benchmark(name).read_text()
        variants = re.findall(r"\{name: (\w+)", listed)
        assert [v for v in variants if f"`{v}`" not in text] == []
