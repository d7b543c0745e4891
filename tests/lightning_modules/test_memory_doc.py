"""The numbers of docs/memory.md are what the tool says now."""

import re

import pytest

import train
from lightning_modules.plan import GIB
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "memory.md").read_text()
ROWS = re.findall(r"^\| (?:`([^`]+)` )?\| (\d+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|$", TEXT, re.MULTILINE)


def test_the_table_is_found():
    assert len(ROWS) == 7


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_what_the_tool_says(row, capsys):
    options, regions, tokens, weights, total = row
    experiment = [] if options.startswith("seagull_7b") else ["seagull_7b"]  # the second table names its own
    found = train.main([*experiment, *options.split(), "--plan", "--regions", regions])
    assert found["tokens"]["row"] == int(tokens.replace(",", ""))
    assert f"{found['training']['weights'] / GIB:.1f}" == weights
    said = re.search(r"^GPU memory +([\d.]+)", capsys.readouterr().out, re.MULTILINE)[1]
    assert float(said) == pytest.approx(float(total), abs=0.051)
    assert found["fits"] is None
