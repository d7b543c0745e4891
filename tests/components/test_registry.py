"""The registry: discovery by file, the constructor as schema, and errors that teach."""

import subprocess
import sys
import textwrap
from typing import Literal

import pytest

from components.registry import ConfigError, Part, Registry, check_keys, registries
from components.vision_encoders.base import VISION_ENCODERS


class Contract:
    pass


class Inner(Contract):
    def __init__(self, wired: int, /, *, size: int = 2) -> None:
        self.wired, self.size = wired, size


class InnerContract:
    pass


KIND: Registry[Contract] = Registry("kind", "tests_have_no_package", Contract)
INNER: Registry[InnerContract] = Registry("inner", "tests_have_no_package", InnerContract)


@INNER.register("leaf")
class Leaf(InnerContract):
    def __init__(self, width: int, /, *, size: int = 2) -> None:
        self.width, self.size = width, size


LEAF = f"{__name__}:leaf"


@KIND.register("thing")
class Thing(Contract):
    def __init__(
        self,
        width: int = 0,
        /,
        *,
        must: int,
        mode: Literal["fast", "slow"] = "fast",
        rate: float = 0.5,
        names: tuple[str, ...] = (),
        leaf: Part[InnerContract] | None = None,
        leaves: dict[str, Part[InnerContract]] | None = None,
    ) -> None:
        self.width, self.must, self.mode, self.rate, self.names, self.leaf, self.leaves = width, must, mode, rate, names, leaf, leaves


THING = f"{__name__}:thing"


@pytest.fixture(autouse=True)
def _no_files(monkeypatch):
    monkeypatch.setattr(Registry, "names", lambda self: sorted(self._classes))


def test_builds_with_defaults_wired_and_configured_values():
    thing = KIND.build({"plugin": THING, "must": 3, "rate": 1, "names": ["a", "b"]}, 7)
    assert isinstance(thing, Thing)
    assert (thing.width, thing.must, thing.mode, thing.rate) == (7, 3, "fast", 1.0)
    assert tuple(thing.names) == ("a", "b")


def test_nested_parts_wait_for_their_wiring():
    thing = KIND.build({"plugin": THING, "must": 1, "leaf": {"plugin": LEAF, "size": 5}, "leaves": {"x": {"plugin": LEAF}}})
    assert thing.leaf(8).width == 8
    assert thing.leaf(8).size == 5
    assert thing.leaves["x"](1).size == 2
    assert KIND.build({"plugin": THING, "must": 1, "leaf": None}).leaf is None
    assert "Leaf" in repr(thing.leaf)


def test_a_part_can_be_given_in_python():
    thing = KIND.build({"plugin": THING, "must": 1, "leaf": Part(Leaf, size=9)})
    assert thing.leaf(1).size == 9


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"plugin": THING}, r"kind: Thing needs a value for must"),
        ({"plugin": THING, "must": 1, "moed": "fast"}, r"unknown key 'moed'. Did you mean 'mode'\? Known: must, mode"),
        ({"plugin": THING, "must": "many"}, r"kind.must: got 'many', expected int"),
        ({"plugin": THING, "must": 1, "mode": "medium"}, r"kind.mode: got 'medium', expected Literal\['fast', 'slow'\]"),
        ({"plugin": THING, "must": 1, "rate": [1]}, r"kind.rate: got \[1\], expected float"),
        ({"plugin": THING, "must": 1, "width": 3}, r"unknown key 'width'"),
        ({"plugin": THING, "must": 1, "leaf": {"plugin": LEAF, "size": "x"}}, r"kind.leaf.size: got 'x', expected int"),
        ({"plugin": THING, "must": 1, "leaf": {"size": 1}}, r"kind.leaf: a inner is a mapping with the key 'plugin'"),
        ({"plugin": THING, "must": 1, "leaves": 3}, r"kind.leaves: expected a mapping of names to plugins, got 3"),
        ({"plugin": 3}, r"a plugin's name is a string, got 3"),
        ({"plugin": f"{__name__}:thin"}, r"registers no kind 'thin'. Did you mean 'thing'\?"),
        ("thing", r"a kind is a mapping with the key 'plugin', got 'thing'"),
    ],
)
def test_errors_teach(node, message):
    with pytest.raises(ConfigError, match=message):
        KIND.part(node)


def test_unknown_plugin_names_the_nearest(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(
        ConfigError, match=r"model.vision_encoder.plugin: no vision_encoder plugin 'tim_pyramid'. Did you mean 'timm_pyramid'\?"
    ):
        VISION_ENCODERS.part({"plugin": "tim_pyramid"}, "model.vision_encoder")


def test_a_class_outside_the_contract_is_refused():
    with pytest.raises(ConfigError, match="must derive from Contract"):
        KIND.register("other")(int)


def test_a_name_that_is_not_its_files_is_refused():
    registry = Registry("here", __name__.rpartition(".")[0], Contract)
    if not registry.package:  # a test module without a package: give the class one
        registry.package = "pack"
    Odd = type("Odd", (Contract,), {"__module__": f"{registry.package}.file"})
    with pytest.raises(ConfigError, match=r"stands in file.py: register it as 'file' or rename the file"):
        registry.register("name")(Odd)


def test_a_constructor_must_name_its_parameters():
    class Open(Contract):
        def __init__(self, **options: int) -> None:
            pass

    KIND.register("open")(Open)
    with pytest.raises(TypeError, match="names its parameters"):
        KIND.part({"plugin": f"{__name__}:open"})


def test_check_keys_accepts_what_is_allowed():
    check_keys({"a": 1}, ["a", "b"], "x")


def test_all_kinds_are_known():
    import configs.listing  # noqa: F401 - imports every kind

    kinds = {
        "vision_encoder",
        "mask_encoder",
        "region_extractor",
        "llm_adapter",
        "readout",
        "scorer",
        "distortion",
        "quality_label",
        "dataset",
    }
    assert kinds <= set(registries())


PLUGIN = '''
from components.readouts.base import READOUTS
from components.readouts.text import TextReadout

@READOUTS.register("loud")
class Loud(TextReadout):
    """A readout from somewhere else."""

    def __init__(self, dialogue, /, *, volume: int = 11) -> None:
        super().__init__(dialogue)
        self.volume = volume
'''


def _run(code: str, cwd, path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, env={"PYTHONPATH": str(path), "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plugin_from_outside_the_tree_by_module_and_name(tmp_path, root):
    (tmp_path / "elsewhere.py").write_text(PLUGIN)
    out = _run(
        "from components.readouts.base import READOUTS; print(READOUTS.part({'plugin': 'elsewhere:loud', 'volume': 3}))", root, tmp_path
    )
    assert out.strip() == "Part(Loud, volume=3)"


def test_a_plugin_from_an_installed_package_by_entry_point(tmp_path, root):
    (tmp_path / "elsewhere.py").write_text(PLUGIN)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[roi_iqa.readout]\nloud = elsewhere:Loud\nwrong = json:dumps\ntext = elsewhere:Loud\n")
    out = _run(
        """
        from components.registry import ConfigError
        from components.readouts.base import READOUTS
        print(READOUTS.names(), READOUTS.part({'plugin': 'loud'}))
        for name in ('wrong', 'text'):
            try:
                READOUTS.part({'plugin': name})
            except ConfigError as error:
                print(error)
        """,
        root,
        tmp_path,
    )
    assert "'levels', 'loud', 'text', 'wrong'] Part(Loud, )" in out
    assert "two readout plugins are called 'text': components.readouts.text and the entry point elsewhere:Loud" in out
    assert "entry point roi_iqa.readout 'wrong' must name a subclass of Readout" in out


def test_a_plugins_own_import_error_passes_unchanged(tmp_path, root):
    (tmp_path / "broken.py").write_text("import a_package_nobody_has\n")
    out = _run(
        """
        from components.readouts.base import READOUTS
        try:
            READOUTS.part({'plugin': 'broken:x'})
        except ModuleNotFoundError as error:
            print(error.name)
        """,
        root,
        tmp_path,
    )
    assert out.strip() == "a_package_nobody_has"
