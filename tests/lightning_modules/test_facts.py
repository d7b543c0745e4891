"""What a run records of itself."""

import json

import torch

from lightning_modules.facts import facts


def test_facts_can_be_written(tmp_path, root):
    found = facts(root, torch.device("cpu"))
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"]
    assert facts(tmp_path, torch.device("cpu"))["git"] == "unknown"
