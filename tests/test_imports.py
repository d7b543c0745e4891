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


ABOUT_DATA = """
import sys
from pathlib import Path
import prepare
from datamodules.datasets.base import DATASETS
from tests.datamodules.seagull_100w_files import write_images, write_labels
place, tables = Path(sys.argv[1]), DATASETS.get("indexed").tiny()["root"]
write_labels(place / "download", 2)
write_images(place / "download", 2)
prepare.main(["index", str(place / "download"), str(place / "tables")])
prepare.main(["validate", tables])
prepare.main(["show", tables, str(place / "page.html"), "--pictures", "1", "--images", "1", "--data", f"cache={place}"])
sys.exit(", ".join({"torch", "transformers", "lightning", "timm"} & {*sys.modules}) or 0)
"""


def test_commands_about_data_do_without_pytorch(root, tmp_path):
    """It takes seconds and a quarter of a GiB: half of what small data take, and a good part of what `prepare.py index` may take."""
    subprocess.run([sys.executable, "-c", ABOUT_DATA, str(tmp_path)], cwd=root, timeout=300, check=True)
