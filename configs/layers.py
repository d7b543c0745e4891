"""How options are put together: files that include others, and words of the form key=value, the later over the earlier.

A file may `include` others (paths under `configs/`, without ending); they are layered in order, then the file itself, then the
command line. A later layer that names another `plugin` starts that node afresh. Nothing is checked here but the form, so that a
command whose options are not an experiment's need not know what an experiment is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.registry import ConfigError

ROOT = Path(__file__).parent


def load_options(words: Sequence[str], parts: Collection[str]) -> dict[str, Any]:
    """The options of a command, not checked yet: `key=value` and YAML files of options, the later over the earlier.

    Args:
        parts: the keys whose value is a plugin; for these `key=name` means `key.plugin=name`.

    Raises:
        ConfigError: a file is not there or holds no mapping, or a word is neither a file nor of the form key=value.
    """
    out: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals:
            layers = [from_overrides([f"{key}.plugin={value}" if key in parts else word])]
        elif Path(word).is_file():
            layers = with_includes(Path(word), ())
        else:
            raise ConfigError(f"'{word}' is neither of the form key=value or key.sub=value nor a YAML file of options")
        for layer in layers:
            out = layered(out, {k: {"plugin": v} if k in parts and isinstance(v, str) else v for k, v in layer.items()})
    return out


def layered(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`top` over `base`, mapping by mapping; a node whose `plugin` differs replaces the one below."""
    if "plugin" in top and "plugin" in base and top["plugin"] != base["plugin"]:
        return dict(top)
    out = dict(base)
    for key, value in top.items():
        below = base.get(key)
        out[key] = layered(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return out


def with_includes(path: Path, above: tuple[Path, ...] = ()) -> list[dict[str, Any]]:
    """The layers of a file, itself the last.

    Args:
        above: the files that include it.

    Raises:
        ConfigError: it is not YAML or no mapping, includes what is not there, or itself.
    """
    if path in above:
        raise ConfigError(f"{path} includes itself: {' -> '.join(p.name for p in (*above, path))}")
    try:
        layer = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(layer, dict):
        raise ConfigError(f"{path} must hold a mapping of keys, got {type(layer).__name__}")
    below = []
    for name in layer.pop("include", []):
        included = ROOT / f"{name}.yaml"
        if not included.is_file():
            raise ConfigError(f"{path} includes '{name}', but {included.relative_to(ROOT.parent)} does not exist")
        below += with_includes(included, (*above, path))
    return [*below, layer]


def from_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """The layer that words of the form `key.sub=value` make. Raises ConfigError for one of another form."""
    out: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{text}' is not of the form key=value or key.sub=value")
        *path, last = key.split(".")
        node = out
        for name in path:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"'{text}': '{name}' was given a value before, so it has no keys below it")
        node[last] = _scalar(value)
    return out


def _scalar(text: str) -> Any:
    """As YAML reads it, but 1e-3 is a number, and nothing is the empty text."""
    if not text:
        return ""
    try:
        return float(text) if "e" in text.lower() and not text.isalpha() else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)
