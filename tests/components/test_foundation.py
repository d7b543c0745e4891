"""Fingerprints of frozen weights: equal where the values are, others where one tensor is, whatever precision they are used in."""

import json

import pytest
import torch
from safetensors.torch import save_file

from components.foundation import check_foundations, fingerprint, fingerprint_of_files
from components.llm_adapters.hf_causal import HFCausal
from tests.components.llm_adapters.test_hf_causal import LORA, make

TENSORS = {"a": torch.arange(600.0).view(20, 30), "b": torch.tensor(3.0), "c": torch.zeros(0, 4)}


def test_it_is_that_of_names_shapes_precisions_and_values():
    found = fingerprint(TENSORS)
    assert len(found) == 16
    assert fingerprint(dict(reversed(TENSORS.items()))) == found
    others = [
        {**TENSORS, "a": TENSORS["a"] + 1},
        {**TENSORS, "a": TENSORS["a"].view(30, 20)},
        {**TENSORS, "b": TENSORS["b"].double()},
        {"x": TENSORS["a"], **{k: v for k, v in TENSORS.items() if k != "a"}},
    ]
    assert len({found, *map(fingerprint, others)}) == 5
    assert fingerprint({"a": torch.empty(2, device="meta")}) == ""


def test_files_are_sampled_where_they_are(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    save_file({"z": torch.ones(1)}, tmp_path / "consolidated.safetensors")  # as some hubs have beside it
    assert fingerprint_of_files(tmp_path) == fingerprint(TENSORS)
    (tmp_path / "shards").mkdir()
    place = {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}
    for file in set(place.values()):
        save_file({k: TENSORS[k] for k, f in place.items() if f == file}, tmp_path / "shards" / file)
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert fingerprint_of_files(tmp_path / "shards") == fingerprint(TENSORS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "llama"
    adapter = make()
    adapter.model.save_pretrained(path)
    adapter.tokenizer.save_pretrained(path)
    return path


def test_adapters_name_their_base_whatever_it_is_loaded_in(folder):
    told = []
    for options in (LORA, {**LORA, "adaptation": "qlora"}, {**LORA, "dtype": "bfloat16"}, {"adaptation": "frozen"}):
        adapter = HFCausal(source=str(folder), **options)
        adapter.load_pretrained()
        told.append(adapter.foundation())
    assert told[0] == told[1] == told[2] == told[3]
    assert told[0]["model"] == str(folder)
    assert told[0]["architecture"] == "llama of 2 layers, width 32, 4 heads (2 of keys), 300 tokens"
    assert make().foundation() is None  # it is trained as a whole
    assert make(**LORA).foundation()["model"] == "random weights"
    assert make(**LORA).foundation() == make(**{**LORA, "adaptation": "qlora"}).foundation() != make(seed=1, **LORA).foundation()


def test_the_published_base_in_words():
    with torch.device("meta"):
        base = make(config={"model_type": "llama", "intermediate_size": 11008}, **LORA).foundation()
    assert base["architecture"] == "llama of 32 layers, width 4096, 32 heads (32 of keys), 32000 tokens"
    assert base["weights"] == ""


HERE = {"llm": {"model": "models/vicuna", "architecture": "llama", "weights": "01"}, "vision_encoder": {"model": "X", "weights": "02"}}


def test_the_same_base_may_stand_elsewhere():
    check_foundations({**HERE, "llm": {**HERE["llm"], "model": "hub/vicuna at revision 0a"}}, HERE, "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"llm": {**HERE["llm"], "model": "models/llama-2", "weights": "ff"}},
            "llm: models/llama-2, architecture llama, weights ff there, models/vicuna",
        ),
        (
            {"llm": {**HERE["llm"], "architecture": "qwen3"}},
            "architecture qwen3, weights 01 there, models/vicuna, architecture llama, weights 01 here",
        ),
        (
            {"vision_encoder": {"model": "X", "weights": "03"}},
            r"outputs/x was trained on other frozen weights \(vision_encoder: X, weights 03 there",
        ),
        ({"standardize": {"model": "Y", "weights": "04"}}, "standardize: Y, weights 04 there, not frozen here"),
    ],
)
def test_another_base_is_named_beside_its_own(change, message):
    with pytest.raises(ValueError, match=message):
        check_foundations({**HERE, **change}, HERE, "outputs/x")
