"""A model as a folder that describes itself: what it is, what it builds on, how it must be fed and asked, and its weights.

    config.json          architecture, base models, preprocessing, wording, licence, how it was made
    model.safetensors    what was trained, by the names of the scorer's state
    <part>...            weights that it builds on and that no hub has: files or folders, which config.json names as ./<part>
    README.md            the same for readers

What comes from a hub is named with its revision, not copied. Weights are safetensors only.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import shutil
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import jinja2
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from components.foundation import RANDOM, Foundations, check_foundations
from components.registry import ConfigError, Part
from components.scorers.base import SCORERS, Scorer
from components.weights import ROOT

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FOUNDATIONS = "foundations"  # key of config.json: what the trained tensors stand on
_FORMAT = 1
_KEY = "roi_iqa"
_HERE = "./"  # a path that begins so lies in the folder itself
_NAMES = ("", "pretrained", "project")  # values of sources that are no paths
_COPIED = (".json", ".safetensors", ".model", ".jinja", ".txt", ".md")  # what belongs to a folder of weights and its tokenizer


@dataclass(frozen=True)
class About:
    """What a reader of a saved model should know, beside what its scorer tells by itself.

    Attributes:
        licence: of the weights; "" where nobody has said.
        base_models: [{"part": ..., "id": ..., "revision": ...}], of weights whose origin the plugins cannot know.
        made: how it came about: command, commit, versions, metrics, as far as known.
    """

    licence: str = ""
    base_models: tuple[Mapping[str, str], ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)


def save(folder: Path, scorer: Scorer, node: Mapping[str, Any], about: About) -> None:
    """Writes `scorer`, built from the plugin node `node`, into `folder`; takes along the local files that it builds on.

    Raises:
        ValueError: `node` is not that of the scorer, or weights that it stands on are in no file.
    """
    foundations = scorer.foundations()
    if lost := [part for part, base in foundations.items() if base["model"] == RANDOM]:
        raise ValueError(
            f"{', '.join(lost)}: frozen and random, so that no file holds these weights. Train them, start from a file, or for a language "
            "model with adapters: python prepare.py merge writes all of it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    keys = scorer.trained_keys()
    trained = {k: v.detach().cpu().contiguous() for k, v in scorer.state_dict().items() if k in keys}
    save_file(trained, folder / WEIGHTS, metadata={"format": "pt"})
    told = {part: {**base, "model": _HERE + part} if Path(base["model"]).exists() else base for part, base in foundations.items()}
    describe(folder, scorer, _pinned(_portable(node, SCORERS.part(node, "model"), folder), scorer), about, told)


def describe(folder: Path, scorer: Scorer, node: Mapping[str, Any], about: About, foundations: Foundations | None = None) -> None:
    """Writes config.json and README.md of a folder whose weights are there; `node` names them relative to it (./...).

    The scorer may stand on the meta device.
    """
    elsewhere = {name: part for name, part in scorer.parts().items() if not _is_here(node.get(name))}
    found = [{"part": name, **base} for name, part in elsewhere.items() if (base := _base_model(part)) is not None]
    config = {
        _KEY: {"format": _FORMAT, "version": importlib.metadata.version("roi-iqa")},
        "model": dict(node),
        "tasks": list(scorer.tasks),
        "base_models": [*found, *(dict(base) for base in about.base_models)],
        "preprocess": _plain(scorer.preprocess.told()),
        "wording": scorer.wording(),
        **({} if foundations is None else {FOUNDATIONS: foundations}),
        "licence": _licence(about, scorer),
        "made": dict(about.made),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    sizes = [(name, sum(p.numel() for p in part.parameters())) for name, part in scorer.parts().items()]
    template = jinja2.Template((Path(__file__).parent / "card.md.j2").read_text(), trim_blocks=True, lstrip_blocks=True)
    (folder / CARD).write_text(template.render(config=config, sizes=sizes, plugins=_plugins(node)) + "\n")


def _licence(about: About, scorer: Scorer) -> str:
    """What was said of the weights, and what the scorer says of what it is made with, which no other licence lifts."""
    own = [scorer.licence] if scorer.licence and scorer.licence not in about.licence else []
    return "; ".join([*([about.licence] if about.licence else []), *own])


def is_saved(folder: Path) -> bool:
    """Whether `folder` is one that `save` wrote."""
    try:
        return _KEY in json.loads((folder / CONFIG).read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError):
        return False


def saved_node(folder: Path) -> dict[str, Any]:
    """The node that a saved model is built from, paths resolved; reads no weights.

    Raises:
        ConfigError: it names files outside of its folder.
    """
    node = json.loads((folder / CONFIG).read_text())["model"]
    _check_inside(node, SCORERS.part(node, "model"), folder)
    return dict(_resolved(node, folder))


def load_saved(
    folder: Path, device: torch.device | str = "cpu", change: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> tuple[Scorer, dict[str, Any], About]:
    """The scorer in eval mode on `device`, the node it was built from (paths resolved, after `change`), and what is said about it.

    Raises:
        FileNotFoundError: no such model.
        ValueError: damaged, of another architecture, or written by a version that fed or asked it otherwise.
    """
    if not is_saved(folder):
        raise FileNotFoundError(f"{folder} is not a saved model: it has no {CONFIG} with the key '{_KEY}'")
    config = json.loads((folder / CONFIG).read_text())
    written = config[_KEY]
    if written.get("format") != _FORMAT:
        raise ValueError(
            f"{folder} was written in format {written.get('format')} by version {written.get('version')}; "
            f"this version reads format {_FORMAT}: use the one that wrote it"
        )
    node = change(saved_node(folder))
    scorer = SCORERS.build(node, where="model")
    for what, there, here in (
        ("preprocessing", config["preprocess"], _plain(scorer.preprocess.told())),
        ("wording", config["wording"], scorer.wording()),
    ):
        if there != here:
            raise ValueError(
                f"{folder} records another {what} than this version would use ({_difference(there, here)}): its scores would change. "
                f"Use roi-iqa {written.get('version')}, which wrote it"
            )
    try:
        state = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is not a whole .safetensors file ({error}): fetch it again") from error
    scorer.check_trained(state)  # before anything large is read
    with torch.device(device):  # quantised weights are made where they will be used
        scorer.load_pretrained()
    if FOUNDATIONS in config:
        check_foundations(config[FOUNDATIONS], scorer.foundations(), str(folder))
    scorer.load_trained(state)
    about = About(config["licence"], tuple(b for b in config["base_models"] if not _own(b, scorer)), config["made"])
    return scorer.to(device).eval(), node, about


def share(folder: Path) -> None:
    """Lets everything in `folder` be read by those who may read the folder itself; safetensors writes files for their owner alone."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        path.chmod(mode if path.is_dir() else mode & 0o666)


def _is_here(node: Any) -> bool:
    """Whether the weights of a part stand in the folder itself, so that no base model is to be named for them."""
    return isinstance(node, Mapping) and any(str(node.get(option) or "").startswith(_HERE) for option in ("source", "weights"))


def _base_model(part: Any) -> dict[str, str] | None:
    return cast("dict[str, str] | None", part.base_model()) if hasattr(part, "base_model") else None


def _own(base: Mapping[str, str], scorer: Scorer) -> bool:
    """Whether a base model is one that the scorer's own parts tell of."""
    part = scorer.parts().get(base["part"])
    found = None if part is None else _base_model(part)
    return found is not None and found["id"] == base["id"]


def _portable(node: Mapping[str, Any], part: Part[Any], folder: Path, name: str = "") -> dict[str, Any]:
    """`node` with every local source copied into `folder` and named relative to it."""
    out = dict(node)
    for option in getattr(part.cls, "sources", ()):
        value = node.get(option)
        if not name and value:
            out[option] = ""  # the scorer's own tensors are in what was trained
        elif isinstance(value, str) and (source := _local(value)) is not None:
            out[option] = _HERE + _taken(source, folder, name if option in ("source", "weights") else f"{name}_{option}")
    for key, option in part.options.items():
        if isinstance(option, Part):
            out[key] = _portable(node[key], option, folder, f"{name}.{key}".lstrip("."))
        elif isinstance(option, Mapping):
            parts = {k: v for k, v in option.items() if isinstance(v, Part)}
            out[key] = {**node[key], **{k: _portable(node[key][k], v, folder, f"{name}.{key}.{k}".lstrip(".")) for k, v in parts.items()}}
    return out


def _pinned(node: dict[str, Any], scorer: Scorer) -> dict[str, Any]:
    """`node` with the revision of each base model that was read, where its plugin can be asked for one."""
    for name, part in scorer.parts().items():
        base, inner = _base_model(part), node.get(name)
        if base is not None and isinstance(inner, dict) and "revision" in inspect.signature(type(part)).parameters:
            node = {**node, name: {**inner, "revision": base["revision"]}}
    return node


def _local(value: str) -> Path | None:
    """The file or folder that an option names, unless it ships with this package or is no path at all."""
    shipped = ROOT / value
    if value in _NAMES or (shipped.exists() and shipped.is_relative_to(ROOT / "components")):
        return None
    return next((p for p in (Path(value), shipped) if p.exists()), None)


def _taken(source: Path, folder: Path, name: str) -> str:
    """Copies a file or the weights and tokenizer of a folder to `folder`/`name`; returns the name."""
    if source.resolve().parent == folder.resolve():
        return source.name  # it was written there
    target = folder / (name + source.suffix if source.is_file() else name)
    if source.is_file():
        shutil.copyfile(source, target)
        return target.name
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix in _COPIED:
            shutil.copyfile(file, target / file.name)
    return target.name


def _resolved(node: Any, folder: Path) -> Any:
    if isinstance(node, Mapping):
        return {k: _resolved(v, folder) for k, v in node.items()}
    if isinstance(node, list):
        return [_resolved(v, folder) for v in node]
    if not (isinstance(node, str) and node.startswith(_HERE)):
        return node
    if ".." in Path(node).parts:
        raise ConfigError(f"{folder / CONFIG} names {node!r}, which lies outside the model's folder: it is not read")
    path = folder / node  # not resolved: the hub's cache is made of links to files of other names
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no {node.removeprefix(_HERE)}, which its {CONFIG} names: copy or fetch the whole folder")
    return str(path)


def check_plugins(folder: Path) -> None:
    """Whether a model from elsewhere is made of plugins that are here or were imported: its config.json may not choose what code runs.

    Raises:
        ConfigError: it names a module that nobody has imported.
    """
    waiting = [json.loads((folder / CONFIG).read_text())["model"]] if is_saved(folder) else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            module, colon, _ = str(node.get("plugin", "")).partition(":")
            if colon and module not in sys.modules:
                raise ConfigError(
                    f"{folder / CONFIG} wants code of the module {module!r}, which it does not bring: import {module} first if you trust it"
                )
            waiting += node.values()


def _check_inside(node: Mapping[str, Any], part: Part[Any], folder: Path) -> None:
    """Whether every source is in the folder, in this package or on a hub: a folder from elsewhere may not point at other files here.

    Raises:
        ConfigError: it is not.
    """
    for option in getattr(part.cls, "sources", ()):
        value = node.get(option) or ""
        outside = Path(value).is_absolute() or ".." in Path(value).parts
        if outside or (_local(value) is not None and not value.startswith(_HERE)):
            raise ConfigError(f"{folder / CONFIG} names {value!r}, which lies outside the model's folder: it is not read")
    for key, option in part.options.items():
        if isinstance(option, Part):
            _check_inside(node[key], option, folder)
        elif isinstance(option, Mapping):
            for name, inner in option.items():
                if isinstance(inner, Part):
                    _check_inside(node[key][name], inner, folder)


def check_preprocess(record: Path, scorer: Scorer) -> None:
    """Raises ValueError where the run that wrote `record` (run.json) showed its model images otherwise than `scorer` sees them."""
    there = json.loads(record.read_text()).get("preprocess") if record.is_file() else None
    here = _plain(scorer.preprocess.told())
    if there is not None and there != here:
        raise ValueError(
            f"{record.parent} was trained with another preprocessing than this version uses ({_difference(there, here)}): its scores would "
            "change. Use the version that it names (git in run.json), say in its configuration what it was, or train it anew"
        )


def _plain(values: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(json.dumps(dict(values))))


def _plugins(node: Mapping[str, Any]) -> list[tuple[str, str]]:
    inside = [(k, v["plugin"]) for k, v in node.items() if isinstance(v, Mapping) and "plugin" in v]
    return [("scorer", node["plugin"]), *inside]


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    return "; ".join(f"{k}: {there.get(k)!r} there, {here.get(k)!r} here" for k in {**there, **here} if there.get(k) != here.get(k))
