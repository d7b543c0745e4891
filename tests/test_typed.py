"""Who installs the package has its types (PEP 561): README's Python example is checked as a program of somebody else's."""

import subprocess
import sys
import sysconfig
import venv

import pytest

from tests.conftest import ROOT
from tests.test_docs import fenced

(EXAMPLE,) = fenced((ROOT / "README.md").read_text(), "python")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A folder with an environment of its own, in which the package is installed and nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=False)
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder / "venv"), "platbase": str(folder / "venv")})
    build = ["-c", "from setuptools import setup; setup()", "--quiet", "build_py", "--build-lib", site]
    subprocess.run([sys.executable, *build], cwd=ROOT, check=True, capture_output=True)
    return folder


def checked(folder, program):
    """What mypy says of a program there; what is not installed there is of any type."""
    (folder / "program.py").write_text(program)
    python = folder / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--python-executable", str(python), "--cache-dir", "cache"]
    done = subprocess.run([*command, "program.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def test_the_example_of_readme_is_typed(elsewhere):
    told = checked(elsewhere, f"{EXAMPLE}\nreveal_type(scorer)\nreveal_type(region)\nreveal_type(region['quality'].value)\n")
    assert 'Revealed type is "inference.engine.Engine"' in told
    assert "components.tasks.RoiScore" in told
    assert 'Revealed type is "float | None"' in told
    assert "error:" not in told


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("answer.std", "answer.stdev", '"RoiScore" has no attribute "stdev"'),
        ('"outputs/quickstart"', "5", 'Argument 1 to "load" has incompatible type "int"'),
        ('scorer.score("photo.jpg", ', 'scorer.score("photo.jpg", tasks=["beauty"], regions=', "List item 0 has incompatible type"),
    ],
)
def test_what_is_wrong_with_it_is_found(elsewhere, right, wrong, said):
    assert right in EXAMPLE
    assert said in checked(elsewhere, EXAMPLE.replace(right, wrong))
