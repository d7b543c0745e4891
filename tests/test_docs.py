"""README and the other pages say what the tree holds; CI, the commit hooks and `make check` run the same tools."""

import ast
import os
import re
import shutil
import subprocess

import pytest
import yaml

from configs.listing import KINDS

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/app.md",
    "docs/benchmark.md",
    "docs/data.md",
    "docs/decisions.md",
    "docs/memory.md",
    "docs/performance.md",
    "docs/predict.md",
    "docs/released.md",
    "docs/scorers.md",
    "docs/swap_matrix.md",
    "docs/training.md",
    "docs/variants.md",
)
CHECKS = ["ruff format --check .", "ruff check .", "mypy", "pytest"]


def fenced(text, language):
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def tracked(root):
    """The files that are, or would be, under version control; outside a checkout, all but caches and outputs."""
    asked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        paths = [root / line for line in listed.stdout.splitlines()]
    else:
        made = {"__pycache__", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", "outputs", "build", "dist"}
        paths = [p for p in root.rglob("*") if not made & set(p.relative_to(root).parts)]
    return [p for p in paths if p.is_file()]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(root, page):
    here = (root / page).parent
    links = re.findall(r"\]\(([^)\s]+)\)", (root / page).read_text())
    missing = [link for link in links if "://" not in link and not link.startswith("#") and not (here / link.partition("#")[0]).exists()]
    assert missing == []


def test_the_tree_is_there(root):
    (tree,) = fenced((root / "README.md").read_text(), "text")
    lines = [re.split(r"  +(?=\S)", line) for line in tree.splitlines()]
    named = [entry for line in lines for entry in line[:-1]]
    assert all(line[-1] for line in lines)
    assert [path for path in named if not (root / path).exists()] == []
    with_code = {path.relative_to(root).parts[0] for path in tracked(root) if path.suffix == ".py" and path.parent != root}
    assert {path.rstrip("/") for path in named if path.count("/") == 1 and path.endswith("/")} == with_code | {"docs"}


def test_what_is_in_the_table_is_what_is_on_the_disk(root):
    text = (root / "README.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text[text.index("| kind |") :].split("\n\n")[0].splitlines()]
    told = {row[1].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows[2:]}
    folders = [registry.package.replace(".", "/") for registry in KINDS]
    assert told == {f: {p.stem for p in (root / f).glob("[a-z]*.py") if p.stem != "base"} for f in folders}


def test_decisions_name_files_that_exist(root):
    text = (root / "docs" / "decisions.md").read_text()
    paths = [p for p in re.findall(r"`([\w./-]+)`", text) if "/" in p or p.endswith((".py", ".md", ".yaml"))]
    assert len(paths) > 10
    assert [p for p in paths if not (root / p).exists()] == []


def test_each_decision_is_one_paragraph(root):
    first, *decisions = (root / "docs" / "decisions.md").read_text().split("\n## ")
    assert first.startswith("# Decisions")
    for decision in decisions:
        title, _, body = decision.partition("\n\n")
        assert title.strip()
        assert body.strip()
        assert "\n\n" not in body.strip(), title


def test_no_placeholder_is_left(root):
    assert re.findall(r"\{\{\w+\}\}", (root / "README.md").read_text()) == []


def test_no_machine_and_no_registry_is_named(root):
    hosts = ("py" + "pi.org", "python" + "hosted.org", "download.py" + "torch.org", "conda." + "anaconda.org", "npm" + "js.org")
    places = (r"/ho" + r"me/\w", r"/Us" + r"ers/\w", r"/wo" + r"rk/\w", r"/ro" + r"ot/\w", r"/tm" + r"p/\w", r"\b[A-Z]:\\\\?Us" + "ers")
    forbidden = re.compile("|".join((*map(re.escape, hosts), *(rf"(?<![\w.$}}]){place}" for place in places))))
    found = []
    for path in tracked(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(root)}: {match[0]}" for match in forbidden.finditer(text)]
    assert found == []


def test_the_changelog_leads_to_the_version(root):
    version = re.search(r"^version = (\S+)$", (root / "setup.cfg").read_text(), re.MULTILINE)[1]
    assert f"{version}" in (root / "CHANGELOG.md").read_text()
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert citation["license"] == "Apache-2.0"
    assert "2411.10161" in citation["references"][0]["url"]


def test_the_licence_is_whole(root):
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_make_check_the_hooks_and_ci_run_the_same_tools(root):
    makefile = (root / "Makefile").read_text()
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    assert [line.strip() for line in recipe.splitlines()] == CHECKS
    (repo,) = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repo["hooks"]] == CHECKS[:-1]
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    assert (root / ".ci" / "run").read_text().splitlines()[-len(CHECKS) :] == CHECKS


STUB = """#!/usr/bin/env bash
echo "${0##*/} $*" >>"$CALLS"
case "${0##*/} $*" in
    "python3 -m venv "*) mkdir -p "$3/bin"; for tool in pip ruff mypy pytest; do cp "$0" "$3/bin/$tool"; done ;;
    "pip install "*) mkdir roi_iqa.egg-info ;;
    "$FAILS") exit 3 ;;
esac
"""


@pytest.mark.parametrize(("fails", "status", "last"), [("nothing", 0, "pytest "), ("mypy ", 3, "mypy ")])
def test_ci_makes_its_room_runs_all_and_tidies_up(root, tmp_path, fails, status, last):
    """With stand-ins for the tools: their order, the first failure's status, and nothing left behind."""
    checkout, tools, rooms = tmp_path / "checkout", tmp_path / "tools", tmp_path / "rooms"
    (checkout / ".ci").mkdir(parents=True)
    rooms.mkdir()
    tools.mkdir()
    shutil.copy2(root / ".ci" / "run", checkout / ".ci" / "run")
    (tools / "python3").write_text(STUB)
    (tools / "chromium").write_text(STUB)  # is there, so none is installed
    for tool in tools.iterdir():
        tool.chmod(0o755)
    calls = tmp_path / "calls"
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(rooms), "CALLS": str(calls), "FAILS": fails}
    done = subprocess.run([checkout / ".ci" / "run"], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    made, installed, *checked = calls.read_text().splitlines()
    assert made.startswith("python3 -m venv ")
    assert installed.endswith(" -e .[test]")
    assert [c.strip() for c in checked] == CHECKS[: len(checked)]
    assert checked[-1] == last
    assert [p.name for p in checkout.iterdir()] == [".ci"]
    assert list(rooms.iterdir()) == []


@pytest.mark.parametrize("page", PAGES)
def test_python_examples_parse(root, page):
    for block in fenced((root / page).read_text(), "python"):
        ast.parse(block)
