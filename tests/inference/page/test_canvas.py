"""Of what visitors paint, only what a canvas can hold is read."""

import io
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from fastapi import HTTPException
from gradio.components.image_editor import AcceptBlobs, EditorData
from gradio.data_classes import FileData
from PIL import Image

from inference.page import canvas
from inference.page.canvas import SIDE, Canvas
from tests.inference.page.models import encoded


@pytest.fixture
def made():
    with gr.Blocks():
        return Canvas(canvas_size=(SIDE, SIDE))


@pytest.fixture
def sent(tmp_path):
    """Files as a browser sends them."""

    def files(*contents):
        paths = [tmp_path / f"layer_{n}.png" for n in range(len(contents))]
        for path, data in zip(paths, contents, strict=True):
            path.write_bytes(data)
        return [FileData(path=str(path)) for path in paths]

    return files


def stroke(value, size=(40, 50)):
    layer = np.zeros((*size, 4), np.uint8)
    layer[:5, :5] = value
    return layer


def test_layers_come_as_they_were_painted(made, sent):
    found = made.preprocess(EditorData(layers=sent(encoded(stroke(5)), encoded(stroke(7)))))["layers"]
    assert np.array_equal(found, [stroke(5), stroke(7)])
    assert made.preprocess(EditorData())["layers"] == made.preprocess(None)["layers"] == []


def test_background_and_composite_are_not_read(made, sent):
    (damaged,) = sent(b"no image")
    assert made.preprocess(EditorData(background=damaged, composite=damaged)) == {"background": None, "layers": [], "composite": None}


def test_the_browser_draws_it_as_the_editor_that_it_is(made):
    assert made.get_block_name() == gr.ImageEditor.__name__.lower()
    assert not Path(canvas.__file__).with_suffix(".pyi").exists()  # Gradio writes one for every class that its metaclass makes


def test_layers_by_the_other_way_are_refused(made):
    """In Gradio's own, this index makes a list of a thousand million entries."""
    data = {"type": "layer", "index": 10**9, "file": b"", "id": "a"}
    with pytest.raises(HTTPException, match="sent as an upload"):
        made.accept_blobs(AcceptBlobs(data=data, files=[("blob", b"x")]))
    assert made.blob_storage == {}
    assert made.preprocess(EditorData(id="a"))["layers"] == []


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(made, sent, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 50_000
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(gr.Error, match="cannot be read"):
        made.preprocess(EditorData(layers=sent(buffer.getvalue())))


@pytest.mark.parametrize("data", [b"no image", encoded(stroke(1)[..., :3], "BMP"), bytes(canvas.BYTES + 1), encoded(stroke(1))[:-40]])
def test_what_no_canvas_sends_is_refused(made, sent, data):
    with pytest.raises(gr.Error, match="cannot be read"):
        made.preprocess(EditorData(layers=sent(data)))


def test_many_layers_are_refused(made, sent):
    with pytest.raises(gr.Error, match="cannot be read"):
        made.preprocess(EditorData(layers=sent(encoded(stroke(1))) * 100))
