"""The engine against the loop: each question about each region asked alone, of every readout and every family of language models; and
what a thousand regions take."""

import json
import subprocess
import sys

import pytest
import torch

from components.readouts.base import READOUTS
from components.registry import ConfigError
from components.scorers.base import SCORERS
from components.tasks import TASKS
from inference.engine import Engine
from tests.components.llm_adapters.test_hf_causal import FAMILIES
from tests.components.scorers.samples import apart, scene, sensitive
from tests.inference.test_engine import CLOSE, close

BRIEF = {"conversation": "brief"}


def built(**changes):
    torch.manual_seed(1)
    return sensitive(SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny(), **changes}).eval())


def check(scorer, pick=min):
    image, masks = scene(3)
    engine = Engine(scorer, memory=scorer.answer_bytes(image.shape[-2:], 2) / 2**20)  # two regions at once
    loop = [{task: scorer.score(image, mask[None], (task,))[0][task] for task in scorer.tasks} for mask in masks]
    assert apart(loop, pick) > 10 * CLOSE
    close(engine.score(image, masks), loop)
    return loop


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name):
    options = FAMILIES[name]
    config = {**options["config"], "vocab_size": 768}
    positions = "n_positions" if config["model_type"] == "gpt2" else "max_position_embeddings"
    check(built(llm={"plugin": "hf_causal", **options, "config": {**config, positions: 512}, "tokenizer": "project"}, **BRIEF))


@pytest.mark.parametrize("name", READOUTS.names())
def test_every_readout(name):
    node = {"plugin": name, **READOUTS.get(name).tiny()}
    serves = {}
    for task in TASKS:
        try:
            built(readouts={task: node})
        except (ConfigError, ValueError):
            continue
        serves[task] = node
    assert serves, f"the readout {name} serves no task"
    loop = check(built(readouts=serves), max if name == "text" else min)  # words alone are few: some regions share theirs
    assert set(loop[0]) == set(serves)


MEASURE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from components.scorers.base import SCORERS
from inference.engine import Engine
def peak():  # KiB of this process alone: ru_maxrss begins with that of whoever started it
    return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
torch.manual_seed(0)
torch.set_num_threads(1)
node, asks = json.loads(sys.argv[1])
scorer = SCORERS.build({**SCORERS.get(node["plugin"]).tiny(), **node}).eval()
engine, image = Engine(scorer), np.zeros((600, 800, 3), np.uint8)
looked = engine.look(image)
engine.score(looked, [(5, 5, 150, 60)])
before, told = peak(), []
for memory, count in asks:
    engine.memory = memory
    boxes = [(5 + n % 40 * 15, 5 + n // 40 * 20, 150, 60) for n in range(count)]
    asked = [sorted(answers) for answers in engine.score(looked, boxes)]
    told.append({"asked": asked, "grown": (peak() - before) / 1024, "at_once": engine.at_once(image.shape[:2])})
print(json.dumps(told))
"""


def measured(root, node, bounded, free, tasks=TASKS):
    """Asks a model all its `tasks` about regions, for two pairs of a budget in MiB and a number of regions, in one process.

    Returns:
        For each pair, MiB beyond what a first region took, and how many regions were asked about at once. What is taken is the most until
        then, so that the smaller budget comes first.
    """
    asked = [sys.executable, "-c", MEASURE, json.dumps([node, [bounded, free]])]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert [found["asked"] for found in told] == [[sorted(tasks)] * count for _, count in (bounded, free)]
    return [(found["grown"], found["at_once"]) for found in told]


@pytest.mark.parametrize(("name", "fewer"), [("roi_vlm", 150), ("pooled_mlp", 700)])
def test_a_thousand_regions_stay_within_the_budget(name, fewer, root):
    """All questions, so that distortions are decoded word by word, too. The budget is 32 MiB, after a first region has taken what a first
    use takes; fewer regions, asked about all at once, take more."""
    (grown, at_once), (free, every) = measured(root, {"plugin": name}, (32, 1000), (4096, fewer))
    assert every >= fewer > at_once
    assert grown < 32 < free


def test_what_a_language_model_reads_is_within_the_budget(root):
    """A wide model whose tokens, not whose masks, take the room: what it reads at once is bounded by the budget alone."""
    llm = {"plugin": "tiny_causal", "width": 512, "layers": 6, "heads": 8, "mlp": 2048}
    node = {"plugin": "roi_vlm", "llm": llm, "max_branches": 10_000, "readouts": {t: {"plugin": "levels"} for t in TASKS[:2]}}
    (grown, at_once), (free, every) = measured(root, node, (64, 120), (4096, 120), TASKS[:2])
    assert every >= 120 > at_once
    assert grown < 64 < free


@pytest.mark.parametrize("extractor", [{"plugin": "crop", "encoder": "shared", "crop_size": 128}, {"plugin": "drawn_box", "size": 128}])
def test_what_the_images_encoder_makes_of_crops_is_within_the_budget(extractor, root):
    """So many of them that it sees them in groups, and with room for all, too."""
    node = {"plugin": "roi_vlm", "region_extractor": extractor, "readouts": {t: {"plugin": "levels"} for t in TASKS[:2]}}
    (grown, at_once), (free, every) = measured(root, node, (64, 120), (4096, 60), TASKS[:2])
    assert every >= 60 > at_once
    assert grown < 64 < free
