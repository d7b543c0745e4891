"""The whole way: a checkpoint is imported, adapted, merged, scored without peft and exported; and nothing is left where it fails."""

import functools
import json
import shutil
import sys

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import prepare
import train
from components import merging
from components.merging import Agreement, MergeError, weights
from components.released.seagull import to_released
from components.released.shards import Shards
from components.scorers.base import SCORERS
from inference.load import find, load
from inference.merged import _check, write_merged
from tests.components.released.official import NODE, write_checkpoint, write_model_file
from tests.components.scorers.samples import picture

DATA = {"plugin": "photographs", "size": 64, "train": 4, "val": 1, "test": 1, "regions": 2}
TRAINER = {"steps": 3, "batch_size": 1, "accelerator": "cpu", "threads": 1, "val_every": 3}
TARGETS = 7 * 32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merging")
    write_checkpoint(folder / "released")
    write_model_file(folder / "small.yaml")
    prepare.main(["import-seagull", str(folder / "released"), str(folder / "ours"), "--model", str(folder / "small.yaml")])
    return folder


def adapted(place, name, lr=1e-2, **llm):
    """The folder of a short training of adapters on the imported model."""
    ours = place / "ours"
    model = {**NODE, "weights": str(ours / "model.safetensors")}
    model["vision_encoder"] = {**NODE["vision_encoder"], "weights": str(ours / "vision_encoder.safetensors")}
    model["llm"] = {"plugin": "hf_causal", "source": str(ours / "llm"), "lora_rank": 4, "lora_alpha": 16, **llm}
    values = {"name": name, "outputs": str(place / "outputs"), "model": model, "data": {**DATA, "cache": str(place / "cache")}}
    values |= {"trainer": TRAINER, "optim": {"lr": lr, "warmup": 0}}
    (place / f"{name}.yaml").write_text(yaml.safe_dump(values))
    train.main([str(place / f"{name}.yaml")])
    return place / "outputs" / name


@pytest.fixture(scope="module")
def run(place):
    return adapted(place, "lora", adaptation="lora")


@pytest.fixture(scope="module")
def merged(place, run):
    return place / "merged", prepare.main(["merge", str(run), str(place / "merged"), "--accelerator", "cpu"])


def test_it_is_the_trained_model(run, merged):
    """Measured: logits differ by 2e-7 of their spread, scores by 5e-9, 32 layers deep; on a base of 4 bits by 3e-7."""
    folder, found = merged
    assert found["merged"] == TARGETS
    assert found["error"] < 1e-5
    assert found["effect"] > 100 * found["error"]
    assert (found["answers"], found["texts"]) == (pytest.approx(0, abs=1e-4), 0)
    image, masks = picture(3)
    for a, b in zip(load(folder).score(image, masks), load(run).score(image, masks), strict=True):
        assert a["quality"].value == pytest.approx(b["quality"].value, abs=1e-4)
        assert a["distortion"].text == b["distortion"].text


@torch.no_grad()
def test_transformers_opens_its_language_model_as_any_other(place, run, merged):
    """Safetensors, configuration and tokenizer: its logits are those of the trained adapters on their base, and not the base's."""
    folder = merged[0] / "llm"
    assert {p.suffix for p in folder.iterdir() if p.stat().st_size > 100_000} == {".safetensors"}
    ids = AutoTokenizer.from_pretrained(folder)("How is the quality of this region?", return_tensors="pt").input_ids
    assert ids.shape[1] > 5
    trained = load(run).llm
    wanted = trained(trained.embed(ids), torch.arange(ids.shape[1])[None])
    plain, base = (AutoModelForCausalLM.from_pretrained(f).float().eval()(ids).logits for f in (folder, place / "ours" / "llm"))
    apart = (plain - wanted).abs().max()
    assert apart < 1e-5 * wanted.std()
    assert (base - wanted).abs().max() > 100 * apart


def test_it_describes_itself_and_needs_no_peft(merged, monkeypatch):
    config = json.loads((merged[0] / "config.json").read_text())
    assert config["model"]["llm"] == {"plugin": "hf_causal", "source": "./llm", "adaptation": "frozen", "dtype": "float32"}
    assert config["made"]["merged"]["error"] == merged[1]["error"]
    assert config["foundations"]["llm"]["model"] == "./llm"
    assert str(merged[0].parent) not in json.dumps(config["model"])
    assert not any("lora" in name for name in Shards(merged[0] / "llm"))
    monkeypatch.setitem(sys.modules, "peft", None)
    scorer = load(merged[0])
    assert scorer.trained_keys() == {n for n, _ in scorer.named_parameters() if n.startswith(("projector.", "region_extractor."))}


def test_it_goes_out_under_the_released_names(place, merged):
    found = prepare.main(["export-seagull", str(merged[0]), str(place / "back"), "--official", str(place / "ours" / "official")])
    there, back, ours = Shards(place / "released"), Shards(place / "back"), Shards(merged[0] / "llm")
    assert set(back) == set(there)
    changed = {name for name in back if not torch.equal(back[name], there[name])}
    assert {to_released(f"llm.model.{name}") for name in ours if "_proj.weight" in name} <= changed
    assert not any(".layers." in name and "_proj" not in name for name in changed if name.startswith("model."))
    assert any(name.startswith("mask_extractor.") for name in changed)
    assert len(found["rounded"]) > TARGETS  # single precision to half


def test_a_quantised_base_is_unpacked(place):
    run = adapted(place, "qlora", adaptation="qlora", lora_targets=["q_proj"])
    found = prepare.main(["merge", str(run), str(place / "unpacked"), "--accelerator", "cpu"])
    assert found["merged"] == 32
    assert found["error"] < 1e-5
    original, unpacked = Shards(place / "ours" / "llm"), Shards(place / "unpacked" / "llm")
    packed = "model.layers.0.mlp.up_proj.weight"  # without an adapter, and yet not what the file held: adapters saw it rounded to 4 bits
    assert 0 < (original[packed].float() - unpacked[packed]).abs().max() < 0.1


def test_what_was_not_trained_leaves_nothing_behind(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    name = next(n for n in checkpoint["state_dict"] if "lora_B" in n)
    checkpoint["state_dict"][name].zero_()
    torch.save(checkpoint, path)
    target = name.removeprefix("scorer.llm.model.").partition(".lora_B")[0]
    with pytest.raises(MergeError, match=rf"1 of {TARGETS} adapters change nothing \({target}\)"):
        prepare.main(["merge", str(tmp_path / "run"), str(tmp_path / "out"), "--accelerator", "cpu"])
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_wrong_scale_is_refused_although_the_error_is_small(place, tmp_path, monkeypatch):
    """In bfloat16, after a training that has changed little: the difference is small against the logits, but not against the adapters."""
    run = adapted(place, "little", lr=5e-5, adaptation="lora", dtype="bfloat16")
    right = prepare.main(["merge", str(run), str(tmp_path / "right"), "--accelerator", "cpu"])
    assert right["share"] == pytest.approx(1, abs=0.05)

    def scaled(layer, scale):
        before, after = weights(layer)
        return before, before + scale * (after - before)

    for scale, arrived in ((1.3, r"1[234]\d%"), (0.75, r"[56]\d%")):
        monkeypatch.setattr(merging, "weights", functools.partial(scaled, scale=scale))
        with pytest.raises(MergeError, match=rf"of which {arrived} arrived, 90% to 110% are allowed"):
            prepare.main(["merge", str(run), str(tmp_path / "wrong"), "--accelerator", "cpu"])
    assert [p.name for p in tmp_path.iterdir()] == ["right"]


def test_the_unmerged_model_is_gone(run, tmp_path):
    """Its memory is needed for the merged one, and the caller may still hold it."""
    scorer, node, about = find(run, torch.device("cpu"))
    write_merged(tmp_path, scorer, node, about)
    assert all(p.is_meta for p in scorer.parameters())


@pytest.mark.parametrize(
    ("error", "effect", "share", "exact", "passes"),
    [
        (1e-5, 1.0, 1.0, True, True),
        (1e-3, 1.0, 1.0, True, False),
        (1e-3, 1.0, 1.0, False, True),
        (0.2, 1.0, 1.0, False, False),
        (0.02, 0.03, 1.0, False, False),
        (0.01, 0.1, 0.91, False, True),
        (0.01, 0.1, 0.89, False, False),
        (0.01, 0.1, 1.11, False, False),
    ],
)
def test_a_model_that_is_another_is_refused(error, effect, share, exact, passes):
    found = Agreement(error, effect, share, 0.0, 0)
    if passes:
        _check(found, exact)
    else:
        with pytest.raises(MergeError, match=r"is not the one that was trained: its logits differ by .*--dtype float32"):
            _check(found, exact)


def test_no_number_is_no_agreement():
    with pytest.raises(MergeError, match="differ by nan"):
        _check(Agreement(float("nan"), 1.0, 1.0, 0.0, 0), exact=False)


def test_a_model_without_adapters_is_refused(place, tmp_path):
    with pytest.raises(MergeError, match="there are no adapters to merge"):
        prepare.main(["merge", str(place / "ours"), str(tmp_path / "out"), "--accelerator", "cpu"])
    assert list(tmp_path.iterdir()) == []


def test_a_scorer_without_a_language_model_is_refused(tmp_path):
    scorer = SCORERS.build(node := {"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny()})
    with pytest.raises(MergeError, match="PooledMLP has no language model"):
        write_merged(tmp_path, scorer, node, None)
