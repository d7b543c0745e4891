"""CONTRIBUTING's vision encoder is one file that is found, keeps the contract and trains; its lists and commands are true."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import components.vision_encoders as package
import train
from components.vision_encoders.base import VISION_ENCODERS
from configs.listing import KINDS
from tests.components.vision_encoders import test_vision_encoder_contract as contract
from tests.test_docs import CHECKS, fenced
from tests.test_train import small

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
NAME = "my_encoder"
PROMISES = sorted(name for name in vars(contract) if name.startswith("test_"))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The example, written where the vision encoders look beside their own folder."""
    (example,) = [block for block in fenced(TEXT, "python") if f'register("{NAME}")' in block]
    path = tmp_path_factory.mktemp("overlay") / f"{NAME}.py"
    path.write_text(example)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
        importlib.invalidate_caches()
        yield path
    VISION_ENCODERS._classes.pop(NAME, None)
    sys.modules.pop(f"{package.__name__}.{NAME}", None)
    vars(package).pop(NAME, None)


@pytest.fixture
def plugin(file):
    return VISION_ENCODERS.get(NAME)


def test_it_is_found_and_comes_from_the_page(file, plugin):
    assert NAME in VISION_ENCODERS.names()
    assert sys.modules[plugin.__module__].__file__ == str(file)
    assert f"`components/vision_encoders/{NAME}.py`" in TEXT


def test_it_is_listed(file, capsys):
    train.main(["--list"])
    assert f"  {NAME}: Four levels" in capsys.readouterr().out


@pytest.mark.parametrize("promise", PROMISES)
def test_it_keeps_the_contract(plugin, promise):
    getattr(contract, promise)(plugin)


def test_it_trains_by_the_command_of_the_page(file, tmp_path):
    (command,) = [line for block in fenced(TEXT, "bash") for line in block.splitlines() if line.startswith("python train.py")]
    experiment, *given = shlex.split(command)[2:]
    assert (experiment, f"model.vision_encoder.plugin={NAME}" in given) == ("quickstart", True)
    metrics = train.main([*small(tmp_path, *given), "trainer.steps=2", "trainer.threads=1", "model.vision_encoder.width=4"])
    assert metrics["n_regions"] > 0
    assert f"plugin: {NAME}" in (tmp_path / "mine" / "config.yaml").read_text()


@pytest.mark.parametrize("arguments", [["format", "--check"], ["check"]])
def test_it_is_in_order(file, root, arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--config", str(root / "pyproject.toml"), str(file)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_kinds_are_those_there_are():
    (sentence,) = re.findall(r"^The kinds are (.*)\.$", TEXT, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", sentence)) == {registry.kind for registry in KINDS}
    folders = re.findall(r"^- \*\*[\w ]+\*\* \(`([\w/]+)/`\)", TEXT, re.MULTILINE)
    assert {f.replace("/", ".") for f in folders} | {package.__name__} == {registry.package for registry in KINDS}


def test_what_is_named_of_a_contract_is_in_it():
    for registry in KINDS:
        folder = registry.package.replace(".", "/")
        said = re.search(rf"\(`{folder}/`\)(.*?)(?=\n- |\n\n)", TEXT, re.DOTALL)
        if said:
            fields = dir(registry.contract) + list(inspect.get_annotations(registry.contract))
            assert [word for word in re.findall(r"`(\w+)(?:\([\w, ]*\))?`", said[1]) if word not in fields] == []


def test_every_kind_has_a_contract_test(root):
    for registry in KINDS:
        folder = root / "tests" / registry.package.replace(".", "/")
        assert list(folder.glob("test_*_contract.py")), f"{folder.relative_to(root)} has no contract test"


def test_the_paths_are_there(root):
    paths = [p for p in re.findall(r"`([\w./]+/[\w./]*)`", TEXT) if not p.endswith(f"/{NAME}.py")]
    assert len(paths) > 10
    assert [p for p in paths if not (root / p).exists()] == []


def test_the_checks_are_those_of_make():
    (sentence,) = re.findall(r"`make check` is (.*?): the same four", TEXT)
    assert re.findall(r"`([^`]+)`", sentence) == [c.removesuffix(" .") for c in CHECKS]
