"""The canvas that visitors paint on. Gradio's own takes as many layers as a request says, of any size, and keeps for ever what nobody
collects; of this one all is bounded."""

from __future__ import annotations

from abc import ABCMeta
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import HTTPException
from gradio.components.base import server
from gradio.components.image_editor import EditorData
from numpy.typing import NDArray
from PIL import Image

SIDE = 900  # pixels of the canvas's longer side
LAYERS = 4  # of a painting; the page offers one
BYTES = 4_000_000  # of a layer's file
_PIXELS = 4 * SIDE**2  # of a layer: a browser on a screen of small pixels may send twice the side
_REFUSED = "What was painted cannot be read: take another tool, come back, and paint again."


@server
def _accept_blobs(self: gr.ImageEditor, data: Any) -> None:
    """Gradio's second way for a painting, which browsers take only where every stroke is an event: it is not open."""
    raise HTTPException(404, "a painting is sent as an upload")


def _preprocess(self: gr.ImageEditor, payload: EditorData | None) -> dict[str, Any]:
    """What was painted: its layers (h, w, 4) uint8, at most `LAYERS` of them. Background and composite are not used, and not read.

    Raises:
        gr.Error: more layers, or one that is no PNG, too large as a file, or of more pixels than a canvas has.
    """
    layers = payload.layers if payload is not None and payload.id is None else []
    if len(layers) > LAYERS:
        raise gr.Error(_REFUSED, print_exception=False)
    return {"background": None, "layers": [_decoded(Path(layer.path)) for layer in layers], "composite": None}


def _decoded(path: Path) -> NDArray[np.uint8]:
    try:
        if path.stat().st_size > BYTES:
            raise gr.Error(_REFUSED, print_exception=False)
        with Image.open(path, formats=("PNG",)) as image:
            if image.width * image.height > _PIXELS:
                raise gr.Error(_REFUSED, print_exception=False)
            return np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise gr.Error(_REFUSED, print_exception=False) from error


# Gradio makes components anew for each visitor from their class, so that a class is needed; its metaclass would write a stub file beside
# this one, and is left out.
_made: Any = ABCMeta.__new__(
    type(gr.ImageEditor),
    "Canvas",
    (gr.ImageEditor,),
    {
        "__doc__": "A `gr.ImageEditor` of which a request can make nothing large.",
        "__module__": __name__,
        "is_template": True,  # drawn in the browser as the component that it is made from
        "accept_blobs": _accept_blobs,
        "preprocess": _preprocess,
    },
)
Canvas: type[gr.ImageEditor] = _made
