"""Every command, configuration and example of README runs as it stands, made small and without a network."""

import functools
import itertools
import json
import re
import runpy
import shlex
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import timm
from transformers import AutoModelForCausalLM, LlamaConfig

import app
import eval as evaluation_entry
import predict
import prepare
import train
from components import rle
from components.prompts import TOKENIZER_CORPUS
from components.registry import ConfigError
from components.tokenizer import project_tokenizer
from configs import schema
from configs.schema import load_config
from tests.components.released.official import NODE, write_checkpoint
from tests.test_app import free_port
from tests.test_docs import fenced
from tests.test_train import SMALL

pytestmark = pytest.mark.usefixtures("few_pictures")
README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [line for block in fenced(README, "bash") for line in block.splitlines() if line and not line.startswith("#")]
TRAININGS = [c for c in COMMANDS if c.startswith("python train.py ") and not {"--list", "--plan"} & set(c.split())]
SMALLER = [*SMALL, "trainer.steps=2", "trainer.threads=1", "trainer.workers=0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder to stand in: with photographs, and language models where README names any; nothing is fetched."""
    folder = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    photographs = folder / "path" / "to" / "photographs"
    photographs.mkdir(parents=True)
    for i in range(4):
        PIL.Image.fromarray(rng.integers(0, 255, (80, 90, 3), dtype=np.uint8)).save(photographs / f"{i}.png")
    PIL.Image.fromarray(rng.integers(0, 255, (150, 200, 3), dtype=np.uint8)).save(folder / "photo.jpg")
    mask = np.zeros((150, 200), bool)
    mask[20:60, 30:90] = True
    (folder / "regions.json").write_text(json.dumps([{"img": "photo.jpg", "rle": rle.encode(mask)["counts"]}]))
    write_checkpoint(folder / "SEAGULL-7B")
    tokenizer = project_tokenizer(TOKENIZER_CORPUS)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4
    )
    for name in set(re.findall(r"model\.llm\.source=(\S+)", README)):
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(autouse=True)
def _stand_in(place, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **options: create(name, **options))
    monkeypatch.chdir(place)


def has_the_key(experiment, given, override):
    """Whether the configuration has the key of an override; any other fault of it is not hidden."""
    try:
        load_config(experiment, [*given, override])
    except ConfigError as error:
        if "unknown key" not in str(error):
            raise
        return False
    return True


@functools.cache
def shortened(command):
    """The arguments of a training command, with those small values that its configuration has a key for."""
    experiment, given = loaded(command)
    fitting = [override for override in SMALLER if has_the_key(experiment, given, override)]
    return [experiment, *given, *fitting]


def loaded(command):
    """A training command's experiment and overrides."""
    experiment, *given = shlex.split(command)[2:]
    return experiment, given


@functools.cache
def folder_of(command):
    """Where a training command's run lies."""
    config = load_config(*loaded(command))
    return Path(config.outputs) / config.name


def trained(command):
    """The folder of a training command's run, made if it is not there yet."""
    folder = folder_of(command)
    if not (folder / "metrics.json").exists():
        assert train.main(shortened(command))["n_regions"] > 0
    return folder


def test_every_command_is_of_a_known_kind():
    known = (
        "pip install -e ",
        "python train.py ",
        "python eval.py ",
        "python predict.py ",
        "python prepare.py ",
        "python app.py ",
        "pytest",
    )
    assert [c for c in COMMANDS if not c.startswith(known)] == []
    assert COMMANDS[:3] == ['pip install -e ".[app]"', "python train.py quickstart", "python app.py outputs/quickstart"]
    assert len(TRAININGS) > 5


def test_what_is_installed_is_an_extra_of_setup_cfg(root):
    extras = re.search(r"\[options\.extras_require\]\n(.*?)\n\[", (root / "setup.cfg").read_text(), re.DOTALL)[1]
    names = set(re.findall(r"^(\w+) *=", extras, re.MULTILINE))
    for command in (c for c in COMMANDS if c.startswith("pip ")):
        ((target,),) = [shlex.split(command)[3:]]
        path, _, extra = target.rstrip("]").partition("[")
        assert path == "."
        assert not extra or set(extra.split(",")) <= names
    told = {e for c in COMMANDS if "[" in c for e in re.findall(r"\[(.*)\]", c)[0].split(",")}
    assert told == names


def test_ci_runs_the_lines_on_tests(root):
    lines = (root / ".ci" / "run").read_text().splitlines()
    block = next(b for b in fenced(README, "bash") if "pytest" in b)
    assert block.splitlines() == ['pip install -e ".[test]"', "pytest"]
    assert lines[-1] == "pytest"
    assert any(line.startswith("pip install ") and line.endswith(' -e ".[test]"') for line in lines)


@pytest.mark.parametrize("command", TRAININGS)
def test_training_commands_run(command):
    folder = trained(command)
    assert (folder / "report.html").exists()


EVALUATIONS = [c for c in COMMANDS if c.startswith("python eval.py ")]


def measured(command):
    """The result of an evaluation command, and what it compared; runs that it needs are made first, and other people's predictions."""
    arguments = shlex.split(command)[2:]
    entries = list(itertools.takewhile(lambda a: not a.startswith("--"), arguments))
    made = {str(folder_of(t)): t for t in TRAININGS}
    elsewhere = {c.split("--out ")[1].split()[0]: c for c in EVALUATIONS if "--on" in c}
    for run in (e for e in entries if not e.endswith(".csv")):
        if run in made:
            trained(made[run])
        elif not Path(run, "metrics.json").exists():
            measured(elsewhere[run])
    known = pd.read_parquet(Path(entries[0]) / "scores.parquet").rename(columns={"id": "region"})
    known.assign(score=range(len(known)))[["image", "region", "score"]].to_csv("theirs.csv", index=False)
    return evaluation_entry.main(arguments), entries


@pytest.mark.parametrize("command", EVALUATIONS)
def test_evaluation_commands_run(command):
    result, entries = measured(command)
    out = Path(command.split("--out ")[1].split()[0] if "--out" in command else "outputs/comparison")
    if len(entries) == 1:
        assert result["n_regions"] > 0
        assert "--on" not in command or (out / "report.html").exists()
    elif "datasets" in result:
        assert len(result["datasets"]) == 2
        assert (out / "across.md").exists()
    else:
        assert list(result["models"]) == [Path(e).stem for e in entries]
        assert (out / "report.html").exists()


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--plan" in c.split()])
def test_plans_are_made(command):
    """Of the language model four layers: the whole is planned for docs/memory.md and among the experiments."""
    assert train.main([*shlex.split(command)[2:], "model.llm.config.num_hidden_layers=4"])["fits"] is True


@pytest.fixture(scope="module")
def ready(place):
    """What the commands on models start from: quickstart's run, and an imported checkpoint that is small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        trained(TRAININGS[0])
        patch.setattr(schema, "load_model", lambda name: {**NODE} if name == "model/seagull_7b" else None)
        for command in (c for c in COMMANDS if c.startswith("python prepare.py ")):
            for training in (t for t in TRAININGS if str(folder_of(t)) in command.split()):
                trained(training)
            prepare.main(shlex.split(command)[2:])


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python prepare.py ")])
def test_commands_on_models_run(command, ready):
    assert Path(shlex.split(command)[4]).is_dir()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python predict.py ")])
def test_predictions_run(command, ready):
    arguments = shlex.split(command)[2:]
    found = predict.main(arguments)
    assert found["failed"] == 0
    assert found["regions"]
    for option in ("--out", "--overlay"):
        if option in arguments:
            assert Path(arguments[arguments.index(option) + 1]).exists()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python app.py ")])
def test_the_page_is_served(command, ready):
    with (
        app.Served([*shlex.split(command)[2:], "--port", str(free_port())]) as served,
        urllib.request.urlopen(served.url, timeout=60) as answer,
    ):
        assert answer.status == 200


def test_the_listing_runs(capsys):
    (command,) = [c for c in COMMANDS if "--list" in c]
    assert train.main(shlex.split(command)[2:]) == {}
    assert "timm_pyramid: " in capsys.readouterr().out


@pytest.mark.parametrize("text", fenced(README, "yaml"))
def test_configurations_are_whole(text, place):
    (place / "mine.yaml").write_text(text)
    assert "`python train.py mine.yaml`" in README
    config = load_config("mine.yaml")
    assert config.name == "mine"
    assert config.trainer.precision == "bf16-mixed"


@pytest.mark.parametrize("text", fenced(README, "python"))
def test_python_examples_run(text, place, capsys):
    trained(TRAININGS[0])
    (place / "example.py").write_text(text)
    capsys.readouterr()
    runpy.run_path("example.py")
    answers = capsys.readouterr().out.splitlines()
    assert len(answers) == 2
    assert all(line.startswith("{'quality': (") and "'distortion': (None, None, " in line for line in answers)


@pytest.mark.parametrize("file", re.findall(r"^\| (`[\w./]+`(?:, `[\w./]+`)*) \| ", README, re.MULTILINE))
def test_a_run_holds_the_files_of_the_table(file):
    folder = trained(TRAININGS[0])
    assert all((folder / name).exists() for name in re.findall(r"`([\w./]+)`", file))


def test_the_encoders_run_ends_in_the_file_that_is_named():
    assert "`outputs/encoder_quickstart/vision_encoder.safetensors`" in README
    (command,) = [c for c in TRAININGS if c.endswith("encoder_quickstart")]
    assert (trained(command) / "vision_encoder.safetensors").exists()
