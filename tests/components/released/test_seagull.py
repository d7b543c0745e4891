"""The released checkpoint: every name used or dead, one to one; the published counts; and what a wrong checkpoint is told."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.released import seagull
from components.released.seagull import DEAD, RELEASED, check, is_dead, pack, to_ours, to_released, unpack
from components.released.shards import CheckpointError, Shards
from configs.schema import load_model
from tests.components.released.official import NODE, SHARDS, skeleton, table, tensors, write_checkpoint, write_index


@pytest.fixture(scope="module")
def small():
    return skeleton(NODE)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "SEAGULL"
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def imported(released, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("imported") / "ours"
    unpack(released, out, small.state_dict(), small.llm.architecture)
    return out


def altered(released, folder, change):
    """The released folder with its tensors changed."""
    state = dict(Shards(released))
    change(state)
    shutil.copytree(released, folder)
    write_checkpoint(folder, state)
    return folder


def import_of(folder, small, out):
    unpack(folder, out, small.state_dict(), small.llm.architecture)


def test_the_table_is_the_released_checkpoint_to_the_byte():
    assert len(table()) == 742
    assert sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in table().values()) == 14_122_027_444


def test_every_released_name_is_used_or_dead():
    dead = {name for name in table() if is_dead(name)}
    assert len(dead) == 6 + 2 + 3 + 32
    assert {name for name in table() if to_ours(name) is None} == dead
    assert len(DEAD) == 4


def test_names_are_translated_one_to_one():
    live = [name for name in table() if not is_dead(name)]
    assert [to_released(to_ours(name)) for name in live] == live
    assert len(set(map(to_ours, live))) == len(live)
    assert len(set(RELEASED.values())) == len(RELEASED)


def test_no_beginning_hides_another():
    """The first beginning that fits is taken, so none may begin another, in either direction."""
    for names in (list(RELEASED), list(RELEASED.values())):
        assert [(a, b) for a in names for b in names if a != b and b.startswith(a)] == []


def test_the_published_model_takes_the_published_checkpoint():
    model = skeleton(load_model("model/seagull_7b"))
    meta = {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in table().items()}
    check(meta, model.state_dict(), "SEAGULL-7B")
    assert len(model.state_dict()) == 742 - 43


def test_the_parameter_count_is_the_official_total_less_the_dead_parts():
    model = skeleton(load_model("model/seagull_7b"))
    rotary = 32 * 64  # float32, all others float16
    total = (14_122_027_444 - 4 * rotary) // 2
    mask_linear = (12544 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 * 4096 + 4096)
    clip_head = 2 * 1536 + (1536 * 1536 + 1536) + 1536 * 768
    assert mask_linear == 18_094_080
    assert total == 7_061_009_626
    counted = {name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()}
    assert sum(counted.values()) == total - mask_linear - clip_head == sum(p.numel() for p in model.parameters())
    assert counted == {
        "vision_encoder": 199_770_816 - clip_head,
        "projector": (768 * 4096 + 4096) + (4096 * 4096 + 4096),
        "region_extractor": 102_875_674 - mask_linear,
        "llm": 2 * 32002 * 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 4096,
        "readouts": 0,
    }


def test_what_is_imported_is_what_was_released(released, imported, small):
    theirs = Shards(released)
    ours = {f"vision_encoder.trunk.{k}": v for k, v in load_file(imported / "vision_encoder.safetensors").items()}
    ours |= load_file(imported / "model.safetensors")
    ours |= {f"llm.model.{k}": v for k, v in Shards(imported / "llm").items()}
    assert ours.keys() == small.state_dict().keys()
    for name, x in ours.items():
        assert torch.equal(x, theirs[to_released(name)])
        assert x.dtype == torch.float16


def test_the_language_model_may_be_split(released, small, tmp_path):
    unpack(released, tmp_path / "out", small.state_dict(), small.llm.architecture, shard_size="20KB")
    assert len(list((tmp_path / "out" / "llm").glob("*.safetensors"))) > 2
    assert len(Shards(tmp_path / "out" / "llm")) == 3 + 32 * 9


def test_the_round_trip_is_bit_exact(released, imported, tmp_path):
    assert pack(imported, tmp_path / "back") == []
    there, back = Shards(released), Shards(tmp_path / "back")
    assert back.place == there.place
    assert list(back) == list(there)
    for name, x in there.items():
        assert back[name].dtype == x.dtype
        assert torch.equal(back[name].view(torch.uint8), x.view(torch.uint8))
    assert len(back) == 742
    for file in ("config.json", "generation_config.json", "added_tokens.json", "tokenizer.model"):
        assert (tmp_path / "back" / file).read_bytes() == (released / file).read_bytes()


def test_values_that_are_no_numbers_survive(released, small, tmp_path):
    def spoil(state):
        state["model.mm_projector.0.bias"][:2] = torch.tensor([float("nan"), float("-inf")], dtype=torch.float16)

    folder = altered(released, tmp_path / "in", spoil)
    import_of(folder, small, tmp_path / "ours")
    pack(tmp_path / "ours", tmp_path / "back")
    name = "model.mm_projector.0.bias"
    assert torch.equal(Shards(tmp_path / "back")[name].view(torch.int16), Shards(folder)[name].view(torch.int16))


@pytest.mark.parametrize(
    "name",
    ["lm_head.weight", "mask_extractor.res3.bias", "model.layers.31.mlp.up_proj.weight", "mask_extractor.sa.q_proj.weight"],
)
def test_a_missing_tensor_is_named(released, small, tmp_path, name):
    folder = altered(released, tmp_path / "in", lambda state: state.pop(name))
    with pytest.raises(CheckpointError, match=rf"missing: {name}\. Nothing was written"):
        import_of(folder, small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["mask_extractor.res6.weight", "model.layers.32.mlp.up_proj.weight", "vision.x"])
def test_an_unknown_tensor_is_named(released, small, tmp_path, name):
    folder = altered(released, tmp_path / "in", lambda state: state.update({name: torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=rf"neither used nor on the list of dead ones: {name}"):
        import_of(folder, small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tensor_of_another_shape_is_named(released, small, tmp_path):
    name = "mask_extractor.res2.weight"
    folder = altered(released, tmp_path / "in", lambda state: state.update({name: torch.zeros(16, 5)}))
    with pytest.raises(CheckpointError, match=rf"of another shape: {name} \(16, 5\) instead of \(16, 4\)"):
        import_of(folder, small, tmp_path / "out")


def test_all_faults_are_told_at_once(released, small, tmp_path):
    def spoil(state):
        del state["lm_head.weight"]
        state["more"] = torch.zeros(1)

    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight; neither used nor on the list of dead ones: more"):
        import_of(altered(released, tmp_path / "in", spoil), small, tmp_path / "out")


def test_dead_tensors_may_be_gone(released, small, tmp_path):
    """Newer versions of transformers no longer write rotary buffers."""
    folder = altered(released, tmp_path / "in", lambda s: [s.pop(k) for k in list(s) if k.endswith("inv_freq")])
    import_of(folder, small, tmp_path / "ours")
    pack(tmp_path / "ours", tmp_path / "back")
    assert len(Shards(tmp_path / "back")) == 710


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.999])
def test_a_truncated_shard_is_named(released, small, tmp_path, kept):
    folder = tmp_path / "in"
    shutil.copytree(released, folder)
    whole = (folder / SHARDS[1]).read_bytes()
    (folder / SHARDS[1]).write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=rf"{SHARDS[1]} cannot be read .* truncated or damaged: fetch it again"):
        import_of(folder, small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_language_model_is_refused(released, small, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(released, folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "rms_norm_eps": 1e-6}))
    with pytest.raises(CheckpointError, match=r"another language model \(rms_norm_eps: 1e-06 there, 1e-05 here\)"):
        import_of(folder, small, tmp_path / "out")
    (folder / "config.json").write_text("3")
    with pytest.raises(CheckpointError, match=r"config\.json holds no JSON object"):
        import_of(folder, small, tmp_path / "out")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        import_of(folder, small, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_theta": 500000.0}, "rope_theta: 500000.0 there, 10000.0 here"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_scaling"),
        ({"attention_bias": True}, "attention_bias: True there, False here"),
        ({"hidden_size": ...}, "does not tell hidden_size"),
    ],
)
def test_what_would_score_otherwise_is_another_language_model(released, small, tmp_path, changes, named):
    folder = tmp_path / "released"
    shutil.copytree(released, folder)
    told = {**json.loads((folder / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in told.items() if v is not ...}))
    with pytest.raises(CheckpointError, match=re.escape(named)):
        import_of(folder, small, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("changes", [{"file": "../victim.bin"}, {"file": "/victim.bin"}, {"file": "victim.txt"}, {"dtype": "save"}])
def test_a_record_cannot_say_where_else_to_write(imported, tmp_path, changes):
    official = tmp_path / "official"
    shutil.copytree(imported / "official", official)
    record = json.loads((official / "tensors.json").read_text())
    first = next(iter(record))
    record[first] |= changes
    (official / "tensors.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=f"puts {re.escape(first)} into .*no record of an import"):
        pack(imported, tmp_path / "out", official)
    assert [p.name for p in tmp_path.iterdir()] == ["official"]


def test_a_model_with_a_part_of_its_own_is_refused():
    more = skeleton({**NODE, "region_extractor": {**NODE["region_extractor"], "geometry": True}})
    with pytest.raises(CheckpointError, match=r"this model has region_extractor.global_token.geometry.* which the released one does not"):
        check(tensors(), more.state_dict(), "x")


def test_no_room(released, small, tmp_path, monkeypatch):
    monkeypatch.setattr(seagull.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(CheckpointError, match=r"has 0.0 GB free, .* are needed: make room"):
        import_of(released, small, tmp_path / "out")


def edited(imported, folder, **changes):
    """An imported model whose trained tensors were changed."""
    shutil.copytree(imported, folder)
    state = load_file(folder / "model.safetensors")
    save_file({**state, **changes}, folder / "model.safetensors")
    return folder


def test_what_was_trained_here_goes_back(imported, tmp_path):
    """In single precision, as training keeps it: rounded to the released one, and named."""
    name = "projector.mlp.0.bias"
    value = torch.full((16,), 1 / 3)
    folder = edited(imported, tmp_path / "tuned", **{name: value})
    assert pack(folder, tmp_path / "back") == ["model.mm_projector.0.bias"]
    assert torch.equal(Shards(tmp_path / "back")["model.mm_projector.0.bias"], value.half())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector.mlp.0.bias": torch.full((16,), 1e6)}, "model.mm_projector.0.bias has values beyond the range of float16"),
        ({"projector.mlp.0.bias": torch.zeros(3)}, "of another shape: model.mm_projector.0.bias"),
        ({"llm.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.zeros(1)}, "holds LoRA adapters .* merge them first"),
        (
            {"region_extractor.global_token.geometry.0.weight": torch.zeros(1)},
            "unknown to the released model: region_extractor.global_token.geo",
        ),
    ],
)
def test_what_the_released_names_cannot_say(imported, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        pack(edited(imported, tmp_path / "tuned", **changes), tmp_path / "back")


def test_export_needs_the_record_of_the_import(imported, tmp_path):
    shutil.copytree(imported, tmp_path / "tuned")
    shutil.move(tmp_path / "tuned" / "official", tmp_path / "kept")
    with pytest.raises(CheckpointError, match=r"has no tensors\.json"):
        pack(tmp_path / "tuned", tmp_path / "back")
    assert pack(tmp_path / "tuned", tmp_path / "back", tmp_path / "kept") == []
    assert len(Shards(tmp_path / "back")) == 742


def test_an_index_that_disagrees_with_its_files(released, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(released, folder)
    place = dict(Shards(released).place)
    write_index(folder, {**place, "lm_head.weight": SHARDS[1], "ghost": SHARDS[0]}, 0)
    with pytest.raises(CheckpointError, match=r"disagrees with its files: tensors 2 not where it says \(first: ghost\)"):
        Shards(folder)
