"""Imports point one way: each folder may import those it stands on, and nothing above."""

import ast
import subprocess
import sys

import pytest

OURS = {
    "components",
    "configs",
    "datamodules",
    "evaluation",
    "inference",
    "lightning_modules",
    "train",
    "eval",
    "predict",
    "prepare",
    "app",
}
ALLOWED = {
    "components": {"components"},
    "datamodules": {"components", "datamodules"},
    "evaluation": {"components", "datamodules", "evaluation"},
    "inference": {"components", "datamodules", "inference"},
    "lightning_modules": {"components", "datamodules", "lightning_modules"},
    "configs": {"components", "configs", "datamodules"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


@pytest.mark.parametrize("folder", ALLOWED)
def test_directions(root, folder):
    files = list((root / folder).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            top = name.partition(".")[0]
            assert top not in OURS or top in ALLOWED[folder], f"{path.relative_to(root)} imports {name}"


def test_components_never_see_lightning(root):
    for path in (root / "components").rglob("*.py"):
        assert not any(n.partition(".")[0] in ("lightning", "pytorch_lightning") for n in imported(path)), path


def test_only_entries_read_the_schema(root):
    for folder in ALLOWED.keys() - {"configs"}:
        for path in (root / folder).rglob("*.py"):
            assert not any(n.startswith("configs") for n in imported(path)), path


def test_omegaconf_stays_in_two_files(root):
    files = [p for folder in ALLOWED for p in (root / folder).rglob("*.py")]
    users = {p.relative_to(root).as_posix() for p in files if any(n.partition(".")[0] == "omegaconf" for n in imported(p))}
    assert users <= {"components/registry.py", "configs/schema.py", "configs/listing.py"}


def test_every_module_imports(root):
    """A module that only an optional package can import says so itself; the others import with what is installed."""
    import importlib

    for folder in ALLOWED:
        for path in (root / folder).rglob("*.py"):
            importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))


def test_commands_about_data_do_without_language_models(root):
    """Their libraries take a quarter of a GiB, and of what `prepare.py index` may take that is much."""
    code = "import sys, prepare, datamodules.seagull_100w; sys.exit('components.llm_adapters.hf_causal' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=root, timeout=300, check=True)
