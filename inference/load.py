"""A trained run as a scorer."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from components.scorers.base import SCORERS, Scorer

_PREFIX = "scorer."  # of the scorer's tensors in a checkpoint


def load(run: str | Path, device: torch.device | str = "cpu") -> Scorer:
    """Builds the scorer of `outputs/<name>/`, reads its weights, and returns it in eval mode.

    Raises:
        FileNotFoundError: the folder has no config.yaml or no checkpoint.
        ValueError: the checkpoint is of another architecture than config.yaml says.
    """
    folder = Path(run)
    config, checkpoint = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    for path in (config, checkpoint):
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {path.relative_to(folder)}: give the folder of a run that train.py made")
    scorer = SCORERS.build(yaml.safe_load(config.read_text())["model"], where="model")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    state = {k.removeprefix(_PREFIX): v for k, v in state.items()}
    scorer.check_trained(state)  # before anything large is read
    with torch.device(device):  # quantised weights are made where they will be used
        scorer.load_pretrained()
    scorer.load_trained(state)
    return scorer.to(device).eval()
