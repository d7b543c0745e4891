"""The hub's own interface: saved, read back in eval mode, pushed; the hub itself is stood in for."""

import json
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file

import inference.load as loading
from components.registry import ConfigError
from components.scorers.base import SCORERS
from inference.hub import RoiIQA
from inference.load import load
from inference.saved import About
from tests.components.scorers.samples import picture

NODE = {"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny()}


@pytest.fixture
def model():
    return RoiIQA(SCORERS.build(NODE).train(), NODE, About("MIT"))


def test_save_and_read_back(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    mode = (tmp_path / "m").stat().st_mode & 0o666
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "m").iterdir() if p.is_file()} == {mode}
    again = RoiIQA.from_pretrained(tmp_path / "m")
    image, masks = picture(1)
    assert again.score(image, masks) == model.score(image, masks)
    assert again.score(image, masks, ["quality"])[0].keys() == {"quality"}
    assert (again.node, again.about) == (model.node, model.about)
    assert not any(m.training for m in again.scorer.modules())
    assert "library_name: roi-iqa" in (tmp_path / "m" / "README.md").read_text()
    assert not list((tmp_path / "m").rglob("*.bin"))


def test_the_device_is_heard(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    scorer = RoiIQA.from_pretrained(tmp_path / "m", device=torch.device("cpu")).scorer
    assert next(scorer.parameters()).device.type == "cpu"


def test_what_is_pushed_can_be_read(model, tmp_path, monkeypatch):
    hub = tmp_path / "hub"

    def upload(self, *, repo_id, folder_path, **rest):
        Path(folder_path).rename(hub)
        Path(folder_path).mkdir()
        return repo_id

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **rest: type("Repo", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model.push_to_hub("me/scorer")
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(hub)

    monkeypatch.setattr(loading, "snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda **options: str(hub / options["filename"]))
    image, masks = picture(2)
    assert RoiIQA.from_pretrained("me/scorer", revision="v1").score(image, masks) == model.score(image, masks)
    assert load("me/scorer").score(image, masks) == model.score(image, masks)
    assert [name for name, _ in asked] == ["me/scorer"] * 2
    assert asked[0][1]["revision"] == "v1"
    assert all("bin" not in pattern for _, options in asked for pattern in options["allow_patterns"])


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/no/such/folder"])
def test_neither_a_folder_nor_a_name(name):
    with pytest.raises(FileNotFoundError, match="no such folder, and no name on the hub"):
        load(name)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.yaml: give the folder of a run that train\.py made, or of a saved model"):
        load(tmp_path)


def test_a_run_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "cache"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    (tmp_path / "outputs" / "quickstart" / "config.yaml").touch()
    with pytest.raises(FileNotFoundError, match=r"outputs/quickstrat: no such folder; outputs holds quickstart$"):
        load("outputs/quickstrat")


def test_a_name_that_the_hub_does_not_give():
    with pytest.raises(FileNotFoundError, match=r"nobody/nothing: no such folder here, and the hub did not give it"):
        load("nobody/nothing")


def test_a_model_may_be_written_over_itself(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    image, masks = picture(1)
    RoiIQA.from_pretrained(tmp_path / "m").save_pretrained(tmp_path / "m")
    assert RoiIQA.from_pretrained(tmp_path / "m").score(image, masks) == model.score(image, masks)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_cache_of_links_is_read(tmp_path):
    """The hub's cache: links by the model's names to files of other names."""
    torch.manual_seed(0)
    encoder = SCORERS.build(NODE).vision_encoder
    save_file({k.removeprefix("net."): v.contiguous() for k, v in encoder.state_dict().items()}, tmp_path / "e.safetensors")
    node = {**NODE, "vision_encoder": {**NODE["vision_encoder"], "weights": str(tmp_path / "e.safetensors")}}
    scorer = SCORERS.build(node)
    scorer.load_pretrained()
    RoiIQA(scorer, node).save_pretrained(tmp_path / "m")
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "x"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted((tmp_path / "m").iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    image, masks = picture(1)
    assert load(snapshot).score(image, masks) == scorer.score(image, masks)


@pytest.mark.parametrize("path", ["/abs/enc.safetensors", "../enc.safetensors", "./../enc.safetensors"])
def test_a_model_may_not_name_files_outside_its_folder(model, tmp_path, path):
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["model"]["vision_encoder"]["weights"] = path
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="lies outside the model's folder"):
        load(tmp_path / "m")


def test_code_is_not_chosen_by_a_model_from_elsewhere(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["model"]["vision_encoder"]["plugin"] = "antigravity:x"
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(loading, "snapshot_download", lambda *a, **k: str(tmp_path / "m"))
    with pytest.raises(ConfigError, match=r"wants code of the module 'antigravity'.*import antigravity first if you trust it"):
        load("me/scorer")
    assert "antigravity" not in sys.modules


def test_unknown_options_are_refused(model, tmp_path):
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(TypeError, match="has no option devcie"):
        RoiIQA.from_pretrained(tmp_path / "m", devcie="cpu")
