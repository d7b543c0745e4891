"""ONNX files answer as the scorer that they were made of, for any number of regions, and say how to be asked."""

import dataclasses
import functools
import json
import logging
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import pdist
from torch import nn

import prepare
from components.preprocess import prepare_image, prepare_regions
from components.registry import ConfigError
from components.scorers.base import SCORERS, Graph, Scorer
from datamodules.images import load_image
from inference import export
from inference.engine import Engine
from inference.export import export_onnx
from inference.saved import About, save
from tests.components.scorers.samples import scene, sensitive
from tests.test_docs import fenced

SMALL = ("pooled_mlp", "mobile_iqa", "teacher_iqa")


def built(name):
    torch.manual_seed(0)
    return sensitive(SCORERS.build({"plugin": name, **SCORERS.get(name).tiny()}).eval())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Name -> the scorer, its file, and how far they are apart; each file is made once, which takes seconds."""

    @functools.cache
    def made(name):
        scorer, path = built(name), tmp_path_factory.mktemp(name) / "model.onnx"
        return scorer, path, export_onnx(scorer, path)

    return made


@pytest.mark.parametrize("name", SMALL)
def test_onnx_gives_the_scores(name, written):
    level = logging.getLogger("torch.onnx").level
    scorer, path, apart = written(name)
    assert apart <= export.TOLERANCE
    assert logging.getLogger("torch.onnx").level == level
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    image, masks = scene(5)
    regions = prepare_regions(image, masks, scorer.preprocess, scorer.crop_size)
    given = {"image": prepare_image(image, scorer.preprocess)[None], "masks": regions.masks, "boxes": regions.boxes, "areas": regions.areas}
    given["crops"] = regions.crops
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores, *_ = session.run(None, {i.name: given[i.name].numpy() for i in session.get_inputs()})
    tasks = [task for task in ("quality", "importance") if task in scorer.tasks]
    wanted = np.array([[answer[task].value for task in tasks] for answer in scorer.score(image, masks, tasks)])
    assert pdist(wanted, "chebyshev").min() > 10 * export.TOLERANCE  # each region's answers are told from every other's
    np.testing.assert_allclose(scores.reshape(wanted.shape), wanted, rtol=0, atol=export.TOLERANCE)
    told = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert json.loads(told["preprocess"])["size"] == scorer.preprocess.size
    assert all("regions" in shape or name == "image" for name, shape in json.loads(told["inputs"]).items())


def test_the_example_without_pytorch_gives_the_scores(root, tmp_path, written, monkeypatch):
    """As docs/predict.md says it, word for word, of a photograph that is turned; its function serves the scorers of crops, too."""
    (example,) = [block for block in fenced((root / "docs" / "predict.md").read_text(), "python") if "onnxruntime" in block]
    scorer, path, _ = written("pooled_mlp")
    shutil.copy(path, tmp_path / "pooled.onnx")
    patches = np.random.default_rng(3).integers(0, 256, (9, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(patches).resize((140, 233), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg", exif=exif)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(compile(example, "docs/predict.md", "exec"), found)
    (wanted,) = Engine(scorer).score("photo.jpg", [(40, 30, 120, 90)])
    (whole,) = Engine(scorer).score("photo.jpg", [(0, 0, 233, 140)])
    for task in ("quality", "importance"):
        assert abs(wanted[task].value - whole[task].value) > 10 * export.TOLERANCE  # another region has another score
        assert found[task] == pytest.approx(wanted[task].value, abs=export.TOLERANCE)
        assert found[f"{task}_std"] == pytest.approx(wanted[task].std, abs=export.TOLERANCE)
    crop = found["prepared"](found["picture"].crop((40, 30, 160, 120)), 48)
    turned = torch.from_numpy(load_image("photo.jpg")).permute(2, 0, 1)
    np.testing.assert_allclose(crop, prepare_image(turned[:, 30:120, 40:160], scorer.preprocess, 48).numpy(), rtol=0, atol=1e-5)
    found["look"]["resizes"] = "one"  # as of `mobile_iqa`
    crop = found["prepared"](found["picture"].crop((40, 30, 160, 120)), 48)
    once = dataclasses.replace(scorer.preprocess, resizes="one")
    np.testing.assert_allclose(crop, prepare_image(turned[:, 30:120, 40:160], once, 48).numpy(), rtol=0, atol=1e-5)


def test_the_command(tmp_path, written, monkeypatch):
    scorer, path, _ = written("pooled_mlp")
    monkeypatch.setattr(export, "_write", lambda graph, draft, told: shutil.copy(path, draft))
    save(tmp_path / "model", scorer, {"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny()}, About())
    arguments = ["export-onnx", str(tmp_path / "model"), str(tmp_path / "small.onnx")]
    assert prepare.main(arguments)["apart"] <= export.TOLERANCE
    with pytest.raises(FileExistsError, match="is there already"):
        prepare.main(arguments)


def test_a_language_model_is_no_graph(tmp_path):
    with pytest.raises(ConfigError, match="RoiVLM cannot be written as one graph: it asks and hears a language model"):
        export_onnx(built("roi_vlm"), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        export_onnx(built("pooled_mlp"), tmp_path / "model.pt")


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path, monkeypatch):
    class Drifting(nn.Module):
        """Another answer at each call, as a graph that lost something would give."""

        def __init__(self):
            super().__init__()
            self.linear, self.calls = nn.Linear(3, 1), 0

        def forward(self, crops):
            self.calls += 1
            return self.linear(crops.mean((2, 3)))[:, 0] + self.calls

    crops = torch.ones(2, 3, 64, 64)
    scorer = built("mobile_iqa")
    monkeypatch.setattr(type(scorer), "graph", lambda self: Graph(Drifting(), {"crops": crops}, {"crops": 0}, ("scores",), ""))
    with pytest.raises(ValueError, match=r"answers otherwise than the model: by .*; it was not kept"):
        export_onnx(scorer, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SMALL)
def test_a_graph_that_answers_otherwise_than_the_scorer_is_not_kept(name, tmp_path, written, monkeypatch):
    """It is written as it is, and yet gives one region's answer for the next."""
    (scorer, path, _), score = written(name), Scorer.score
    monkeypatch.setattr(export, "_write", lambda graph, draft, told: shutil.copy(path, draft))
    monkeypatch.setattr(Scorer, "score", lambda *asked: score(*asked)[::-1])
    with pytest.raises(ValueError, match=r"answers otherwise than the model: by .*; it was not kept"):
        export_onnx(scorer, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    real = __import__

    def without(name, *rest):
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr("builtins.__import__", without)
    with pytest.raises(ImportError, match=r"needs the package onnxscript: pip install 'roi-iqa\[onnx\]'"):
        export._check_installed()
