"""The entries, end to end on small runs: train, resume, evaluate again, list."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import eval as evaluation_entry
import train
from components.registry import ConfigError
from components.scorers.base import SCORERS
from configs.benchmarks import load_benchmark
from configs.schema import experiments, load_config, to_yaml
from datamodules.datasets.base import DATASETS
from datamodules.images import ImageError
from inference.load import load
from lightning_modules.entry import run_entry
from lightning_modules.ranks import Ranks
from lightning_modules.runs import Run, RunError
from lightning_modules.scorer import ScorerModule

pytestmark = pytest.mark.usefixtures("few_pictures")
SMALL = [
    "trainer.steps=4",
    "trainer.batch_size=2",
    "trainer.val_every=2",
    "trainer.save_every=2",
    "trainer.log_every=1",
    "data.train=6",
    "data.val=2",
    "data.test=4",
    "data.size=64",
    "data.workers=0",
    "model.vision_encoder.image_size=64",
    "model.region_extractor.crop_size=32",
    "model.llm.layers=1",
    "model.llm.width=32",
]
PROMISED = [
    *(f"{task}.{number}" for task in ("quality", "importance") for number in ("srcc", "plcc", "plcc_fitted", "krcc", "rmse", "n")),
    "distortion.accuracy",
    "distortion.macro_f1",
    "control.whole_image.quality.srcc",
    "control.image_mean.quality.srcc",
    "unparsed",
]


def small(folder, *more, name="run"):
    return ["quickstart", f"name={name}", f"outputs={folder}", f"data.cache={folder / 'cache'}", *SMALL, *more]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder / "run", train.main(small(folder))


def look_up(metrics, path):
    for key in path.split("."):
        metrics = metrics[key]
    return metrics


@pytest.mark.parametrize("path", PROMISED)
def test_metrics_hold_what_is_promised(run, path):
    folder, metrics = run
    written = json.loads((folder / "metrics.json").read_text())
    assert look_up(written, path) == look_up(metrics, path)


@pytest.mark.parametrize(
    "file",
    [
        "config.yaml",
        "run.json",
        "metrics.json",
        "scores.parquet",
        "report.html",
        "checkpoints/last.ckpt",
        "plots",
        "logs/curves.csv",
        "logs/tensorboard",
    ],
)
def test_the_folder_holds_what_is_promised(run, file):
    assert (run[0] / file).exists()


def test_run_json_tells_how_to_repeat_it(run):
    record = json.loads((run[0] / "run.json").read_text())
    assert {"git", "packages", "device", "seed", "preprocess", "data", "command"} <= set(record)
    assert re.fullmatch("[0-9a-f]{16}", record["config"])
    assert record["preprocess"]["size"] == 64
    assert {"git", "packages", "device", "command"} <= set(record["evaluation"])
    assert "chelsea" in record["data"]["photographs"]["test"]


def test_again_gives_the_same_numbers(run, tmp_path):
    assert train.main(small(tmp_path)) == run[1]


def test_evaluating_again_gives_the_same_numbers(run):
    assert evaluation_entry.main([str(run[0])]) == run[1]


def test_a_trained_run_is_loaded_in_one_call(run):
    table = pd.read_parquet(run[0] / "scores.parquet")
    scorer = load(run[0])
    assert not scorer.training
    config = load_config(str(run[0] / "config.yaml"))
    sample = DATASETS.build(config.data).split("test")[0]
    scores = scorer.score(sample.image, sample.masks())
    for region, found in zip(sample.record.regions, scores, strict=True):
        expected = table.set_index("id").loc[region.id]
        assert found["quality"].value == pytest.approx(expected["quality_pred"], abs=1e-5)
        assert found["distortion"].text == expected["distortion_text"]
    with pytest.raises(FileNotFoundError, match=r"has no config.yaml: give the folder of a run"):
        load(run[0] / "plots")


def test_a_killed_run_goes_on_to_the_same_numbers(run, tmp_path, root):
    """Killed for real, after its first checkpoint: the second call resumes and ends where an unbroken run does."""
    code = """
import os, sys, train, lightning_modules.scorer as m
step = m.ScorerModule.training_step
def dying(self, batch, batch_idx):
    if batch_idx == 3:
        os._exit(9)
    return step(self, batch, batch_idx)
m.ScorerModule.training_step = dying
train.main(sys.argv[1:])
"""
    died = subprocess.run([sys.executable, "-c", code, *small(tmp_path)], cwd=root, check=False, capture_output=True)
    assert died.returncode == 9, died.stderr.decode()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert train.main(small(tmp_path)) == run[1]


@pytest.mark.parametrize("licence", ["", "not for sale"])
def test_run_json_tells_the_licence_of_a_scorer_that_has_one(tmp_path, monkeypatch, licence):
    scorer = SCORERS.build({"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny()})
    monkeypatch.setattr(type(scorer), "licence", licence)
    data = SimpleNamespace(dataset=SimpleNamespace(describe=dict))
    train._begin(load_config("quickstart", []), Run(tmp_path / "run"), scorer, data, torch.device("cpu"), None)
    assert json.loads((tmp_path / "run" / "run.json").read_text()).get("licence", "") == licence


def test_run_json_tells_what_was_trained_and_what_it_took(run):
    record = json.loads((run[0] / "run.json").read_text())
    assert record["parts"]["vision_encoder"]["trainable"] == 0
    assert record["parts"]["llm"]["trainable"] == record["parts"]["llm"]["parameters"] > 0
    assert record["memory"]["process_resident_gib"] > 0


def test_a_gpu_without_room_ends_in_what_to_change(tmp_path, monkeypatch):
    def full(self, batch, batch_idx):
        self.regions = batch.regions.valid.shape[1]
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ScorerModule, "training_step", full)
    with pytest.raises(RunError) as stopped:
        train.main(small(tmp_path, "data.regions=3", "trainer.batch_size=128"))
    said = str(stopped.value)
    assert said.startswith("the GPU has no memory left at step 0, with 3 regions an image. Planned were ")
    assert "  trainer.precision=bf16-mixed  " in said
    assert "add these to the command: trainer.precision=bf16-mixed" in said


STAGES = ("seagull_tiny_stage1", "seagull_tiny_stage2")


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Both published stages in small, as they stand; the second starts from the first."""
    folder = tmp_path_factory.mktemp("stages")
    cached = f"data.cache={folder / 'cache'}"
    return folder, [train.main([name, f"outputs={folder}", cached, "trainer.threads=1"]) for name in STAGES]


def weights_of(folder, name="last.ckpt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def test_both_stages_run_and_the_second_goes_on_from_the_first(stages):
    folder, metrics = stages
    assert [m["n_regions"] for m in metrics] == [24, 24]
    first, second = (weights_of(folder / name) for name in STAGES)
    assert first["foundations"] == second["foundations"]
    assert first["foundations"]["llm"]["model"] == "random weights"
    assert first["state_dict"].keys() == second["state_dict"].keys()
    parts = {name.split(".")[1] for name in first["state_dict"]}
    assert parts >= {"projector", "region_extractor", "llm"}
    assert all("lora_" in name for name in first["state_dict"] if name.startswith("scorer.llm."))
    config = load_config(str(folder / STAGES[1] / "config.yaml"))
    assert config.start_from == str(folder / STAGES[0])
    torch.manual_seed(config.seed)
    scorer = SCORERS.build(config.model)
    start = train.started(scorer, config.start_from)
    scorer.load_pretrained()
    start()
    state = scorer.state_dict()
    assert all(torch.equal(state[name.removeprefix("scorer.")], x) for name, x in first["state_dict"].items())
    assert not all(torch.equal(second["state_dict"][name], x) for name, x in first["state_dict"].items())


def test_a_random_base_is_made_again_by_the_runs_seed(stages):
    """It is in no file, and adapters mean nothing on another one."""
    torch.manual_seed(1234)
    a, b = load(stages[0] / STAGES[0]), load(stages[0] / STAGES[0])
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    config = load_config(str(stages[0] / STAGES[0] / "config.yaml"))
    other = SCORERS.build(config.model)
    other.load_pretrained()
    with pytest.raises(ValueError, match=r"trained on other frozen weights \(llm: random weights, .* there, random"):
        train.started(other, str(stages[0] / STAGES[0]))()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("start_from=outputs/nowhere", "start_from: outputs/nowhere cannot be gone on from: .*neither a run that has saved"),
        ("model.llm.lora_rank=8", r"cannot be gone on from: this checkpoint is of another architecture: tensors \d+ of another shape"),
        ("model.llm.adaptation=full", r"another architecture: tensors \d+ missing \(first: .*unexpected \(first: .*lora_"),
        ("seed=1", "trained on other frozen weights"),
    ],
)
def test_what_cannot_be_gone_on_from(stages, tmp_path, override, message):
    arguments = [STAGES[1], f"outputs={tmp_path}", f"start_from={stages[0] / STAGES[0]}", f"data.cache={stages[0] / 'cache'}", override]
    with pytest.raises(ValueError, match=message):
        train.main(arguments)
    assert not (tmp_path / STAGES[1] / "checkpoints").exists()


@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_adapters_that_are_not_all_there_are_refused(stages, tmp_path, change):
    shutil.copytree(stages[0] / STAGES[0], tmp_path / "run")
    checkpoint = weights_of(tmp_path / "run")
    state = checkpoint["state_dict"]
    name = next(n for n in state if "lora_B" in n)
    if change == "missing":
        del state[name]
    else:
        state[name.replace("layers.0", "layers.9")] = state[name]
    torch.save(checkpoint, tmp_path / "run" / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=rf"another architecture: tensors 1 {change} \(first: llm\..*lora_B"):
        load(tmp_path / "run")


def test_another_configuration_does_not_overwrite(run):
    with pytest.raises(RunError, match=r"another configuration.*name="):
        train.main(small(run[0].parent, "optim.lr=0.5"))


def test_a_checkpoint_of_another_architecture_is_refused(run, tmp_path):
    import shutil

    shutil.copytree(run[0], tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("layers: 1", "layers: 2"))
    with pytest.raises(ValueError, match=r"another architecture: tensors \d+ missing"):
        evaluation_entry.main([str(tmp_path / "run")])


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run"):
        evaluation_entry.main([str(tmp_path)])


def test_ones_own_photographs(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "mine").mkdir()
    for i in range(5):
        PIL.Image.fromarray(rng.integers(0, 255, (80, 90, 3), dtype=np.uint8)).save(tmp_path / "mine" / f"{i}.png")
    metrics = train.main(small(tmp_path, f"data.root={tmp_path / 'mine'}"))
    assert metrics["n_sources"] == 1


def test_every_objective_under_a_token_budget_with_features_on_disk(tmp_path, capsys):
    """And again, from what the first run kept: the same numbers."""
    more = ["trainer.cache_features=disk", "trainer.max_tokens=600", "trainer.accumulate=2"]
    more += ["model.objective.rank=0.5", "model.objective.judgments=0.5"]
    metrics = train.main(small(tmp_path, *more))
    assert "6 images of" in capsys.readouterr().out
    curves = pd.read_csv(tmp_path / "run" / "logs" / "curves.csv")
    assert {"train/text", "train/levels", "train/rank", "train/judgment", "val/rank"} <= set(curves.columns)
    assert "train/answers" not in curves
    assert train.main(small(tmp_path, *more, name="again")) == metrics
    assert "6 images of" not in capsys.readouterr().out


def test_a_budget_of_tokens_and_a_disk_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"a batch may have 60 tokens, and 6 of 6 images may take more"):
        train.main(small(tmp_path, "trainer.max_tokens=60"))
    with pytest.raises(ConfigError, match=r"data set's cache, and Photographs has none here"):
        train.main(small(tmp_path, "trainer.cache_features=disk", "data.cache="))
    with pytest.raises(ConfigError, match=r"PooledMLP has no language model"):
        train.main(["encoder_quickstart", f"outputs={tmp_path}", "trainer.max_tokens=60", "data.cache="])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("plan", [True, False], ids=["plan", "training"])
@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["data.root=nowhere"], "data.only_test"),
        (["data.plugin=roi_folder", "data.root=nowhere"], "data.only_test"),
        (["data.plugin=mixture", "data.sets.mine.plugin=roi_folder", "data.sets.mine.root=nowhere"], "data.sets.mine.only_test"),
    ],
    ids=["photographs", "roi_folder", "mixture"],
)
def test_data_that_are_for_the_test_alone_are_refused_before_they_are_read(tmp_path, monkeypatch, options, key, plan):
    """And before a model is made; the same data without the option are planned."""
    command = ["quickstart", f"outputs={tmp_path}", *options, *(["--plan"] if plan else [])]
    if plan:
        train.main(command)
    monkeypatch.setattr(SCORERS, "build", lambda *_, **__: pytest.fail("a model was made"))
    said = rf"{key}: got True, in a training: .* eval.py outputs/a --on .* {key}=true --out .*\. To train on these data leave it out"
    with pytest.raises(ConfigError, match=said):
        train.main([*command, f"{key}=true"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("plan", [["--plan"], []], ids=["plan", "training"])
def test_a_benchmark_on_data_that_are_for_the_test_alone_is_refused_before_it_begins(tmp_path, plan):
    with pytest.raises(ConfigError, match=r"data.only_test: got True, in a training"):
        train.main(["benchmark_quickstart", f"outputs={tmp_path}", "data.root=nowhere", "data.only_test=true", *plan])
    assert not list(tmp_path.iterdir())


def test_another_scorer_and_its_encoder(tmp_path):
    """The shipped encoder's own recipe, in small: it ends in a file that the vision encoder can read."""
    from components.vision_encoders.base import VISION_ENCODERS

    arguments = ["encoder_quickstart", f"outputs={tmp_path}", "trainer.steps=2", "trainer.batch_size=2", "data.cache="]
    arguments += ["data.train=4", "data.test=2", "data.val=1", "data.size=64", "model.vision_encoder.image_size=64", "data.workers=0"]
    train.main(arguments)
    node = load_config("encoder_quickstart", ["model.vision_encoder.image_size=64"]).model["vision_encoder"]
    weights = tmp_path / "encoder_quickstart" / "vision_encoder.safetensors"
    VISION_ENCODERS.build({**node, "weights": str(weights)}).load_pretrained()


def test_restoring_comes_before_rating(tmp_path):
    """Both steps of TeacherIQA in small: the second begins with what the first has learned, and leaves alone what it does not read."""
    arguments = [f"outputs={tmp_path}", "trainer.steps=2", "trainer.batch_size=2", "data.cache=", "data.train=4", "data.test=2"]
    arguments += ["data.val=1", "data.size=64", "data.workers=0", "data.regions=2", "model.vision_encoder.image_size=64"]
    with pytest.raises(ConfigError, match=r"these data give no clean ones: set pairs to true"):
        train.main(["teacher_iqa_tiny_restoration", *arguments, "data.pairs=false"])
    with pytest.raises(ConfigError, match=f"Train it first, .*: python train.py teacher_iqa_tiny_restoration outputs={tmp_path}$"):
        train.main(["teacher_iqa_tiny", *arguments])
    for name in ("teacher_iqa_tiny_restoration", "teacher_iqa_tiny"):
        metrics = train.main([name, *arguments])
        assert metrics["quality"]["n"] == metrics["n_regions"] > 0
    other = ["model.vision_encoder.name=convnext_atto", "model.vision_encoder.model_args=null", "name=other"]
    with pytest.raises(
        ConfigError, match=r"The vision encoder gives 5 levels at strides 2, .* there, and 4 levels at strides 4, 8, 16, 32 "
    ):
        train.main(["teacher_iqa_tiny", *arguments, *other])
    first, second = (load(tmp_path / name).state_dict() for name in ("teacher_iqa_tiny_restoration", "teacher_iqa_tiny"))
    assert torch.equal(first["decoder.picture.out.weight"], second["decoder.picture.out.weight"])
    assert not torch.equal(first["decoder.bottom.triple.0.weight"], second["decoder.bottom.triple.0.weight"])


def test_a_student_learns_from_a_finished_teacher(tmp_path, capsys):
    """Both trainings of MobileIQA in small; which teacher it was is written down, and one that cannot teach is refused."""
    arguments = [f"outputs={tmp_path}", "trainer.steps=2", "trainer.batch_size=2", "data.cache=", "data.train=4", "data.test=2"]
    arguments += ["data.val=1", "data.size=64", "data.workers=0", "data.regions=2", "model.vision_encoder.image_size=64"]
    with pytest.raises(ConfigError, match=r"distillation.teacher: .*mobile_iqa_tiny_teacher is neither a run .* Train it first"):
        train.main(["mobile_iqa_tiny", *arguments])
    train.main(["mobile_iqa_tiny_teacher", *arguments])
    with pytest.raises(ConfigError, match=r"'width': 16.* of the student, .*'width': 32"):
        train.main(["mobile_iqa_tiny", *arguments, "model.width=16"])
    with pytest.raises(ConfigError, match=r"distillation with trainer.strategy fsdp"):
        train.main(["mobile_iqa_tiny", *arguments, "trainer.strategy=fsdp"])
    train.main(["mobile_iqa_tiny", *arguments])
    record = json.loads((tmp_path / "mobile_iqa_tiny" / "run.json").read_text())
    assert record["teacher"]["model"] == f"{tmp_path}/mobile_iqa_tiny_teacher"
    assert re.fullmatch("[0-9a-f]{16}", record["teacher"]["weights"])
    curves = pd.read_csv(tmp_path / "mobile_iqa_tiny" / "logs" / "curves.csv")
    assert {f"val/{term}" for term in ("loss", "score", "levels", "opinions")} <= set(curves.columns)
    shutil.copytree(tmp_path / "mobile_iqa_tiny_teacher", tmp_path / "begun")
    (tmp_path / "begun" / "metrics.json").unlink()
    with pytest.raises(ConfigError, match=r"begun is a run that has not ended: finish it first"):
        train.main(["mobile_iqa_tiny", *arguments, "name=again", f"distillation.teacher={tmp_path}/begun"])
    train.main(["mobile_iqa_tiny", *arguments, "--plan"])
    assert "without the teacher, whose weights and forward pass come on top" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("net", "gives", "fits"),
    [
        ("mobilenetv3_small_050", "5 levels at strides 2, 4, 8, 16, 32 with ", True),
        ("convnext_atto", "4 levels at strides 4, 8, 16, 32 with 40, 80, 160, 320 channels, of 96 x 96 pixels", False),
    ],
)
def test_whether_the_levels_of_a_net_can_be_taught_is_said_before_anything_is_trained(tmp_path, capsys, net, gives, fits):
    """By the plan and by the training, where the teacher is that of the experiment and is not there yet."""
    command = ["mobile_iqa_tiny", f"outputs={tmp_path}", f"model.vision_encoder.name={net}", "model.vision_encoder.model_args=null"]
    train.main([*command, "--plan"])
    planned = capsys.readouterr().out
    with pytest.raises(ConfigError, match="Train it first") as refused:
        train.main(command)
    assert f"vision encoder: {gives}" in planned
    for said in (planned, str(refused.value)):
        assert (f"Train it first: python train.py mobile_iqa_tiny_teacher outputs={tmp_path}" in said) == fits
        if not fits:
            assert f"outputs={tmp_path} makes it, it could not teach this student: " in said
            assert f"The student's encoder gives {gives}; the teacher's gives 5 levels at strides 2, 4, 8, 16, 32 with " in said
            assert "Train a teacher with model.vision_encoder.most_levels=4, or give the student a net of 5 levels" in said
    assert not list(tmp_path.iterdir())


def test_list_names_every_plugin_on_disk(root, capsys):
    assert train.main(["--list"]) == {}
    listed = capsys.readouterr().out
    kinds = ("vision_encoders", "scorers", "readouts", "region_extractors", "llm_adapters", "mask_encoders")
    for folder in (*(f"components/{k}" for k in kinds), "datamodules/distortions", "datamodules/datasets", "datamodules/quality_labels"):
        for path in (root / folder).glob("[a-z]*.py"):
            if path.stem != "base":
                assert f"  {path.stem}: " in listed
    assert "name: str (required)" in listed
    assert "adaptation: Literal['frozen', 'full', 'lora', 'qlora'] = 'full'" in listed


def test_a_benchmark_trains_its_variants_and_compares_them(tmp_path, capsys):
    """One of three fails: the others are trained and compared all the same, and are left alone the next time."""
    common = [override for override in SMALL if not override.startswith("name=")]
    variants = [
        {"name": "broken", "experiment": "quickstart", "overrides": [f"data.root={tmp_path / 'nowhere'}"]},
        {"name": "levels", "experiment": "quickstart"},
        {"name": "head", "experiment": "quickstart", "overrides": ["model.readouts.quality.plugin=head"]},
    ]
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"name": "mine", "overrides": [*common, f"data.cache={tmp_path / 'cache'}"], "variants": variants}))
    for said in ("variant 2 of 3, levels: ", "variant 2 of 3, levels: finished before"):
        with pytest.raises(RunError, match=r"1 of 3 variants failed \(broken\)"):
            train.main([str(path), f"outputs={tmp_path}"])
        assert said in capsys.readouterr().out
    scores = [pd.read_parquet(tmp_path / "mine" / name / "scores.parquet") for name in ("levels", "head")]
    assert list(scores[0]["id"]) == list(scores[1]["id"])
    assert not scores[0]["quality_pred"].equals(scores[1]["quality_pred"])
    compared = json.loads((tmp_path / "mine" / "comparison.json").read_text())
    assert all(0.1 < m["peak_gib"] < 8 for m in compared["models"].values())  # each was measured by a process that had not trained
    assert "1 of 3 models are missing: broken (failed with status 1)." in (tmp_path / "mine" / "report.html").read_text()


def test_a_run_can_be_trained_and_measured_by_two_processes(run, tmp_path):
    """To the same numbers, and with a peak of memory that is that of scoring."""
    _, metrics = run
    assert train.main([*small(tmp_path, name="apart"), "--no-evaluation"]) == {}
    assert not (tmp_path / "apart" / "metrics.json").exists()
    measured = evaluation_entry.main([str(tmp_path / "apart")])
    assert measured["quality"]["srcc"] == pytest.approx(metrics["quality"]["srcc"], abs=1e-6)
    cost = json.loads((tmp_path / "apart" / "run.json").read_text())["evaluation"]
    assert cost["peak_gib"] > 0.1
    train.main(small(tmp_path, name="together"))
    assert json.loads((tmp_path / "together" / "run.json").read_text())["evaluation"]["peak_gib"] is None  # this process has trained


def test_a_run_that_was_shown_its_images_otherwise_is_not_read(run, tmp_path):
    folder, _ = run
    there = shutil.copytree(folder, tmp_path / "earlier")
    record = json.loads((there / "run.json").read_text())
    load(there)
    record["preprocess"]["size"] += 1
    (there / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        ValueError, match=rf"earlier was trained with another preprocessing than .* uses \(size: {record['preprocess']['size']} "
    ):
        load(there)


def test_a_benchmark_is_trained_and_measured(capsys):
    with pytest.raises(SystemExit):
        train.main(["benchmark_quickstart", "--no-evaluation"])
    assert "--no-evaluation trains one experiment" in capsys.readouterr().err


def test_a_benchmark_is_planned_in_a_table(tmp_path, capsys):
    """Nothing is written; what is finished, begun, in the way and to be trained is told."""
    variants = [{"name": name, "experiment": "pooled_mlp_quickstart"} for name in ("done", "begun", "other", "new")]
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"name": "mine", "overrides": ["trainer.steps=7"], "variants": variants}))
    found = load_benchmark(path, [f"outputs={tmp_path}"])[1]
    for name, mark in (("done", "metrics.json"), ("begun", "checkpoints/last.ckpt"), ("other", "metrics.json")):
        folder = tmp_path / "mine" / name
        (folder / mark).parent.mkdir(parents=True)
        (folder / mark).write_text("{}")
        (folder / "config.yaml").write_text(to_yaml(found[name]).replace("steps: 7", "steps: 8" if name == "other" else "steps: 7"))
    before = sorted(tmp_path.rglob("*"))
    rows = train.main([str(path), f"outputs={tmp_path}", "--plan", "--gpu", "24", "--regions", "2"])["variants"]
    assert sorted(tmp_path.rglob("*")) == before
    assert list(rows) == ["done", "begun", "other", "new"]
    assert [row["state"] for name, row in rows.items() if name != "other"] == ["finished", "begun", "to be trained"]
    assert rows["other"]["state"].startswith(
        f"refused: {tmp_path / 'mine' / 'other'} holds a run with another configuration (there 'steps: 8'"
    )
    alone = train.main(["pooled_mlp_quickstart", "--plan", "--regions", "2", "trainer.steps=7"])
    assert all(row["training"] > 0 and row["fits"] and row["steps"] == 7 for row in rows.values())
    assert {row["parameters"] for row in rows.values()} == {sum(count for count, _ in alone["parameters"].values())}
    assert {row["training"] for row in rows.values()} == {train.planned(found["new"], 2)[0].training.total}
    said = capsys.readouterr().out
    assert "3 of 4 are to be trained, 21 steps at most" in said
    assert re.search(r"^  1 done .* yes  finished$", said, re.MULTILINE)


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_can_be_planned(name, capsys):
    shallow = (
        ["model.llm.config.num_hidden_layers=4"] if name.startswith(("seagull_7b_", "best_7b")) else []
    )  # the sizes differ little; the time does
    found = train.main([name, *shallow, "--plan", "--regions", "2", "--gpu", "80"])
    assert found["fits"] is True
    assert found["remedies"] == []
    assert sum(trainable for _, trainable in found["parameters"].values()) > 0
    assert "fits a card of 80 GB (79 GiB usable)" in capsys.readouterr().out


def test_a_token_budget_is_planned_as_the_images_that_fit():
    """A row of quickstart with six regions has 204 tokens, and is counted with a few more."""
    fixed, budgeted = (
        train.main(["quickstart", option, "--plan", "--regions", "6"]) for option in ("trainer.batch_size=3", "trainer.max_tokens=660")
    )
    assert fixed["tokens"]["row"] == 204
    assert budgeted["training"] == fixed["training"]


def test_keys_may_stand_behind_options(capsys):
    train.main(["seagull_tiny_stage1", "--plan", "trainer.batch_size=1", "--regions", "3", "model.packing=none"])
    apart = capsys.readouterr().out
    train.main(["seagull_tiny_stage1", "trainer.batch_size=1", "model.packing=none", "--plan", "--regions", "3"])
    assert apart == capsys.readouterr().out


def test_a_plan_that_does_not_fit_says_what_does(capsys):
    command = [*small(Path("nowhere"))[:2], "trainer.batch_size=64", "--plan", "--gpu", "0.9"]
    found = train.main(command)
    assert found["fits"] is False
    assert found["remedies"]
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert said.startswith("so this fits: python train.py quickstart name=run trainer.batch_size=64 ")
    again = train.main([*said.partition("train.py ")[2].split(), "--plan", "--gpu", "0.9"])
    assert again["fits"] is True
    assert not Path("nowhere").exists()


def test_a_plan_for_other_regions_proposes_these(capsys):
    train.main([*small(Path("nowhere"))[:2], "trainer.batch_size=64", "--plan", "--gpu", "0.75", "--regions", "2"])
    said = capsys.readouterr().out.strip().splitlines()[-1]
    assert said.startswith("so this fits: python train.py quickstart name=run trainer.batch_size=64 data.regions=2 ")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gpu", "24"], "--gpu and --regions belong to --plan"),
        (["--plan", "--gpu", "0"], "--gpu 0: the card's memory in GB, a positive number"),
        (["--plan", "--gpu", "nan"], "a positive number"),
        (["--plan", "--regions", "0"], "--regions 0: at least 1"),
    ],
)
def test_mistakes_about_plans(more, message, capsys):
    with pytest.raises(SystemExit):
        train.main(["quickstart", *more])
    assert message in capsys.readouterr().err


def test_no_experiment_is_a_usage_error(capsys):
    with pytest.raises(SystemExit):
        train.main([])
    assert "quickstart" in capsys.readouterr().err


def test_configuration_mistakes_are_found_before_anything_is_made(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        train.main(["quickstart", f"outputs={tmp_path}", "trainer.stesp=1"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.llm.plugin=tiny_casual"], "no llm_adapter plugin 'tiny_casual'. Did you mean 'tiny_causal'?"),
        (["model.llm.widht=32"], "unknown key 'widht'. Did you mean 'width'?"),
        (["trainer.steps=many"], "trainer.steps"),
        (["trainer.precision=8"], "trainer.precision"),
        (["data.root=/no/such/folder"], "/no/such/folder"),
        (["model.image_level=9"], "image_level 9: the vision encoder has 4 levels"),
        (["model.vision_encoder.weights=nowhere.safetensors"], "no weights at"),
        (["model.vision_encoder.model_args.channels=[8,8,8,8]"], "does not fit"),
        (["trainer.accelerator=gpu"], "torch sees none here"),
    ],
)
def test_a_mistake_ends_in_a_line_that_teaches_and_does_not_take_the_name(tmp_path, arguments, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        run_entry(lambda: train.main(small(tmp_path, *arguments)))
    assert str(stopped.value).startswith("error: ")
    assert message in str(stopped.value)
    assert not (tmp_path / "run" / "checkpoints").exists()
    Run(tmp_path / "run").check("another: configuration\n")


def test_mistakes_of_the_data_come_before_the_parts_are_told(tmp_path, capsys):
    with pytest.raises(ImageError, match="/no/such/folder"):
        train.main(small(tmp_path, "data.root=/no/such/folder"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied", "x.csv"), OSError(28, "No space left on device"), ImportError("pip install 'roi-iqa[sam]'")],
)
def test_what_its_user_can_mend_is_no_traceback(error, monkeypatch):
    def main():
        raise error

    with pytest.raises(SystemExit, match=re.escape(f"error: {error}")):
        run_entry(main)
    monkeypatch.setenv("ROI_IQA_TRACEBACK", "1")
    with pytest.raises(type(error)):
        run_entry(main)


def test_a_bug_is_a_traceback():
    with pytest.raises(ZeroDivisionError):
        run_entry(lambda: 1 / 0)


def test_ctrl_c_ends_in_one_word(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run_entry(main)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_command_line_says_it_in_one_line(root):
    done = subprocess.run([sys.executable, "train.py", "quickstrat"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "\nerror: no experiment or benchmark 'quickstrat'" in f"\n{done.stderr}"
    assert "Traceback" not in done.stderr


def test_numbers_that_a_processor_is_slow_with_count_as_zero_while_a_model_trains(tmp_path, monkeypatch):
    def tiny():
        return float(torch.tensor(1e-39) * 1)

    class Ended(Exception):
        pass

    def fit(*_):
        seen.append(tiny())
        raise Ended

    seen: list[float] = []
    monkeypatch.setattr(train, "fit", fit)
    with pytest.raises(Ended):
        train.main(small(tmp_path))
    assert seen == [0]
    assert tiny() > 0


def test_new_tensors_are_not_written_twice(tmp_path, monkeypatch):
    """PyTorch fills each with NaN where algorithms are to be deterministic, which Lightning asks for."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    train.trainer(load_config("quickstart", [f"outputs={tmp_path}", "trainer.accelerator=cpu"]), Run(tmp_path), Ranks())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
