"""The experiment's schema, and how a configuration is put together: include, layer, check, resolve, freeze.

How files and the command line are layered is said in `configs.layers`. Everything is checked here, plugins included, before any data
is read or any weight is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from components.distillation import Terms
from components.registry import ConfigError, check_keys, suggest
from components.scorers.base import SCORERS
from configs.layers import ROOT, from_overrides, layered, with_includes
from datamodules.datasets.base import DATASETS


@dataclass
class Trainer:
    """How long and on what. One step is `accumulate` batches of `batch_size` images, or `max_tokens` tokens, with all their regions.

    Attributes:
        max_tokens: tokens of a batch, padding included: as many images of like length as fit, in place of `batch_size`; 0 for none.
        steps: optimizer steps.
        devices: processes on each node, a GPU each; "auto" for what torchrun or srun started, else for all GPUs, else for one.
        nodes: machines that train together, on which torchrun or srun starts the processes.
        strategy: how several processes share the work: "ddp" (auto) gives each the whole model, "fsdp" a part of every parameter, of its
            gradient and of the optimizer's state.
        clip: largest gradient norm; 0 does not clip.
        accumulate: batches of each process per optimizer step.
        val_every, save_every: in optimizer steps.
        workers: loader processes.
        threads: CPU threads of PyTorch; 0 leaves its own choice.
        cache_features: encode each training image once, before the first step, and keep what a frozen vision encoder saw (half precision):
            in memory with all that belongs to the image (about a megabyte each with quickstart's encoder and six regions), or on disk,
            in the data's cache, for later runs too. A trained encoder has nothing to keep. true and false mean memory and off.
    """

    steps: int = 1000
    batch_size: int = 8
    max_tokens: int = 0
    accumulate: int = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | str = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    clip: float = 1.0
    val_every: int = 200
    save_every: int = 200
    log_every: int = 10
    workers: int = 0
    threads: int = 0
    cache_features: Literal["off", "memory", "disk"] = "off"


@dataclass
class Optim:
    """The optimizer, with linear warm-up and cosine decay to `final` of the peak.

    Attributes:
        lr: peak learning rate.
        lr_scale: factor on `lr` for a part of the scorer, by name ({vision_encoder: 0.1}); 1 where not named.
        warmup: steps of linear warm-up.
        final: share of the peak rate at the last step.
        optimizer: AdamW as PyTorch has it; "adam", whose decay is added to the gradients of all parameters (L2), biases and norms too, as
            MobileIQA and TeacherIQA were trained; or bitsandbytes' AdamW with its moments in 8 bits (a quarter of the memory), which
            "paged" lets the GPU move to the CPU while it needs the room.
    """

    optimizer: Literal["adamw", "adam", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    lr: float = 1e-3
    lr_scale: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    warmup: int = 50
    final: float = 0.02


@dataclass
class Evaluation:
    """What is measured after training.

    Attributes:
        batch_size: images at a time.
    """

    batch_size: int = 8


@dataclass
class Distillation:
    """A student learns from a teacher (`components.distillation`).

    Attributes:
        teacher: folder of a finished run or of a saved model; "" for no distillation.
        score, levels, opinions: weights of the three terms.
    """

    teacher: str = ""
    score: float = 1.0
    levels: float = 1.0
    opinions: float = 1.0


@dataclass
class Experiment:
    """One named result: `model` and `data` are plugin nodes, of a scorer and of a data set.

    Attributes:
        start_from: the folder of a run or of a saved model, whose trained tensors training begins with; "" for what `model` says. Its
            tensors must be exactly those trained here, and stand on the same frozen weights.
    """

    name: str = MISSING
    description: str = ""
    seed: int = 0
    outputs: str = "outputs"
    start_from: str = ""
    save_vision_encoder: bool = False  # write the trained vision encoder as safetensors beside the report
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)
    optim: Optim = field(default_factory=Optim)
    distillation: Distillation = field(default_factory=Distillation)
    evaluation: Evaluation = field(default_factory=Evaluation)


def load_config(path: str, overrides: Sequence[str] = ()) -> Experiment:
    """Reads `path` (a file, or a name under `configs/experiment/`), applies `key.sub=value` overrides, checks everything.

    Raises:
        ConfigError: unknown experiment, key or plugin; wrong type; missing value.
    """
    layers = [*with_includes(_find(path), ()), from_overrides(overrides)]
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = layered(merged, layer)
    return checked(merged)


def load_model(path: str) -> dict[str, Any]:
    """The key `model` of a preset (a file, or a name under `configs/` such as "model/seagull_7b"), its includes layered, checked.

    Raises:
        ConfigError: no such file, no key `model`, or a mistake in it.
    """
    found = next((p for p in (Path(path), ROOT / f"{path}.yaml") if p.is_file()), None)
    if found is None:
        presets = sorted(p.relative_to(ROOT).with_suffix("").as_posix() for p in (ROOT / "model").glob("*.yaml"))
        raise ConfigError(f"no model file '{path}': it is neither a file nor one of {', '.join(presets)}")
    merged: dict[str, Any] = {}
    for layer in with_includes(found, ()):
        merged = layered(merged, layer)
    if not isinstance(merged.get("model"), dict):
        raise ConfigError(f"{found} has no key 'model' with a plugin below it")
    SCORERS.part(merged["model"], "model")
    return cast("dict[str, Any]", merged["model"])


def checked(values: Mapping[str, Any]) -> Experiment:
    """Plain values -> a resolved, checked `Experiment`."""
    _check_keys(Experiment, values, "")
    if values.get("name") in (None, "", ".", "..") or set("/\\") & set(str(values["name"])):
        raise ConfigError(f"name: an experiment needs a name, which is a folder's and has no slash; got {values.get('name')!r}")
    try:
        config = OmegaConf.merge(OmegaConf.structured(Experiment), _with_words(values))
        OmegaConf.resolve(config)
        experiment = cast(Experiment, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{key or 'configuration'}: {str(error).splitlines()[0]}") from error
    _check_ranges(experiment)
    SCORERS.part(experiment.model, "model")
    DATASETS.part(experiment.data, "data")
    return experiment


def _with_words(values: Mapping[str, Any]) -> dict[str, Any]:
    """true and false of `trainer.cache_features`, which YAML also makes of on and off, as words."""
    trainer = values.get("trainer", {})
    if isinstance(trainer, Mapping) and isinstance(trainer.get("cache_features"), bool):
        word = "memory" if trainer["cache_features"] else "off"
        return {**values, "trainer": {**trainer, "cache_features": word}}
    return dict(values)


def to_yaml(experiment: Experiment) -> str:
    """The resolved configuration; `load_config` reads it back to the same experiment."""
    return OmegaConf.to_yaml(OmegaConf.structured(experiment))


def change_config(text: str, overrides: Sequence[str]) -> Experiment:
    """The configuration that `to_yaml` wrote, with `key.sub=value` overrides; checked as `load_config` does."""
    return checked(layered(yaml.safe_load(text), from_overrides(overrides)))


def experiments() -> list[str]:
    """The names under `configs/experiment/`."""
    return sorted(p.stem for p in (ROOT / "experiment").glob("*.yaml"))


def _find(path: str) -> Path:
    candidates = [Path(path), ROOT / "experiment" / f"{path}.yaml"]
    found = next((p for p in candidates if p.is_file()), None)
    if found is None:
        raise ConfigError(f"no experiment '{path}', and no file of that name. {suggest(path, experiments())}")
    return found


def _check_ranges(experiment: Experiment) -> None:
    t, o, d = experiment.trainer, experiment.optim, experiment.distillation
    Terms(d.score, d.levels, d.opinions)  # refuses weights that are none
    least_one = {
        f"trainer.{k}": getattr(t, k) for k in ("steps", "batch_size", "accumulate", "nodes", "val_every", "save_every", "log_every")
    }
    if t.devices != "auto" and (not isinstance(t.devices, int) or t.devices < 1):
        raise ConfigError(f"trainer.devices: got {t.devices!r}, expected a number of at least 1, or auto")
    least_one["evaluation.batch_size"] = experiment.evaluation.batch_size
    least_zero = {"seed": experiment.seed, "trainer.clip": t.clip, "trainer.workers": t.workers, "trainer.threads": t.threads}
    least_zero["trainer.max_tokens"] = t.max_tokens
    least_zero |= {"optim.lr": o.lr, "optim.weight_decay": o.weight_decay, "optim.warmup": o.warmup, "optim.final": o.final}
    for least, found in ((1, least_one), (0, least_zero)):
        for key, value in found.items():
            if not value >= least:
                raise ConfigError(f"{key}: got {value}, expected at least {least}")


def _check_keys(schema: type, values: Mapping[str, Any], where: str) -> None:
    known = {f.name: f for f in fields(schema)}
    check_keys(values, list(known), where or "configuration")
    for name, value in values.items():
        nested = known[name].default_factory
        if isinstance(nested, type) and is_dataclass(nested) and isinstance(value, Mapping):
            _check_keys(nested, value, f"{where}.{name}".lstrip("."))
