"""Plugins: the file name is the plugin's name, a decorator registers it, and its constructor is its schema.

A constructor has two sorts of parameters. Positional ones are *wired*: whoever composes the plugin knows them (the channels
of the encoder, the width of the language model) and no configuration may set them. Keyword-only ones are *configured*: their
names, types and defaults are the schema against which a configuration node is checked before anything heavy happens. A
keyword-only parameter annotated `Part[Contract]` is itself a plugin node of that contract's kind.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")
C = TypeVar("C", bound=type)


class ConfigError(ValueError):
    """A mistake in a configuration: says where it is, what was found, and what is allowed."""


class Part(Generic[T]):
    """A plugin that is chosen and configured but not yet wired: call it with its wired arguments to build it."""

    def __init__(self, cls: type[T], **options: Any) -> None:
        self.cls, self.options = cls, options

    def __call__(self, *wired: Any) -> T:
        return self.cls(*wired, **self.options)

    def settings(self) -> dict[str, Any]:
        """The class, and every option with the value it will have, defaults included; parts inside become mappings of their own."""
        given = {name: self.options.get(name, p.default) for name, p in _schema(self.cls).items()}
        return {"plugin": f"{self.cls.__module__}:{self.cls.__qualname__}", **{k: _told(v) for k, v in given.items()}}

    def __repr__(self) -> str:
        return f"Part({self.cls.__name__}, {', '.join(f'{k}={v!r}' for k, v in self.options.items())})"


def _told(value: Any) -> Any:
    if isinstance(value, Part):
        return value.settings()
    if isinstance(value, Mapping):
        return {k: _told(v) for k, v in value.items()}
    return value


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One configured parameter of a plugin: `default` is `MISSING` ("???") where a value must be given."""

    name: str
    annotation: Any
    default: Any

    @property
    def type_name(self) -> str:
        """The annotation as a reader would write it."""
        if isinstance(self.annotation, type) and not typing.get_args(self.annotation):
            return self.annotation.__name__
        text = str(self.annotation).replace("typing.", "").replace("NoneType", "None")
        for module in {p.__module__ for p in _contracts_in(self.annotation)} | {__name__}:
            text = text.replace(f"{module}.", "")
        return text


_REGISTRIES: dict[type, Registry[Any]] = {}  # contract -> registry


class Registry(Generic[T]):
    """The plugins of one kind: the modules of `package`, entry points of `roi_iqa.<kind>`, and `module:name` from anywhere."""

    def __init__(self, kind: str, package: str, contract: type[T]) -> None:
        self.kind, self.package, self.contract = kind, package, contract
        self._classes: dict[str, type[T]] = {}  # "name" for this tree, "module:name" for other people's
        _REGISTRIES[contract] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator. Inside the registry's package `name` must be the file's name, so that the file can be found by it."""

        def add(cls: C) -> C:
            module = cls.__module__
            plugin: type[T] = cls
            if not issubclass(cls, self.contract):
                raise ConfigError(f"{self.kind} '{name}': {cls.__qualname__} must derive from {self.contract.__qualname__}")
            if module.rpartition(".")[0] == self.package:
                file = module.rpartition(".")[2]
                if name != file:
                    raise ConfigError(f"{self.kind} '{name}' stands in {file}.py: register it as '{file}' or rename the file")
                self._classes[name] = plugin
            else:
                self._classes[f"{module}:{name}"] = plugin
            return cls  # type: ignore[return-value]

        return add

    def names(self) -> list[str]:
        """Every plugin that can be asked for by a plain name: read from the package's folder and from entry points."""
        return sorted(self._files() | set(self._entry_points()))

    def get(self, name: str, where: str = "") -> type[T]:
        """The class called `name`; its module is imported on first use, and an ImportError of its own passes unchanged."""
        if not isinstance(name, str):
            raise ConfigError(f"{where or self.kind}: a plugin's name is a string, got {name!r}")
        if ":" in name:
            return self._from_module(name, where)
        entry = self._entry_points().get(name)
        if entry is not None and name in self._files():
            raise ConfigError(f"two {self.kind} plugins are called '{name}': {self.package}.{name} and the entry point {entry.value}")
        if name not in self._classes and entry is not None:
            self._classes[name] = self._checked(entry.load(), name)
        elif name not in self._classes and name in self._files():
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._classes:
            raise ConfigError(f"{where or self.kind}: no {self.kind} plugin '{name}'. {suggest(name, self.names())}")
        return self._classes[name]

    def schema(self, name: str) -> dict[str, Parameter]:
        """The configured (keyword-only) parameters of plugin `name`."""
        return _schema(self.get(name))

    def part(self, node: Mapping[str, Any], where: str = "") -> Part[T]:
        """Checks `node` ({plugin: name, key: value, ...}) against the constructor and returns the plugin, waiting to be wired.

        Raises:
            ConfigError: unknown plugin or key, wrong type, value outside a `Literal`, missing value.
        """
        where = where or self.kind
        if not isinstance(node, Mapping) or "plugin" not in node:
            raise ConfigError(f"{where}: a {self.kind} is a mapping with the key 'plugin', got {node!r}. Known: {', '.join(self.names())}")
        cls = self.get(node["plugin"], f"{where}.plugin")
        return Part(cls, **_checked_options(cls, {k: v for k, v in node.items() if k != "plugin"}, where))

    def build(self, node: Mapping[str, Any], *wired: Any, where: str = "") -> T:
        """`part(node)(*wired)`."""
        return self.part(node, where)(*wired)

    def _files(self) -> set[str]:
        package = importlib.import_module(self.package)
        return {m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "base" and not m.name.startswith("_")}

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        return {e.name: e for e in importlib.metadata.entry_points(group=f"roi_iqa.{self.kind}")}

    def _from_module(self, name: str, where: str) -> type[T]:
        module, _, plugin = name.partition(":")
        importlib.import_module(module)
        if name not in self._classes:
            known = [k.partition(":")[2] for k in self._classes if k.startswith(f"{module}:")]
            raise ConfigError(f"{where or self.kind}: {module} registers no {self.kind} '{plugin}'. {suggest(plugin, known)}")
        return self._classes[name]

    def _checked(self, cls: Any, name: str) -> type[T]:
        if not (isinstance(cls, type) and issubclass(cls, self.contract)):
            raise ConfigError(f"entry point roi_iqa.{self.kind} '{name}' must name a subclass of {self.contract.__qualname__}, got {cls!r}")
        return cls


def configured(cls: type[T], node: Mapping[str, Any], where: str) -> Part[T]:
    """Checks `node` ({key: value, ...}) against the constructor of a class that is no plugin, as a plugin's is checked.

    Raises:
        ConfigError: unknown key, wrong type, value outside a `Literal`, missing value.
    """
    return Part(cls, **_checked_options(cls, node, where))


def registries() -> dict[str, Registry[Any]]:
    """Every kind that has been imported, by its name."""
    return {r.kind: r for r in _REGISTRIES.values()}


def check_keys(given: Iterator[str] | Mapping[str, Any], allowed: list[str], where: str) -> None:
    """Raises ConfigError naming the first key that is not allowed, with the nearest allowed one."""
    for key in given:
        if key not in allowed:
            raise ConfigError(f"{where}: unknown key '{key}'. {suggest(str(key), allowed)}")


def suggest(name: str, known: list[str]) -> str:
    """What was probably meant by an unknown name, and what is known."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known) or 'none'}"


def _schema(cls: type) -> dict[str, Parameter]:
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    found = {}
    for name, p in inspect.signature(cls).parameters.items():
        if p.kind is p.VAR_KEYWORD or p.kind is p.VAR_POSITIONAL:
            raise TypeError(f"{cls.__qualname__}(*{name}): a plugin's constructor names its parameters; it is the schema")
        if p.kind is p.KEYWORD_ONLY:
            found[name] = Parameter(name, hints.get(name, Any), MISSING if p.default is p.empty else p.default)
    return found


def _checked_options(cls: type, node: Mapping[str, Any], where: str) -> dict[str, Any]:
    schema = _schema(cls)
    check_keys(node, list(schema), where)
    missing = [n for n, p in schema.items() if p.default is MISSING and node.get(n, MISSING) == MISSING]
    if missing:
        raise ConfigError(f"{where}: {cls.__name__} needs a value for {', '.join(missing)}")
    plain = {n: p for n, p in schema.items() if not _contracts_in(p.annotation)}
    options = _typed(cls.__name__, plain, {k: v for k, v in node.items() if k in plain}, where)
    for name in schema:
        if name in node and name not in plain:
            options[name] = _nested(schema[name].annotation, node[name], f"{where}.{name}")
    return options


def _typed(title: str, schema: Mapping[str, Parameter], node: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of `node`, converted and checked by OmegaConf against the annotations; defaults are left to the constructor."""
    options: dict[str, Any] = {}
    for name, value in node.items():
        holder = dataclasses.make_dataclass(title, [(name, schema[name].annotation, dataclasses.field(default=MISSING))])
        try:
            checked = OmegaConf.merge(OmegaConf.structured(holder), {name: value})
            plain = OmegaConf.to_container(checked, throw_on_missing=True)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{where}.{name}: got {value!r}, expected {schema[name].type_name} ({reason})") from error
        assert isinstance(plain, dict)
        options[name] = plain[name]
    return options


def _nested(annotation: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Part:
        if isinstance(value, Part):
            return value
        return _registry_of(args[0]).part(value, where)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _nested(next(a for a in args if a is not type(None)), value, where)
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping of names to plugins, got {value!r}")
    return {k: _nested(args[1], v, f"{where}.{k}") for k, v in value.items() if v is not None}


def _contracts_in(annotation: Any) -> set[type]:
    if typing.get_origin(annotation) is Part:
        return set(typing.get_args(annotation))
    return set().union(*(_contracts_in(a) for a in typing.get_args(annotation)))


def _registry_of(contract: type) -> Registry[Any]:
    return _REGISTRIES[contract]
