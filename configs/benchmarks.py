"""A benchmark's schema: a list of experiments, the variants, that are trained one after another and compared in the end.

A variant is an experiment and changes to it, in the words of the command line. Those of the whole benchmark come first, then the
variant's own, then those of the command line, so that what is meant to be equal is said once. All of them are checked before the first
training begins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from components.registry import ConfigError, check_keys, configured, suggest
from configs.schema import ROOT, Experiment, experiments, load_config


@dataclass(kw_only=True)
class Variant:
    """One training of a benchmark.

    Attributes:
        name: of its folder and of its row; no two are the same.
        experiment: what `python train.py` takes.
        overrides: `key.sub=value`, after those of the benchmark.
        compared: False for a training that others begin with (`start_from: ${outputs}/<name>`), and that is no row of the table.
    """

    name: str
    experiment: str
    overrides: list[str] = field(default_factory=list)
    compared: bool = True


@dataclass(kw_only=True)
class Benchmark:
    """A list of variants; each goes to `<outputs>/<name>/<variant>`.

    Attributes:
        overrides: of every variant.
    """

    name: str
    description: str = ""
    outputs: str = "outputs"
    overrides: list[str] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the variants are, and the report that compares them."""
        return Path(self.outputs) / self.name


def benchmarks() -> list[str]:
    """The names under `configs/benchmark/`."""
    return sorted(p.stem for p in (ROOT / "benchmark").glob("*.yaml"))


def find_benchmark(path: str) -> Path | None:
    """The file of a benchmark: a YAML file with the key `variants`, or a name under `configs/benchmark/`; None where it is neither."""
    named = ROOT / "benchmark" / f"{path}.yaml"
    if not Path(path).is_file():
        return named if named.is_file() else None
    try:
        found = yaml.safe_load(Path(path).read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        return None  # whoever reads it as an experiment says what is wrong with it
    return Path(path) if isinstance(found, dict) and "variants" in found else None


def check_name(name: str) -> None:
    """Raises ConfigError where `name` is neither a file nor an experiment or a benchmark under `configs/`."""
    known = sorted([*experiments(), *benchmarks()])
    if name not in known and not Path(name).is_file():
        raise ConfigError(f"no experiment or benchmark '{name}', and no file of that name. {suggest(name, known)}")


def load_benchmark(path: Path, overrides: Sequence[str] = ()) -> tuple[Benchmark, dict[str, Experiment]]:
    """A benchmark and the resolved experiments of its variants, in order.

    Args:
        overrides: for every variant; `name` and `outputs` are the benchmark's own.

    Raises:
        ConfigError: unknown key, wrong type, names that repeat, a variant that begins with one that comes after it, or any mistake in
            the experiment of a variant, which is named.
    """
    own = [text for text in overrides if text.partition("=")[0] in ("name", "outputs")]
    benchmark = _checked({**_read(path), **dict(text.split("=", 1) for text in own)}, path)
    shared = [text for text in overrides if text not in own]
    found: dict[str, Experiment] = {}
    for variant in benchmark.variants:
        place = [f"name={variant.name}", f"outputs={benchmark.folder}"]
        try:
            found[variant.name] = load_config(variant.experiment, [*benchmark.overrides, *variant.overrides, *shared, *place])
        except ConfigError as error:
            raise ConfigError(f"{path.name}, variant {variant.name}: {error}") from error
        _check_order(benchmark, variant.name, found)
    return benchmark, found


def _read(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text())
    check_keys(found, [f.name for f in dataclasses.fields(Benchmark)], path.name)
    variants = found["variants"]
    if not isinstance(variants, list) or not all(isinstance(v, dict) for v in variants) or not variants:
        raise ConfigError(f"{path.name}: variants must be a list of at least one mapping with name and experiment, got {variants!r}")
    return cast("dict[str, Any]", found)


def _checked(values: Mapping[str, Any], path: Path) -> Benchmark:
    own = {key: value for key, value in values.items() if key != "variants"}
    variants = [configured(Variant, v, f"{path.name}, variants.{i}")() for i, v in enumerate(values["variants"])]
    benchmark = dataclasses.replace(configured(Benchmark, own, path.name)(), variants=variants)
    names = [variant.name for variant in variants]
    for name in (benchmark.name, *names):
        if name in ("", ".", "..") or set("/\\") & set(name):
            raise ConfigError(f"{path.name}: a name is a folder's and has no slash; got {name!r}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{path.name}: two variants are called {twice[0]}: each needs a name of its own, which is its folder's")
    return benchmark


def _check_order(benchmark: Benchmark, name: str, before: Mapping[str, Experiment]) -> None:
    """Raises ConfigError where a variant needs the folder of one that does not stand before it."""
    places = {benchmark.folder / other.name: other.name for other in benchmark.variants}
    for key, text in _texts(dataclasses.asdict(before[name])):
        needed = places.get(Path(text))
        if needed is not None and (needed == name or needed not in before):
            raise ConfigError(f"variant {name}: {key} is the folder of the variant {needed}, which must stand before it")


def _texts(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _texts(value, f"{where}{key}.")
        elif isinstance(value, str) and value:
            yield f"{where}{key}", value
