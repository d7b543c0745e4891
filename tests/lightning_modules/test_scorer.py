"""The conductor: checkpoints of what is trainable, exact resume, and stops that say why."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from components.scorers.base import SCORERS, check_state
from datamodules.collate import Collate
from datamodules.datasets.base import DATASETS
from datamodules.records import RegionRecord
from datamodules.roi_iqa import RoiIQA
from lightning_modules.scorer import ScorerModule
from tests.components.scorers.samples import INSTALLED

STEPS = 6


pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")


def module(name="pooled_mlp", **changes):
    L.seed_everything(0, verbose=False)
    scorer = SCORERS.build({"plugin": name, **SCORERS.get(name).tiny(), **changes})
    return ScorerModule(scorer, steps=STEPS, warmup=2)


def data(scorer):
    dataset = DATASETS.build({"plugin": "photographs", **DATASETS.get("photographs").tiny()})
    return RoiIQA(dataset, scorer.preprocess, scorer.crop_size, batch_size=2, steps=STEPS, seed=0)


def trainer(folder, every=3, stop=-1, accumulate=1):
    keep = ModelCheckpoint(folder, "step{step}", every_n_train_steps=every, save_top_k=-1, auto_insert_metric_name=False)
    return L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        max_steps=stop,
        logger=False,
        callbacks=[keep],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        deterministic=True,
        accumulate_grad_batches=accumulate,
    )


@pytest.mark.parametrize(("name", "changes"), [*((name, {}) for name in INSTALLED), ("roi_vlm", {"objective": {"judgments": 0.5}})])
def test_resuming_equals_not_stopping(name, changes, tmp_path):
    """Judgments too are drawn as they would have been."""
    whole = module(name, **changes)
    trainer(tmp_path).fit(whole, data(whole.scorer))
    assert (tmp_path / "step3.ckpt").exists()
    resumed = module(name, **changes)
    trainer(tmp_path / "b").fit(resumed, data(resumed.scorer), ckpt_path=tmp_path / "step3.ckpt", weights_only=True)
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_resuming_with_other_accumulation_goes_on_in_the_data(tmp_path, monkeypatch):
    """Three steps of two batches, then three of one: no batch twice, none left out, six steps in all."""
    seen = []
    number = RoiIQA.number
    monkeypatch.setattr(RoiIQA, "number", lambda self, batch: seen.append(number(self, batch)) or seen[-1])
    first = module()
    trainer(tmp_path, accumulate=2).fit(first, data(first.scorer))
    assert seen == list(range(12))
    seen.clear()
    resumed, conductor = module(), trainer(tmp_path / "b", accumulate=1)
    with pytest.warns(UserWarning, match=r"trainer.accumulate=2 would keep it"):
        conductor.fit(resumed, data(resumed.scorer), ckpt_path=tmp_path / "step3.ckpt", weights_only=True)
    assert seen == [6, 7, 8]
    assert conductor.global_step == STEPS


class Unequal(Collate):
    """Takes all labels but those of one region from every second image."""

    def _labels(self, records):
        even = [int(rs[0].id.split("-")[1]) % 2 == 0 for rs in records]
        unknown = [(rs[0], *(RegionRecord(r.id, r.counts) for r in rs[1:])) for rs in records]
        return super()._labels([u if e else rs for e, u, rs in zip(even, unknown, records, strict=True)])


@pytest.mark.parametrize("objective", [{}, {"rank": 0.5}], ids=["plain", "rank"])
def test_a_step_is_the_mean_over_its_answers_however_it_is_cut(tmp_path, monkeypatch, objective):
    """Two images at once, or one after the other: the same weights, though one has a third of the other's answers."""
    monkeypatch.setattr("datamodules.roi_iqa.Collate", Unequal)
    ends, counts = [], set()
    for size in (2, 1):
        one = module("roi_vlm", train_vision_encoder=False, objective=objective)
        loss = one.scorer.loss
        monkeypatch.setattr(one.scorer, "loss", lambda batch, loss=loss: counts.add(int((found := loss(batch))["answers"])) or found)
        cut = data(one.scorer)
        cut.batch_size = size
        trainer(tmp_path / str(size), accumulate=2 // size).fit(one, cut)
        ends.append({n: p for n, p in one.named_parameters() if p.requires_grad})
    assert len(counts) > 2
    for name, end in ends[0].items():
        torch.testing.assert_close(ends[1][name], end, rtol=1e-4, atol=1e-5, msg=name)


class Curve(L.Callback):
    """What is logged of each step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.steps.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train/") or k == "loss"})


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_mean_over_a_steps_answers_is_logged(tmp_path, monkeypatch, accumulate):
    """Of all its batches, each as often as it has answers."""
    monkeypatch.setattr("datamodules.roi_iqa.Collate", Unequal)
    one = module("roi_vlm", train_vision_encoder=False)
    loss, found, curve = one.scorer.loss, [], Curve()
    monkeypatch.setattr(one.scorer, "loss", lambda batch: found.append(loss(batch)) or found[-1])
    conductor, cut = trainer(tmp_path, accumulate=accumulate), data(one.scorer)
    cut.batch_size = 1
    conductor.callbacks.append(curve)
    conductor.fit(one, cut)
    batches = [{k: float(v.detach()) for k, v in each.items()} for each in found]
    assert len({b["answers"] for b in batches}) > 1
    assert len(curve.steps) == STEPS
    for i, logged in enumerate(curve.steps):
        step = batches[i * accumulate : (i + 1) * accumulate]
        for name in ("loss", "text", "levels"):
            mean = sum(b[name] * b["answers"] for b in step) / sum(b["answers"] for b in step)
            assert logged[f"train/{name}"] == pytest.approx(mean, rel=1e-6)
        assert logged["loss"] == logged["train/loss"]


def test_a_loss_scaler_meets_no_sum(tmp_path, monkeypatch):
    """Under it a step's loss is told in units of the most answers that a batch can have: at most a mean, and bit for bit the same steps."""
    ends, told = [], []
    for under in (False, True):
        monkeypatch.setattr("lightning_modules.scorer.scaled", lambda trainer, under=under: under)
        one = module("roi_vlm", train_vision_encoder=False)
        step, losses = one.training_step, []
        monkeypatch.setattr(one, "training_step", lambda *a, one=one, s=step, seen=losses: seen.append((s(*a), one.losses)) or seen[-1][0])
        cut = data(one.scorer)
        trainer(tmp_path / str(under), accumulate=2).fit(one, cut)
        most = cut.most_regions() * len(one.scorer.tasks)
        assert all(x["answers"] <= most for _, x in losses)
        assert one._unit == (2 ** (most - 1).bit_length() if under else 1)
        told.append([float(loss.detach()) for loss, _ in losses])
        assert not under or all(float(loss.detach()) <= float(x["loss"]) for loss, x in losses)
        ends.append({n: p for n, p in one.named_parameters() if p.requires_grad})
    assert all(torch.equal(ends[1][n], p) for n, p in ends[0].items())
    assert [a / one._unit for a in told[0]] == told[1]


def test_a_frozen_encoder_stays_as_it_is_whether_or_not_validation_runs(tmp_path):
    """Its statistics too: Lightning puts the module in training mode, and only validation used to put it back."""
    frozen = module(train_vision_encoder=False)
    before = {k: v.clone() for k, v in frozen.scorer.vision_encoder.state_dict().items()}
    assert any(k.endswith("running_mean") for k in before)
    trainer(tmp_path).fit(frozen, data(frozen.scorer))
    for key, value in frozen.scorer.vision_encoder.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_checkpoints_hold_what_is_trained(tmp_path):
    frozen = module(train_vision_encoder=False)
    trainer(tmp_path).fit(frozen, data(frozen.scorer))
    state = torch.load(tmp_path / "step6.ckpt", weights_only=True)["state_dict"]
    assert state
    assert all(k.startswith("scorer.head.") for k in state)


def test_a_trained_encoders_statistics_are_kept(tmp_path):
    trained = module()
    trainer(tmp_path).fit(trained, data(trained.scorer))
    state = torch.load(tmp_path / "step6.ckpt", weights_only=True)["state_dict"]
    assert any(k.endswith("running_mean") for k in state)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    small = module()
    trainer(tmp_path).fit(small, data(small.scorer))
    big = module(width=48)
    with pytest.raises(ValueError, match=r"another architecture: tensors \d+ of another shape \(first: .*config.yaml"):
        trainer(tmp_path / "b").fit(big, data(big.scorer), ckpt_path=tmp_path / "step6.ckpt", weights_only=True)


def test_check_state_names_what_is_missing_and_unexpected():
    t = torch.zeros(1)
    check_state({"a": t}, {"a": t})
    with pytest.raises(ValueError, match=r"1 missing \(first: b\), 1 unexpected \(first: a\)"):
        check_state({"a": t}, {"b": t})


def test_weights_are_loaded_once(tmp_path):
    one = module()
    calls = []
    one.scorer.load_pretrained = lambda: calls.append(1)
    one.configure_model()
    one.configure_model()
    assert calls == [1]
