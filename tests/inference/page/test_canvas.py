"""Of what visitors paint, only what a canvas can hold is taken, and nothing is kept for ever."""

import io
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from fastapi import HTTPException
from gradio.components.image_editor import EditorData
from gradio.data_classes import DataWithFiles, FileData
from PIL import Image

from inference.page import canvas
from inference.page.canvas import SIDE, Canvas, Paintings
from tests.inference.page.models import encoded


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr(canvas, "PAINTINGS", Paintings())
    with gr.Blocks():
        return Canvas(canvas_size=(SIDE, SIDE))


def part(data, name="a", kind="layer", index="0"):
    return DataWithFiles(data={"type": kind, "index": index, "id": name}, files=[("blob", data)])


def stroke(value=9, size=(40, 50)):
    layer = np.zeros((*size, 4), np.uint8)
    layer[:5, :5] = value
    return layer


def test_layers_come_as_they_were_painted_and_once(made):
    made.accept_blobs(part(encoded(stroke(7)), index="1"))
    made.accept_blobs(part(encoded(stroke(5))))
    made.accept_blobs(part(encoded(stroke(1)), kind="composite", index="null"))
    first, second = made.preprocess(EditorData(id="a"))["layers"]
    assert np.array_equal(first, stroke(5))
    assert np.array_equal(second, stroke(7))
    assert made.preprocess(EditorData(id="a"))["layers"] == []
    assert made.preprocess(None)["layers"] == []


def test_the_browser_draws_it_as_the_editor_that_it_is(made):
    assert made.get_block_name() == gr.ImageEditor.__name__.lower()
    assert "accept_blobs" in made.server_fns
    assert not Path(canvas.__file__).with_suffix(".pyi").exists()  # Gradio writes one for every class that its metaclass makes


@pytest.mark.parametrize("index", ["1000000000", "4", "-1"])
def test_a_layer_far_beyond_the_last_is_refused(made, index):
    with pytest.raises(HTTPException, match="layers 0 to 3"):
        made.accept_blobs(part(encoded(stroke()), index=index))
    assert len(canvas.PAINTINGS) == 0
    assert made.blob_storage == {}


def test_what_is_no_part_of_a_painting_is_refused(made):
    for sent in ({"type": "layer"}, DataWithFiles(data={}, files=[]), part(b"", index="null"), part(b"", index=None)):
        with pytest.raises(HTTPException, match="not a part of a painting"):
            made.accept_blobs(sent)
    with pytest.raises(HTTPException, match="4000000 bytes at most"):
        made.accept_blobs(part(bytes(4_000_001)))
    assert len(canvas.PAINTINGS) == 0


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(made, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 50_000
    made.accept_blobs(part(buffer.getvalue()))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(gr.Error, match="cannot be read"):
        made.preprocess(EditorData(id="a"))
    for data in (b"no image", encoded(stroke()[..., :3], "BMP")):
        made.accept_blobs(part(data))
        with pytest.raises(gr.Error, match="cannot be read"):
            made.preprocess(EditorData(id="a"))
    assert len(canvas.PAINTINGS) == 0


def test_files_that_a_request_names_are_not_read(made, tmp_path):
    (tmp_path / "layer.png").write_bytes(encoded(stroke()))
    named = FileData(path=str(tmp_path / "layer.png"))
    assert made.preprocess(EditorData(background=named, layers=[named] * 100, composite=named)) == {
        "background": None,
        "layers": [],
        "composite": None,
    }


def test_the_oldest_paintings_give_way():
    kept = Paintings(total=25, count=2)
    for name in "abc":
        kept.put(name, 0, b"0123456789")
    assert (len(kept), kept.take("a")) == (2, [])
    kept.put("b", 1, b"0123456789")  # 30 bytes: c is now the oldest
    assert (len(kept), kept.take("c")) == (1, [])
