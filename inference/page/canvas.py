"""The canvas that visitors paint on. Gradio's own takes as many layers as a request says, of any size, and keeps for ever what nobody
collects; of this one all is bounded."""

from __future__ import annotations

import io
import threading
from abc import ABCMeta
from collections import OrderedDict
from typing import Any

import gradio as gr
import numpy as np
from fastapi import HTTPException
from gradio.components.base import server
from numpy.typing import NDArray
from PIL import Image

SIDE = 900  # pixels of the canvas's longer side
LAYERS = 4  # of a painting; the page offers one
_PIXELS = 4 * SIDE**2  # of a layer; a browser with small pixels may send twice the side
_UNREADABLE = "What was painted cannot be read: choose another tool and come back, then paint again."


class Paintings:
    """Layers that browsers sent, as encoded PNG, until they are collected; the oldest painting gives way. May be used from several threads.

    Args:
        layer: bytes of a layer.
        total: bytes of all that is kept.
        count: paintings that are kept.
    """

    def __init__(self, layer: int = 4_000_000, total: int = 128_000_000, count: int = 256) -> None:
        self.layer, self.total, self.count = layer, total, count
        self._kept: OrderedDict[str, dict[int, bytes]] = OrderedDict()
        self._turn = threading.Lock()

    def put(self, name: str, number: int, data: bytes) -> None:
        """Keeps a layer.

        Raises:
            HTTPException: a number that no layer has (400), or too many bytes (413).
        """
        if not 0 <= number < LAYERS or len(name) > 64:
            raise HTTPException(400, f"a painting has layers 0 to {LAYERS - 1}")
        if len(data) > self.layer:
            raise HTTPException(413, f"a layer has {self.layer} bytes at most")
        with self._turn:
            self._kept.setdefault(name, {})[number] = data
            self._kept.move_to_end(name)
            while len(self._kept) > self.count or self._bytes() > self.total:
                self._kept.popitem(last=False)

    def take(self, name: str) -> list[NDArray[np.uint8]]:
        """The layers (h, w, 4) uint8 of a painting, which are kept no longer; none where it is not known.

        Raises:
            gr.Error: no PNG, or one of far more pixels than the canvas.
        """
        with self._turn:
            layers = self._kept.pop(name, {})
        return [_decoded(layers[number]) for number in sorted(layers)]

    def __len__(self) -> int:
        return len(self._kept)

    def _bytes(self) -> int:
        return sum(len(data) for layers in self._kept.values() for data in layers.values())


PAINTINGS = Paintings()


def _decoded(data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > _PIXELS:
                raise gr.Error(_UNREADABLE, print_exception=False)
            return np.array(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise gr.Error(_UNREADABLE, print_exception=False) from error


@server
def _accept_blobs(self: gr.ImageEditor, data: Any) -> None:
    """One part of a painting, sent by the browser before the event that needs it. Of the parts, only layers are used."""
    try:
        sent, content = data.data, data.files[0][1]
        name, kind, number = str(sent["id"]), sent["type"], int(sent["index"]) if sent["type"] == "layer" else 0
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise HTTPException(400, "not a part of a painting") from error
    if kind == "layer":
        PAINTINGS.put(name, number, content)


def _preprocess(self: gr.ImageEditor, payload: Any) -> dict[str, Any]:
    """Only what was sent as a part of a painting is read: files that a request names are not."""
    return {"background": None, "layers": PAINTINGS.take(payload.id) if payload is not None and payload.id else [], "composite": None}


# Gradio makes components anew for each visitor from their class, so that a class is needed; its metaclass would write a stub file beside
# this one, and is left out.
Canvas: type[gr.ImageEditor] = ABCMeta.__new__(
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
