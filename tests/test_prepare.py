"""Commands on checkpoints, end to end on a synthetic one: in, used, out again, equal; and nothing half-written or overwritten."""

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import prepare
from components.registry import ConfigError
from components.released import mobile_iqa, teacher_iqa
from components.released.seagull import to_ours
from components.released.shards import CheckpointError, Shards
from components.scorers.base import SCORERS
from components.tasks import TASKS
from datamodules.procedural import dead_leaves
from inference import handover
from inference.load import load
from inference.saved import is_saved
from tests.components.released.official import NODE, SHARDS, write_checkpoint, write_model_file
from tests.components.scorers.samples import picture


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare")
    write_checkpoint(folder / "released")
    write_model_file(folder / "small.yaml")
    return folder


@pytest.fixture(scope="module")
def imported(place):
    found = prepare.main(["import-seagull", str(place / "released"), str(place / "ours"), "--model", str(place / "small.yaml")])
    return place / "ours", found


def test_the_import_tells_what_it_did(imported):
    folder, found = imported
    assert (found["tensors"], len(found["dead"])) == (742, 43)
    config = json.loads((folder / "config.json").read_text())
    assert config["model"]["llm"] == {"plugin": "hf_causal", "source": "./llm", "adaptation": "frozen"}
    assert config["model"]["vision_encoder"]["weights"] == "./vision_encoder.safetensors"
    assert config["model"]["weights"] == ""
    assert config["wording"] == {"conversation": "seagull_v1", "version": "1"}
    assert "Llama 2" in config["licence"]
    assert [(b["part"], b["id"]) for b in config["base_models"]] == [  # not what the model file calls the weights that stand in the folder
        ("all", "Zevin2023/SEAGULL-7B"),
        ("vision_encoder", "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"),
    ]
    assert not list(folder.rglob("*.bin"))
    assert not list(folder.parent.glob(".*draft"))


def test_who_may_read_the_folder_may_read_all_of_it(imported):
    """safetensors writes files for their owner alone, and a temporary folder is its owner's."""
    mode = imported[0].stat().st_mode & 0o777
    assert {p.stat().st_mode & 0o777 for p in imported[0].rglob("*") if p.is_file()} == {mode & 0o666}
    assert {p.stat().st_mode & 0o777 for p in imported[0].rglob("*") if p.is_dir()} == {mode}


def test_the_imported_model_scores_with_the_released_weights(imported, place):
    scorer = load(imported[0])
    theirs = Shards(place / "released")
    state = scorer.state_dict()
    for name in ("mask_extractor.final_mlp.weight", "model.layers.3.mlp.gate_proj.weight", "model.mm_projector.2.bias", "lm_head.weight"):
        assert torch.equal(state[to_ours(name)], theirs[name].float())
    assert (scorer.llm.tokenizer.bos_token_id, scorer.llm.tokenizer.eos_token_id) == (1, 2)
    image, masks = picture(3)
    scores = scorer.score(image, masks, TASKS)
    assert len(scores) == len(masks)
    assert all(0 <= region[task].value <= 1 for region in scores for task in ("quality", "importance"))


def test_and_goes_back_bit_by_bit(imported, place):
    assert prepare.main(["export-seagull", str(imported[0]), str(place / "back")])["rounded"] == []
    there, back = Shards(place / "released"), Shards(place / "back")
    assert {k: v.dtype for k, v in back.items()} == {k: v.dtype for k, v in there.items()}
    assert all(torch.equal(back[k], there[k]) for k in there)
    assert back.place == there.place
    assert (place / "back" / "pytorch_model.bin.index.json").read_bytes() == (
        place / "released" / "pytorch_model.bin.index.json"
    ).read_bytes()


def test_loaded_and_saved_again_it_still_goes_back_bit_by_bit(imported, place):
    """Single precision in memory holds every half exactly."""
    prepare.main(["save", str(imported[0]), str(place / "again")])
    prepare.main(["export-seagull", str(place / "again"), str(place / "again-back"), "--official", str(imported[0] / "official")])
    there, back = Shards(place / "released"), Shards(place / "again-back")
    assert all(torch.equal(back[k], there[k]) for k in there)
    again = json.loads((place / "again" / "config.json").read_text())
    assert again["licence"] == json.loads((imported[0] / "config.json").read_text())["licence"]


def test_nothing_is_overwritten_silently(imported, place):
    before = (imported[0] / "config.json").read_bytes()
    asked = ["import-seagull", str(place / "released"), str(imported[0]), "--model", str(place / "small.yaml")]
    with pytest.raises(FileExistsError, match="is there already: choose another place, or replace it with --overwrite"):
        prepare.main(asked)
    assert (imported[0] / "config.json").read_bytes() == before
    prepare.main([*asked, "--overwrite"])
    assert (imported[0] / "config.json").read_bytes() == before


@pytest.mark.parametrize("stopped", ["before", "after"])
def test_a_kill_while_a_model_is_replaced_loses_neither(imported, tmp_path, monkeypatch, stopped):
    """What is removed goes last, when what replaces it stands in its place."""
    out, rename, remove = tmp_path / "ours", Path.rename, shutil.rmtree
    shutil.copytree(imported[0], out)
    (out / "mark").touch()

    def killed_before(path, target):
        if path.name.endswith(".draft"):
            raise KeyboardInterrupt
        return rename(path, target)

    def killed_after(path, **options):
        if path.name.endswith(".old") and path.exists():
            raise KeyboardInterrupt
        remove(path, **options)

    if stopped == "before":
        monkeypatch.setattr(Path, "rename", killed_before)
    else:
        monkeypatch.setattr(shutil, "rmtree", killed_after)
    with pytest.raises(KeyboardInterrupt):
        prepare.main(["save", str(imported[0]), str(out), "--overwrite"])
    monkeypatch.undo()
    assert is_saved(out)
    assert (out / "mark").exists() is (stopped == "before")
    assert (out / "model.safetensors").is_file()
    prepare.main(["save", str(imported[0]), str(out), "--overwrite"])
    assert [p.name for p in tmp_path.iterdir()] == ["ours"]


def test_what_is_no_folder_of_weights_is_never_replaced(place, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(FileExistsError, match="is no folder of weights, and is not replaced"):
        prepare.main(["import-seagull", str(place / "released"), str(tmp_path / "thesis"), "--overwrite"])
    assert (tmp_path / "thesis" / "chapter.tex").exists()


@pytest.mark.parametrize("out", ["ours", "ours/inside", "."])
def test_what_is_read_is_not_written_over(imported, tmp_path, out):
    shutil.copytree(imported[0], tmp_path / "ours")
    with pytest.raises(FileExistsError, match="is, holds or lies in what is read"):
        prepare.main(["export-seagull", str(tmp_path / "ours"), str(tmp_path / out), "--overwrite"])
    assert (tmp_path / "ours" / "official" / "tensors.json").is_file()


def test_a_tokenizer_that_is_missing_is_found_before_anything_is_written(place, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "released")
    (tmp_path / "released" / "tokenizer.model").unlink()
    monkeypatch.setattr(handover.seagull, "unpack", lambda *a: 1 / 0)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is missing"):
        prepare.main(["import-seagull", str(tmp_path / "released"), str(tmp_path / "ours"), "--model", str(place / "small.yaml")])


def test_a_failed_import_leaves_nothing(place, tmp_path):
    write_checkpoint(tmp_path / "released")
    (tmp_path / "released" / SHARDS[0]).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=SHARDS[0]):
        prepare.main(["import-seagull", str(tmp_path / "released"), str(tmp_path / "ours"), "--model", str(place / "small.yaml")])
    assert [p.name for p in tmp_path.iterdir()] == ["released"]


def test_a_failure_at_the_end_leaves_nothing(place, tmp_path, monkeypatch):
    monkeypatch.setattr(handover, "describe", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare.main(["import-seagull", str(place / "released"), str(tmp_path / "ours"), "--model", str(place / "small.yaml")])
    assert list(tmp_path.iterdir()) == []


def test_the_published_shapes_are_the_default(place, tmp_path):
    with pytest.raises(CheckpointError, match=r"is not the released checkpoint of this model.*of another shape"):
        prepare.main(["import-seagull", str(place / "released"), str(tmp_path / "ours")])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("model/nothing", "no model file 'model/nothing': it is neither a file nor one of .*model/seagull_7b"),
        ("model/seagull_tiny", "goes into a roi_vlm with an hf_causal whose `config` is stated"),
        ("trainer/cpu", "has no key 'model'"),
    ],
)
def test_a_model_file_that_will_not_do(place, tmp_path, model, message):
    with pytest.raises(ConfigError, match=message):
        prepare.main(["import-seagull", str(place / "released"), str(tmp_path / "ours"), "--model", model])


def test_the_small_model_is_of_the_published_make():
    """So that what holds for it holds for the published one: the same plugins and options, other widths."""
    from configs.schema import load_model

    published = load_model("model/seagull_7b")
    assert published["llm"]["config"].keys() - {"hidden_act"} == NODE["llm"]["config"].keys()
    assert {k: published[k]["plugin"] for k in ("vision_encoder", "region_extractor", "llm")} == {
        k: NODE[k]["plugin"] for k in ("vision_encoder", "region_extractor", "llm")
    }


def test_synthesize_makes_data_from_a_file_of_options_and_the_command_line(tmp_path, capsys):
    (tmp_path / "photographs").mkdir()
    for i in range(3):
        PIL.Image.fromarray(dead_leaves(40, np.random.default_rng(i))).save(tmp_path / "photographs" / f"{i}.png")
    (tmp_path / "mine.yaml").write_text(
        "mode: mixed\nimages: 7\nsize: 32\nengine: processes\nmask_encoder: {plugin: superpixel, segments: 9}\n"
    )
    asked = ["synthesize", str(tmp_path / "photographs"), str(tmp_path / "data"), str(tmp_path / "mine.yaml")]
    made = prepare.main([*asked, "images=3", "engine=inline", "mask_encoder.side=32"])
    said = capsys.readouterr().out
    assert made["counts"]["images"] == 3
    assert made["recipe"]["mask_encoder"]["segments"] == 9
    assert made["recipe"]["mask_encoder"]["side"] == 32
    assert f"3 images with {made['counts']['regions']} regions" in said
    assert "licence Apache-2.0" in said
    assert "labelling" in said
    (tmp_path / "photographs" / "1.png").write_bytes(b"broken")
    assert "1 could not be made, see data.json" not in said
    prepare.main([*asked[:2], str(tmp_path / "more"), "mode=mixed", "engine=inline", "val=0"])
    assert "2 images with" in (said := capsys.readouterr().out)
    assert "1 could not be made, see data.json" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["modes=mixed"], "synthesize: unknown key 'modes'. Did you mean 'mode'"),
        (["engine=rya"], "no engine plugin 'rya'. Did you mean 'ray'"),
        (["nowhere.yaml"], "'nowhere.yaml' is neither of the form key=value or key.sub=value nor a YAML file of options"),
    ],
)
def test_a_mistake_in_synthesize(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        prepare.main(["synthesize", str(tmp_path), str(tmp_path / "data"), *options])


PICTURE_NETWORKS = {
    "import-mobile-iqa": ("mobile_iqa", {"bounded": False}, lambda scorer: mobile_iqa.names("teacher", 5, 2)),
    "import-teacher-iqa": ("teacher_iqa", {"scale": [0.0, 100.0]}, lambda scorer: teacher_iqa.names()),
}


@pytest.fixture(params=PICTURE_NETWORKS)
def checkpoint(request, tmp_path):
    """A small network's random weights under the released names, and a model file of its shape."""
    plugin, changes, table = PICTURE_NETWORKS[request.param]
    node = {"plugin": plugin, **SCORERS.get(plugin).tiny(), **changes}
    (tmp_path / "model.yaml").write_text(json.dumps({"model": node}))
    torch.manual_seed(3)
    scorer = SCORERS.build(node).eval()
    with torch.no_grad():
        for name, x in scorer.state_dict().items():
            if name.endswith(("gamma", "running_mean")):
                x.uniform_(0.1, 0.5)
    released = {table(scorer).to_released(name): x.clone() for name, x in scorer.state_dict().items()}
    torch.save(released, tmp_path / "released.pkl")
    return request.param, tmp_path, scorer, released


def bring(command, folder, file="released.pkl"):
    return prepare.main([command, str(folder / file), str(folder / "ours"), "--model", str(folder / "model.yaml"), "--overwrite"])


def test_released_picture_networks_come_and_go_bit_by_bit(checkpoint):
    command, folder, scorer, released = checkpoint
    found = bring(command, folder)
    assert found["tensors"] == len(released)
    table = PICTURE_NETWORKS[command][2](scorer)
    again = load(folder / "ours")
    back = {table.to_released(name): x for name, x in again.state_dict().items()}
    assert back.keys() == released.keys()
    assert all(torch.equal(back[name], x) and back[name].dtype == x.dtype for name, x in released.items())
    image, masks = picture(1)
    assert again.score(image, masks) == scorer.score(image, masks)
    config = json.loads((folder / "ours" / "config.json").read_text())
    assert config["licence"].startswith("none is stated")
    assert config["made"] == {"command": f"{command} released.pkl"}


def test_a_picture_network_with_other_tensors_is_refused(checkpoint):
    command, folder, _, released = checkpoint
    torch.save({**released, "more": torch.zeros(1)}, folder / "more.pkl")
    with pytest.raises(CheckpointError, match=r"1 unknown \(first: (tn\.)?more\). Nothing was written"):
        bring(command, folder, "more.pkl")
    assert not (folder / "ours").exists()
    (folder / "model.yaml").write_text(json.dumps({"model": {"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny()}}))
    with pytest.raises(ConfigError, match=r"this checkpoint goes into a scorer (mobile|teacher)_iqa, got pooled_mlp"):
        bring(command, folder)


@pytest.mark.parametrize("checkpoint", ["import-teacher-iqa"], indirect=True)
def test_what_the_tensors_do_not_tell_is_said_or_asked_for(checkpoint, capsys):
    """Pixels and scale: those of the later training code are others than those of the released weights, under the same names."""
    command, folder, _, released = checkpoint
    torch.save({"state_dict": released}, folder / "wrapped.pkl")
    with pytest.raises(ConfigError, match=r"under 'state_dict'.*--model model/teacher_iqa for it.*--model model/teacher_iqa_koniq for the"):
        prepare.main([command, str(folder / "wrapped.pkl"), str(folder / "ours")])
    assert not (folder / "ours").exists()
    bring(command, folder, "wrapped.pkl")
    assert "scores from 0 to 100" in capsys.readouterr().out


@pytest.mark.parametrize("checkpoint", ["import-teacher-iqa"], indirect=True)
def test_a_restoring_network_alone_is_where_training_begins(checkpoint):
    command, folder, scorer, released = checkpoint
    alone = {name.removeprefix("tn."): x for name, x in released.items() if name.startswith("tn.")}
    torch.save(alone, folder / "alone.pkl")
    assert bring(command, folder, "alone.pkl")["tensors"] == len(alone)
    model = load(folder / "ours")
    assert model.stage == "restoration"
    view = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.restore(view), scorer.restore(view))
