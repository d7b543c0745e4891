"""Configurations: layered, checked, and read back the same."""

import pytest

from components.registry import ConfigError
from configs.schema import ROOT, experiments, layered, load_config, to_yaml


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_is_whole_and_reads_back(name, tmp_path):
    config = load_config(name)
    assert config.name == name
    assert config.description
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(str(tmp_path / "again.yaml")) == config


@pytest.mark.parametrize("path", sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("*/*.yaml")))
def test_every_preset_belongs_to_an_experiment(path):
    used = "".join((ROOT / "experiment" / f"{e}.yaml").read_text() for e in experiments())
    assert path.startswith(("experiment/", "benchmark/")) or path.removesuffix(".yaml") in used


def test_overrides_change_values_and_types_are_checked():
    config = load_config("quickstart", ["trainer.steps=7", "optim.lr=1e-4", "data.root=photos", "model.llm.width=64", "name=mine"])
    assert (config.trainer.steps, config.optim.lr, config.name) == (7, 1e-4, "mine")
    assert config.data["root"] == "photos"
    assert config.model["llm"]["width"] == 64


@pytest.mark.parametrize(
    ("given", "meant"), [("true", "memory"), ("false", "off"), ("on", "memory"), ("off", "off"), ("disk", "disk"), ("memory", "memory")]
)
def test_features_are_kept_where_it_says(given, meant, tmp_path):
    """YAML makes true of on and false of off, and both were the values once."""
    config = load_config("quickstart", [f"trainer.cache_features={given}"])
    assert config.trainer.cache_features == meant
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(str(tmp_path / "again.yaml")) == config


def test_devices_are_a_number_or_auto():
    assert [load_config("quickstart", [f"trainer.devices={d}"]).trainer.devices for d in ("4", "auto")] == [4, "auto"]


def test_features_are_kept_nowhere_else():
    with pytest.raises(ConfigError, match=r"trainer.cache_features: .*cloud"):
        load_config("quickstart", ["trainer.cache_features=cloud"])


def test_another_plugin_starts_its_node_afresh():
    config = load_config("quickstart", ["model.llm.plugin=hf_causal", "model.llm.source=somewhere"])
    assert config.model["llm"] == {"plugin": "hf_causal", "source": "somewhere"}
    assert config.model["vision_encoder"]["name"] == "resnet10t"


def test_layers():
    base = {"a": {"plugin": "x", "k": 1, "d": {"e": 1}}, "b": 2}
    assert layered(base, {"a": {"d": {"f": 2}}}) == {"a": {"plugin": "x", "k": 1, "d": {"e": 1, "f": 2}}, "b": 2}
    assert layered(base, {"a": {"plugin": "y"}}) == {"a": {"plugin": "y"}, "b": 2}
    assert layered(base, {"a": {"plugin": "x", "k": 3}})["a"] == {"plugin": "x", "k": 3, "d": {"e": 1}}
    assert layered(base, {"a": 5}) == {"a": 5, "b": 2}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.step=3"], r"trainer: unknown key 'step'. Did you mean 'steps'\?"),
        (["trainner.steps=3"], r"configuration: unknown key 'trainner'. Did you mean 'trainer'\?"),
        (["trainer.steps=many"], r"trainer.steps: .*'many'.*Integer"),
        (["trainer.precision=8bit"], r"trainer.precision: .*8bit"),
        (["trainer.devices=all"], r"trainer.devices: got 'all', expected a number of at least 1, or auto"),
        (["trainer.devices=0"], r"trainer.devices: got 0, expected a number of at least 1, or auto"),
        (["trainer.nodes=0"], r"trainer.nodes: got 0, expected at least 1"),
        (["trainer.strategy=zero"], r"trainer.strategy: .*zero"),
        (["model.plugin=roi_vml"], r"model.plugin: no scorer plugin 'roi_vml'. Did you mean 'roi_vlm'\?"),
        (["model.llm.layers=two"], r"model.llm.layers: got 'two', expected int"),
        (["model.region_extractor.embde=3"], r"model.region_extractor: unknown key 'embde'. Did you mean 'embed'\?"),
        (["model.projector=cubic"], r"model.projector: got 'cubic', expected Literal\['mlp2x_gelu', 'linear'\]"),
        (["data.plugin=photos"], r"data.plugin: no dataset plugin 'photos'. Did you mean 'photographs'\?"),
        (["steps"], r"'steps' is not of the form key=value"),
        (["=3"], r"'=3' is not of the form key=value"),
        (["seed=3", "seed.x=4"], r"'seed' was given a value before"),
        (["name=a/b"], r"name: an experiment needs a name, which is a folder's and has no slash; got 'a/b'"),
        (["data.seed=${nowhere}"], r"nowhere"),
    ],
)
def test_errors_teach(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config("quickstart", overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "must hold a mapping of keys, got list"),
        ("a: [", "is not YAML"),
        ("include: [model/nothing]", r"includes 'model/nothing', but configs/model/nothing.yaml does not exist"),
        ("model: {plugin: pooled_mlp}", "name: an experiment needs a name"),
    ],
)
def test_broken_files(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(tmp_path / "x.yaml"))


def test_unknown_experiment_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"no experiment 'quickstrat', .*Did you mean 'quickstart'\? Known: .*seagull_7b"):
        load_config("quickstrat")


def test_a_file_that_includes_itself(tmp_path, monkeypatch):
    from configs import layers

    monkeypatch.setattr(layers, "ROOT", tmp_path)
    (tmp_path / "a.yaml").write_text("include: [b]")
    (tmp_path / "b.yaml").write_text("include: [a]")
    with pytest.raises(ConfigError, match=r"includes itself: a.yaml -> b.yaml -> a.yaml"):
        load_config(str(tmp_path / "a.yaml"))


def test_interpolation_is_resolved_before_nodes_are_handed_out():
    assert load_config("quickstart", ["data.seed=${seed}", "seed=5"]).data["seed"] == 5


def test_the_first_stage_is_one_epoch_of_the_published_images():
    """978,720 images in steps of 32; twice the mean of 33.7 regions, so that an image is one sample."""
    config = load_config("seagull_7b_stage1", [])
    assert config.trainer.steps * config.trainer.batch_size * config.trainer.accumulate == 978_720
    assert config.data["regions"] >= 2 * 33.7
