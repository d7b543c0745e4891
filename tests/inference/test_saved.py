"""A saved model: it comes back the same, says what it is, takes along what it needs, and refuses to be read wrongly."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from components.prompts import TOKENIZER_CORPUS
from components.registry import ConfigError
from components.scorers.base import SCORERS
from components.tokenizer import project_tokenizer
from inference.load import load
from inference.saved import About, describe, is_saved, load_saved, save
from tests.components.scorers.samples import INSTALLED, picture

LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}


def node_of(name, **options):
    return {"plugin": name, **SCORERS.get(name).tiny(), **options}


def built(node, seed=0):
    torch.manual_seed(seed)
    scorer = SCORERS.build(node).eval()
    scorer.load_pretrained()
    return scorer.eval()


def answers(scorer):
    image, masks = picture(1)
    return scorer.score(image, masks, scorer.tasks)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A language model in a local folder."""
    folder = tmp_path_factory.mktemp("hf") / "llama"
    tokenizer = project_tokenizer(TOKENIZER_CORPUS)
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **LLAMA)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not taken along")
    return folder


@pytest.mark.parametrize("name", INSTALLED)
def test_every_scorer_comes_back_the_same(name, tmp_path):
    node = node_of(name)
    scorer = built(node)
    save(tmp_path / "m", scorer, node, About())
    assert is_saved(tmp_path / "m")
    again = load(tmp_path / "m")
    assert not any(m.training for m in again.modules())
    assert answers(again) == answers(scorer)


def test_it_describes_itself(tmp_path):
    node = node_of("roi_vlm")
    scorer = built(node)
    about = About(
        "CC BY 4.0", ({"part": "llm", "id": "a/b", "revision": "c"},), {"git": "abc", "metrics": {"quality": {"srcc": 0.5, "plcc": None}}}
    )
    save(tmp_path / "m", scorer, node, about)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["model"] == node
    assert config["tasks"] == ["quality", "importance", "distortion"]
    assert config["preprocess"]["size"] == 64
    assert config["wording"] == {"conversation": "seagull_v1", "version": "1"}
    assert (config["licence"], config["made"]["git"]) == ("CC BY 4.0", "abc")
    assert config["base_models"] == [{"part": "llm", "id": "a/b", "revision": "c"}]
    card = (tmp_path / "m" / "README.md").read_text()
    assert 'license_name: "CC BY 4.0"' in card
    assert "- a/b" in card
    assert "| quality | 0.500 | - |" in card
    assert "| vision_encoder | `timm_pyramid` |" in card
    assert load_saved(tmp_path / "m")[2] == about


@pytest.mark.parametrize(("said", "told"), [("", "not for sale"), ("MIT", "MIT; not for sale"), ("MIT; not for sale", "MIT; not for sale")])
def test_a_scorer_s_licence_is_told_whatever_is_said_of_the_weights(tmp_path, monkeypatch, said, told):
    node = node_of("pooled_mlp")
    scorer = built(node)
    monkeypatch.setattr(type(scorer), "licence", "not for sale")
    describe(tmp_path, scorer, node, About(said))
    assert json.loads((tmp_path / "config.json").read_text())["licence"] == told
    assert f"Licence: {told}." in (tmp_path / "README.md").read_text()


def test_local_bases_are_taken_along(llama, tmp_path):
    """So that the folder can be given away: the paths of this machine mean nothing elsewhere."""
    weights = tmp_path / "encoder.safetensors"
    encoder = node_of("roi_vlm")["vision_encoder"]
    scorer = built(node_of("roi_vlm"))
    save_file({k: v.contiguous() for k, v in scorer.vision_encoder.weights_module().state_dict().items()}, weights)
    tuned = {"plugin": "hf_causal", "source": str(llama), "adaptation": "lora", "lora_rank": 2}
    node = node_of("roi_vlm", vision_encoder={**encoder, "weights": str(weights)}, llm=tuned)
    scorer = built(node)
    save(tmp_path / "m", scorer, node, About())
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["model"]["vision_encoder"]["weights"] == "./vision_encoder.safetensors"
    assert config["model"]["llm"]["source"] == "./llm"
    assert sorted(p.suffix for p in (tmp_path / "m" / "llm").iterdir()).count(".bin") == 0
    assert str(tmp_path) not in (tmp_path / "m" / "config.json").read_text()
    assert all("lora" in k or not k.startswith("llm") for k in load_file(tmp_path / "m" / "model.safetensors"))
    shutil.move(tmp_path / "m", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere" / "unused", ignore_errors=True)
    weights.unlink()
    again, resolved, about = load_saved(tmp_path / "elsewhere")
    assert answers(again) == answers(scorer)
    save(tmp_path / "third", again, resolved, about)
    assert answers(load(tmp_path / "third")) == answers(scorer)


def test_what_ships_with_the_package_is_named_not_copied(tmp_path):
    shipped = "components/vision_encoders/weights/resnet10t_statistics.safetensors"
    encoder = {
        "plugin": "local_statistics",
        "name": "resnet10t",
        "image_size": 64,
        "weights": shipped,
        "model_args": {"channels": [32, 64, 128, 256]},
    }
    node = node_of("pooled_mlp", vision_encoder=encoder)
    scorer = built(node)
    save(tmp_path / "m", scorer, node, About())
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert answers(load(tmp_path / "m")) == answers(scorer)


def test_a_hub_base_is_named_with_its_commit(llama, tmp_path, monkeypatch):
    """A folder stands in for the hub: its name is no path from where the model is saved."""
    monkeypatch.chdir(llama.parent)
    node = node_of("roi_vlm", llm={"plugin": "hf_causal", "source": "llama", "adaptation": "frozen"})
    scorer = built(node)
    monkeypatch.chdir(tmp_path)
    scorer.llm.model.config._commit_hash = "0123abc"
    save(tmp_path / "m", scorer, node, About())
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["base_models"] == [{"part": "llm", "id": "llama", "revision": "0123abc"}]
    assert (config["model"]["llm"]["source"], config["model"]["llm"]["revision"]) == ("llama", "0123abc")
    assert not (tmp_path / "m" / "llm").exists()


def changed(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def saved(tmp_path):
    node = node_of("roi_vlm")
    save(tmp_path / "m", built(node), node, About())
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["roi_iqa"].update(format=7), r"written in format 7 by version 0.1.0; this version reads format 1"),
        (lambda c: c["preprocess"].update(size=96), r"another preprocessing .*\(size: 96 there, 64 here\).*Use roi-iqa 0.1.0"),
        (lambda c: c["wording"].update(version="0"), r"another wording .*\(version: '0' there, '1' here\)"),
        (lambda c: c["model"].update(plugin="roi_vml"), r"no scorer plugin 'roi_vml'. Did you mean 'roi_vlm'"),
        (lambda c: c["model"]["llm"].update(layers=1), "of another architecture"),
        (
            lambda c: c["model"]["vision_encoder"].update(weights="./gone.safetensors"),
            r"has no gone\.safetensors, which its config\.json names",
        ),
        (lambda c: c["model"]["vision_encoder"].update(weights="./../x.safetensors"), "lies outside the model's folder"),
    ],
)
def test_it_refuses_to_be_read_wrongly(saved, change, message):
    changed(saved, change)
    with pytest.raises((ValueError, ConfigError, FileNotFoundError), match=message):
        load(saved)


def test_damaged_weights(saved):
    (saved / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a whole \.safetensors file"):
        load(saved)


def test_a_folder_that_is_none(tmp_path):
    assert not is_saved(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert not is_saved(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a saved model"):
        load_saved(tmp_path)
