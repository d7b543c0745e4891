"""Ranks that share a training do what one does alone, and take over from each other."""

import signal

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from components.checkpoints import read, write_shards
from inference.load import load
from lightning_modules.runs import Run
from lightning_modules.strategy import Sharded
from tests.lightning_modules.attempts import LORA, attempt, small

STEPS = ["trainer.steps=5", "trainer.val_every=5"]
FSDP = "trainer.strategy=fsdp"
ALONE, TOGETHER = "trainer.accumulate=2", "trainer.accumulate=1"  # two micro-batches in a step, of one rank or of two
NF4 = ["model.llm.plugin=hf_causal", "model.llm.tokenizer=project", "model.llm.lora_rank=4", "model.llm.adaptation=qlora"]
NF4 += [
    f"model.llm.config.{k}={v}"
    for k, v in {
        "model_type": "llama",
        "vocab_size": 768,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }.items()
]
FULL = [a.replace("=qlora", "=full") for a in NF4 if "lora_rank" not in a] + ["model.llm.gradient_checkpointing=true"]
PLAIN = ["model.llm.layers", "model.llm.width"]  # of the language model that NF4 replaces


def distance(one, other):
    """The largest difference between the weights, and between the optimizer's states, of two checkpoints."""
    a, b = (read(run.checkpoint) for run in (one, other))
    assert a["global_step"] == b["global_step"]
    assert a["state_dict"].keys() == b["state_dict"].keys()
    pairs = [(a["state_dict"][k], b["state_dict"][k]) for k in a["state_dict"]]
    first, second = (c["optimizer_states"][0]["state"] for c in (a, b))
    assert first.keys() == second.keys()
    pairs += [(first[i][k], second[i][k]) for i in first for k in first[i]]
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


def test_what_no_parameter_owns_is_read_in_its_own_precision(tmp_path, monkeypatch):
    """As a tensor of a part that this training does not have."""
    monkeypatch.setattr(Sharded, "_parameters", lambda self: {})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        weight = distribute_tensor(torch.ones(4, 2, dtype=torch.bfloat16), init_device_mesh("cpu", (1,)), [Shard(0)])
        write_shards(tmp_path / "last.ckpt", {"state_dict": {"w": weight}})
        found = Sharded(1).load_checkpoint(tmp_path / "last.ckpt")["state_dict"]["w"]
    finally:
        dist.destroy_process_group()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.ones(4, 2, dtype=torch.bfloat16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(folder):
    """One rank that accumulates two micro-batches."""
    assert attempt(small(folder, "alone", *STEPS, ALONE)) == [0]
    return Run(folder / "alone")


@pytest.fixture(scope="module")
def sharded(folder, alone):
    """Two ranks with half of every tensor each."""
    assert attempt(small(folder, "sharded", *STEPS, TOGETHER, FSDP), 2) == [0, 0]
    return Run(folder / "sharded")


def test_two_ranks_with_the_whole_model_equal_one(folder, alone):
    assert attempt(small(folder, "ddp", *STEPS, TOGETHER), 2) == [0, 0]
    assert distance(alone, Run(folder / "ddp")) < 1e-5
    one, other = (pd.read_csv(run.curves())["train/loss"].dropna() for run in (alone, Run(folder / "ddp")))
    assert one.tolist() == pytest.approx(other.tolist(), rel=1e-5)  # a step's mean over the answers of both


def test_two_ranks_with_shards_equal_one(alone, sharded):
    assert sharded.checkpoint.is_dir()
    assert len(list(sharded.checkpoint.glob("*.safetensors"))) == 2
    assert distance(alone, sharded) < 1e-5


def test_a_sharded_run_is_read_like_any_other(alone, sharded):
    one, other = (load(run.folder).state_dict() for run in (alone, sharded))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[k], other[k], atol=1e-5) for k in one)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, FSDP), (1, "trainer.strategy=auto")),
        ((2, FSDP), (1, FSDP)),
        ((1, "trainer.strategy=auto"), (2, FSDP)),
    ],
    ids=["two shards to one rank", "two shards to one", "one rank to two shards"],
)
def test_another_number_of_ranks_goes_on(folder, alone, before, after):
    """Stopped after two steps by one number of ranks, finished by another: as if one had done it all."""
    name = f"{before}-{after}".translate(str.maketrans("", "", "()', ="))
    for (world, sharing), blow in ((before, ("loss", 3, 0)), (after, None)):
        arguments = small(folder, name, *STEPS, f"trainer.accumulate={2 // world}", sharing)
        statuses = attempt(arguments, world, blow)
        assert -signal.SIGKILL in statuses if blow else statuses == [0] * world
    assert distance(alone, Run(folder / name)) < 1e-5


def test_a_rank_whose_images_lack_labels_keeps_nobody_waiting(folder):
    """Nothing is known of every other micro-batch, which one of two ranks reads: no part of the model has a gradient there."""
    options = {"lacking": ("distortions", "quality", "importance")}
    assert attempt(small(folder, "lacking", *STEPS, ALONE), **options) == [0]
    for sharing in ("ddp", "fsdp"):
        assert attempt(small(folder, f"lacking-{sharing}", *STEPS, TOGETHER, f"trainer.strategy={sharing}"), 2, **options) == [0, 0]
        assert distance(Run(folder / "lacking"), Run(folder / f"lacking-{sharing}")) < 1e-5


def test_adapters_are_sharded_too(folder):
    """Frozen and trained parameters in one block, at half precision where it is safe."""
    arguments = [*STEPS, *LORA, "trainer.precision=bf16-mixed"]
    assert attempt(small(folder, "lora", *arguments, ALONE)) == [0]
    assert attempt(small(folder, "lora2", *arguments, TOGETHER, FSDP), 2) == [0, 0]
    assert distance(Run(folder / "lora"), Run(folder / "lora2")) < 0.02


def test_blocks_that_are_computed_again_are_sharded_too(folder):
    """All of a language model trained, in shards that are gathered a second time for the backward pass, as `seagull_7b_fsdp` does."""
    steps = ["trainer.steps=2", "trainer.val_every=2"]
    base = [a for a in small(folder, "again", *STEPS, *steps, *FULL) if a.partition("=")[0] not in PLAIN]
    assert attempt([*base, ALONE]) == [0]
    assert attempt([*base[:1], "name=again2", *base[2:], TOGETHER, FSDP], 2) == [0, 0]
    assert distance(Run(folder / "again"), Run(folder / "again2")) < 1e-5


def test_four_bits_on_two_ranks_equal_one(folder):
    pytest.importorskip("bitsandbytes")
    base = [a for a in small(folder, "nf4", *STEPS, *NF4) if a.partition("=")[0] not in PLAIN]
    assert attempt([*base, ALONE]) == [0]
    assert attempt([*base[:1], "name=nf4two", *base[2:], TOGETHER], 2) == [0, 0]
    assert distance(Run(folder / "nf4"), Run(folder / "nf4two")) < 1e-5
