"""Benchmarks: every variant is checked before any is trained, and each mistake names its variant."""

import pytest
import yaml

from components.registry import ConfigError
from configs.benchmarks import benchmarks, check_name, find_benchmark, load_benchmark
from configs.schema import experiments


def written(folder, **changes):
    variants = [{"name": "one", "experiment": "quickstart"}, {"name": "two", "experiment": "quickstart", "overrides": ["seed=2"]}]
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "variants": variants, **changes}))
    return path


@pytest.mark.parametrize("name", benchmarks())
def test_every_benchmark_is_whole(name):
    benchmark, found = load_benchmark(find_benchmark(name))
    assert benchmark.name == name
    assert benchmark.description
    assert len(found) >= 8
    assert len({config.trainer.steps for config in found.values()}) == 1
    assert {config.outputs for config in found.values()} == {f"outputs/{name}"}


def test_overrides_are_layered(tmp_path):
    path = written(tmp_path, overrides=["seed=1", "trainer.steps=7"])
    benchmark, found = load_benchmark(path, ["trainer.steps=5", "name=other", f"outputs={tmp_path}"])
    assert [(c.name, c.seed, c.trainer.steps) for c in found.values()] == [("one", 1, 5), ("two", 2, 5)]
    assert benchmark.folder == tmp_path / "other"
    assert {c.outputs for c in found.values()} == {str(tmp_path / "other")}


def test_what_is_no_benchmark_is_left_to_others(tmp_path):
    assert find_benchmark("quickstart") is None
    assert find_benchmark("nowhere.yaml") is None
    (tmp_path / "experiment.yaml").write_text("name: mine")
    (tmp_path / "broken.yaml").write_text("{")
    assert find_benchmark(str(tmp_path / "experiment.yaml")) is None
    assert find_benchmark(str(tmp_path / "broken.yaml")) is None
    assert find_benchmark(str(written(tmp_path))) == tmp_path / "mine.yaml"


def test_a_mistyped_name_is_looked_for_among_experiments_and_benchmarks(tmp_path):
    for name in (*experiments(), *benchmarks(), written(tmp_path)):
        check_name(str(name))
    for typed, meant in (("quikstart", "quickstart"), ("benchmark_quikstart", "benchmark_quickstart"), ("seagull7b", "seagull_7b")):
        with pytest.raises(ConfigError, match=f"no experiment or benchmark '{typed}'.* Did you mean '{meant}'") as said:
            check_name(typed)
        listed = str(said.value).partition("Known: ")[2].split(", ")
        assert listed == sorted([*experiments(), *benchmarks()])


ONE = {"name": "one", "experiment": "quickstart"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"varants": []}, r"mine.yaml: unknown key 'varants'. Did you mean 'variants'"),
        ({"variants": []}, "variants must be a list of at least one mapping"),
        ({"variants": ["quickstart"]}, "variants must be a list of at least one mapping"),
        ({"variants": [{**ONE, "override": []}]}, "unknown key 'override'. Did you mean 'overrides'"),
        ({"variants": [{"name": "one"}]}, "variants.0: Variant needs a value for experiment"),
        ({"variants": [{**ONE, "compared": "perhaps"}]}, r"mine.yaml, variants.0.compared: got 'perhaps'"),
        ({"variants": [ONE, ONE]}, "two variants are called one"),
        ({"variants": [{**ONE, "name": "a/b"}]}, "has no slash; got 'a/b'"),
        ({"variants": [ONE, {**ONE, "name": "two", "experiment": "quikstart"}]}, "variant two: no experiment 'quikstart'"),
        ({"variants": [{**ONE, "overrides": ["model.plugin=pooled_mpl"]}]}, "variant one: .*Did you mean 'pooled_mlp'"),
        (
            {"variants": [{**ONE, "overrides": ["start_from=${outputs}/two"]}, {**ONE, "name": "two"}]},
            "start_from is the folder of the .* two",
        ),
        ({"variants": [{**ONE, "overrides": ["start_from=${outputs}/one"]}]}, "one, which must stand before it"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        load_benchmark(written(tmp_path, **changes))
