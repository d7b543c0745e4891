"""Guards of a training: each fires where it must, leaves the weights and checkpoints of the step before, and names what it saw."""

import json
from functools import cache
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from components.scorers.base import SCORERS
from datamodules.datasets.base import DATASETS
from datamodules.roi_iqa import RoiIQA
from lightning_modules.callbacks import RecordMemory, StopAtNonFinite, WarnWithoutGradient, note, peak
from lightning_modules.plan import GIB, Peak, Plan
from lightning_modules.runs import NonFiniteError, Run, write_json
from lightning_modules.scorer import ScorerModule

STEPS = 4
TINY = SCORERS.get("roi_vlm").tiny()


def module(**changes):
    L.seed_everything(0, verbose=False)
    return ScorerModule(SCORERS.build({"plugin": "roi_vlm", **TINY, **changes}), steps=STEPS, warmup=1)


@cache
def samples():
    """Made once: they cost more than a step."""
    made = DATASETS.build({"plugin": "photographs", **DATASETS.get("photographs").tiny()}).split("train")
    return [made[i] for i in range(3)]


class Kept:
    def prepare(self):
        pass

    def split(self, name):
        return samples()


def fit(module, *callbacks, accumulate=1, **options):
    data = RoiIQA(Kept(), module.scorer.preprocess, module.scorer.crop_size, batch_size=1, steps=STEPS, seed=0)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"gradient_clip_val": 1.0, **options},
    )
    trainer.fit(module, data)
    return trainer


def spoil_loss(module, call):
    """The loss of a call is NaN, as an overflow leaves it."""
    original, calls = module.scorer.loss, []

    def loss(batch):
        calls.append([i for image in batch.ids for i in image])
        found = original(batch)
        return {k: v * float("nan") for k, v in found.items()} if len(calls) == call else found

    module.scorer.loss = loss
    return calls


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_no_number_stops_before_the_update(tmp_path, accumulate):
    broken = module()
    calls = spoil_loss(broken, 4)
    keep = ModelCheckpoint(tmp_path, "step{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False)
    step = 3 // accumulate
    with pytest.raises(
        NonFiniteError, match=rf"the loss is not finite at step {step} .*loss nan.*Regions of this step: train-.*Lower optim.lr"
    ):
        fit(broken, keep, StopAtNonFinite(tmp_path), accumulate=accumulate)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert (found["step"], found["what"]) == (step, "loss")
    assert [[i for image in batch["ids"] for i in image] for batch in found["batches"]] == calls[-accumulate:]
    assert found["batches"][-1]["losses"]["loss"] == "nan"
    assert all(isinstance(batch["losses"]["loss"], float) for batch in found["batches"][:-1])
    assert sorted(p.name for p in tmp_path.glob("*.ckpt")) == [f"step{i + 1}.ckpt" for i in range(step)]
    state = torch.load(tmp_path / f"step{step}.ckpt", weights_only=True)["state_dict"]
    assert [n for n, p in broken.named_parameters() if not torch.equal(state[n], p)] == []


def test_a_gradient_that_is_no_number_stops_before_the_update(tmp_path):
    broken = module()
    weight = broken.scorer.projector.mlp[0].weight
    steps = []
    weight.register_hook(lambda grad: steps.append(1) or (grad * float("inf") if len(steps) == 3 else grad))
    with pytest.raises(NonFiniteError, match=r"the gradient is not finite at step 2 .*gradient norms: .*projector (nan|inf)"):
        fit(broken, StopAtNonFinite(tmp_path))
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert found["what"] == "gradient"
    assert found["parameters"] == ["projector.mlp.0.weight"]
    assert isinstance(found["gradient_norms"]["llm"], float)
    assert isinstance(found["gradient_norms"]["projector"], str)
    assert all(torch.isfinite(p).all() for p in broken.scorer.parameters())


def test_a_loss_scaler_may_meet_infinite_gradients(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_modules.callbacks.scaled", lambda trainer: True)
    scaled = module()
    scaled.scorer.projector.mlp[0].bias.register_hook(lambda grad: grad * float("inf"))
    fit(scaled, StopAtNonFinite(tmp_path), gradient_clip_val=None, max_steps=1)
    assert not (tmp_path / "nonfinite.json").exists()


def test_a_healthy_training_is_left_alone(tmp_path, recwarn):
    fit(module(), StopAtNonFinite(tmp_path), WarnWithoutGradient())
    assert list(tmp_path.iterdir()) == []
    assert not [w for w in recwarn if "got no gradient" in str(w.message)]


def test_adapters_are_given_time(recwarn):
    """LoRA's first factor has no gradient while the second is zero."""
    fit(module(llm={**TINY["llm"], "adaptation": "lora"}), WarnWithoutGradient())
    assert not [w for w in recwarn if "got no gradient" in str(w.message)]


@pytest.mark.parametrize("steps", [2, 9])
def test_a_part_that_learns_nothing_is_named(steps):
    cut = module()
    original = cut.scorer.projector.forward
    cut.scorer.projector.forward = lambda pyramid: original(pyramid).detach()
    cut.scorer.region_extractor.local_token.mlp[0].bias.register_hook(torch.zeros_like)
    with pytest.warns(UserWarning, match="got no gradient") as caught:
        fit(cut, WarnWithoutGradient(steps))
    told = [str(w.message) for w in caught if "got no gradient" in str(w.message)]
    assert len(told) == 2
    last = min(steps, STEPS)
    assert told[0].startswith(f"projector: 4 of 4 trainable parameters got no gradient in the first {last} steps (projector.mlp.0.weight")
    assert told[0].endswith("and 1 more): it learns nothing")
    assert told[1].startswith("region_extractor: 1 of ")
    assert told[1].endswith("(region_extractor.local_token.mlp.0.bias): these learn nothing")


def test_the_peak_is_recorded_and_printed(tmp_path, capsys):
    run = Run(tmp_path)
    write_json(run.record, {"seed": 0})
    fit(module(), RecordMemory(run, lambda: pytest.fail("a plan is no matter of a CPU")))
    found = json.loads(run.record.read_text())
    assert found["seed"] == 0
    assert set(found["memory"]) == {"process_resident_gib"}  # not a number to compare with a plan's
    assert 0.05 < found["memory"]["process_resident_gib"] < 64
    assert f"peak memory: process resident {peak(torch.device('cpu'))['process_resident_gib']:.2f} GiB"[:-8] in capsys.readouterr().out


def test_a_gpus_peak_stands_beside_the_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 4 * GIB)
    run, reset = Run(tmp_path), []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    write_json(run.record, {})
    small = Peak(2 * GIB, GIB // 4, 0, {}, 0, context=GIB // 2)
    trainer, module = SimpleNamespace(is_global_zero=True), SimpleNamespace(device=torch.device("cuda"))
    callback = RecordMemory(run, lambda: Plan({}, {}, 0, small, small))
    callback.on_fit_start(trainer, module)
    callback.on_fit_end(trainer, module)
    assert reset == [torch.device("cuda")]
    expected = {"gpu_allocated_gib": 3.0, "gpu_reserved_gib": 4.0, "planned_allocated_gib": 2.25, "planned_total_gib": 2.75}
    assert json.loads(run.record.read_text())["memory"] == expected
    assert "gpu allocated 3.00 GiB, gpu reserved 4.00 GiB, planned allocated 2.25 GiB, planned total 2.75 GiB" in capsys.readouterr().out
    write_json(run.record, {})
    RecordMemory(run, lambda: Plan({}, {}, 0, small, small, uncounted="not counted: all")).on_fit_end(trainer, module)
    assert json.loads(run.record.read_text())["memory"] == {"gpu_allocated_gib": 3.0, "gpu_reserved_gib": 4.0}


def test_notes_replace_what_they_name(tmp_path):
    run = Run(tmp_path)
    write_json(run.record, {"a": 1, "b": 2})
    note(run, {"b": 3, "c": 4})
    assert json.loads(run.record.read_text()) == {"a": 1, "b": 3, "c": 4}
