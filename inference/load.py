"""A trained model as a scorer: from a run's folder, a saved model's folder, or the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor

from components.checkpoints import is_checkpoint, read
from components.foundation import Foundations, check_foundations
from components.registry import ConfigError
from components.scorers.base import SCORERS, Scorer
from inference.changed import changed
from inference.saved import CONFIG, FOUNDATIONS, WEIGHTS, About, check_plugins, check_preprocess, is_saved, load_saved, saved_node

_PREFIX = "scorer."  # of the scorer's tensors in a checkpoint
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FETCHED = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.md"]  # no pickles


def choose_device(accelerator: str) -> torch.device:
    """The device of an accelerator: "auto" is a GPU where there is one.

    Raises:
        ConfigError: an unknown word, or a GPU is asked for and there is none.
    """
    if accelerator not in ("auto", "cpu", "gpu"):
        raise ConfigError(f"accelerator: got {accelerator!r}, expected auto, cpu or gpu")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("the accelerator is gpu, but torch sees none here: use auto or cpu")
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def load(model: str | Path, device: torch.device | str = "cpu", quantization: str = "", grammar: bool | None = None) -> Scorer:
    """Builds a scorer, reads its weights, and returns it in eval mode.

    Args:
        model: the folder of a run (`outputs/<name>`), the folder of a saved or imported model, or a name on the hub (`user/name`).
        quantization, grammar: see `inference.changed`.

    Raises:
        FileNotFoundError: no such model.
        ConfigError: an option that this model does not allow.
        ValueError: the weights are of another architecture than the configuration says.
    """
    return find(model, device, partial(changed, quantization=quantization, grammar=grammar))[0]


def find(
    model: str | Path, device: torch.device | str = "cpu", change: Callable[[dict[str, Any]], dict[str, Any]] = dict, **hub: Any
) -> tuple[Scorer, dict[str, Any], About]:
    """As `load`, with the plugin node, after `change`, and what is known about the model; `hub` goes to
    `huggingface_hub.snapshot_download`."""
    folder = located(model, **hub)
    return (load_saved if is_saved(folder) else _from_run)(folder, device, change)


def located(model: str | Path, **hub: Any) -> Path:
    """The folder of a model: its own, or, of a name on the hub, that of the snapshot, whose name is the commit; it is fetched if need be.

    Raises:
        FileNotFoundError: no such model.
        ConfigError: a model on the hub wants code that nobody has imported.
    """
    if Path(model).is_dir():
        return Path(model)
    fetched = _fetched(str(model), **hub)
    check_plugins(fetched)
    return fetched


def described(model: str | Path) -> dict[str, Any]:
    """The plugin node of a run or of a saved model here; reads no weights.

    Raises:
        FileNotFoundError: no such model.
    """
    folder = Path(model)
    if is_saved(folder):
        return saved_node(folder)
    config = folder / "config.yaml"
    if not config.is_file():
        raise FileNotFoundError(f"{folder} is neither a run (config.yaml) nor a saved model ({CONFIG}, {WEIGHTS})")
    return dict(yaml.safe_load(config.read_text())["model"])


def _fetched(name: str, **hub: Any) -> Path:
    """The folder of a model on the hub, in its cache."""
    if not _HUB_NAME.fullmatch(name):
        raise FileNotFoundError(f"{name}: no such folder, and no name on the hub (user/name) either. Runs are under outputs/")
    above = Path(name).parent
    if above.is_dir():
        there = ", ".join(sorted(p.name for p in above.iterdir() if (p / "config.yaml").is_file() or is_saved(p))) or "no model"
        raise FileNotFoundError(f"{name}: no such folder; {above} holds {there}")
    try:
        return Path(snapshot_download(name, allow_patterns=_FETCHED, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"{name}: no such folder here, and the hub did not give it ({reason})") from error


def _from_run(
    folder: Path, device: torch.device | str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[Scorer, dict[str, Any], About]:
    config, checkpoint = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    for path, there in ((config, config.is_file()), (checkpoint, is_checkpoint(checkpoint))):
        if not there:
            raise FileNotFoundError(
                f"{folder} has no {path.relative_to(folder)}: give the folder of a run that train.py made, or of a saved model "
                f"({CONFIG}, {WEIGHTS})"
            )
    values = yaml.safe_load(config.read_text())
    node = change(values["model"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(values["seed"])  # as training did: frozen random weights are in no file
        scorer = SCORERS.build(node, where="model")
    check_preprocess(folder / "run.json", scorer)
    state, foundations = _trained_run(checkpoint)
    scorer.check_trained(state)  # before anything large is read
    with torch.device(device):  # quantised weights are made where they will be used
        scorer.load_pretrained()
    check_foundations(foundations, scorer.foundations(), str(folder))
    scorer.load_trained(state)
    return scorer.to(device).eval(), node, About(made=_made(folder))


def trained(model: str | Path) -> tuple[dict[str, Tensor], Foundations | None]:
    """What was trained, by the names of the scorer's state, and what it stands on, of a run or a saved model here; builds nothing. None
    where the model does not say what it stands on, because it brings it along.

    Raises:
        FileNotFoundError: no such model.
    """
    folder = Path(model)
    if is_saved(folder):
        return load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text()).get(FOUNDATIONS)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if not is_checkpoint(checkpoint):
        raise FileNotFoundError(f"{folder} is neither a run that has saved (checkpoints/last.ckpt) nor a saved model ({CONFIG}, {WEIGHTS})")
    return _trained_run(checkpoint)


def _trained_run(checkpoint: Path) -> tuple[dict[str, Tensor], Foundations]:
    found = read(checkpoint, only="state_dict")
    return {k.removeprefix(_PREFIX): v for k, v in found["state_dict"].items()}, found.get("foundations", {})


def _made(folder: Path) -> dict[str, Any]:
    """What a run recorded of itself, without the data's details."""
    found: dict[str, Any] = {}
    for name, keys in (("run.json", ("command", "git", "python", "packages", "device", "seed")), ("metrics.json", None)):
        path = folder / name
        if path.is_file():
            values = json.loads(path.read_text())
            found |= {"metrics": values} if keys is None else {k: values[k] for k in keys if k in values}
    return found
