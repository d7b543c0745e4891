"""Small scorers as ONNX files, for runtimes without PyTorch; what is written is read again and compared."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.preprocess import prepare_image, prepare_regions
from components.registry import ConfigError
from components.scorers.base import Graph, Scorer

TOLERANCE = 1e-4  # of an output in [0, 1], between PyTorch and onnxruntime
_NUMBERS = (1, 2, 5)  # of regions, that are compared


def export_onnx(scorer: Scorer, path: Path) -> float:
    """Writes `path` (.onnx), weights inside, with any number of regions, and compares it with the scorer. How an image and its regions
    become its inputs stands in the file's metadata ("preprocess", "crop_size", "inputs", "outputs").

    Returns:
        The largest difference of an output, from the graph's in PyTorch, or from what `Scorer.score` says of a picture's regions.

    Raises:
        ConfigError: another ending, or a scorer that is no function of tensors alone.
        ValueError: what was written answers otherwise; nothing is left of it.
        ImportError: `onnx`, `onnxscript` and `onnxruntime` are not installed.
    """
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: the name of an ONNX file ends in .onnx")
    _check_installed()
    graph = scorer.eval().graph()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.onnx")
    try:
        _write(graph, draft, _told(scorer, graph))
        apart = max(*(_apart(graph, draft, count) for count in _NUMBERS), *(_from_scores(scorer, draft, count) for count in _NUMBERS))
        if not apart <= TOLERANCE:
            raise ValueError(f"the ONNX file answers otherwise than the model: by {apart:.2g}, allowed is {TOLERANCE:g}; it was not kept")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return apart


def _check_installed() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(f"export to ONNX needs the package {name}: pip install 'roi-iqa[onnx]'") from error


def _told(scorer: Scorer, graph: Graph) -> dict[str, str]:
    inputs = {name: [str(x.dtype).removeprefix("torch."), *_shape(name, x, graph)] for name, x in graph.inputs.items()}
    return {
        "preprocess": json.dumps(scorer.preprocess.told()),
        "crop_size": str(scorer.crop_size),
        "inputs": json.dumps(inputs),
        "outputs": graph.said,
    }


def _shape(name: str, x: Tensor, graph: Graph) -> list[int | str]:
    return ["regions" if axis == graph.regions.get(name) else n for axis, n in enumerate(x.shape)]


def _write(graph: Graph, path: Path, told: dict[str, str]) -> None:
    import onnx

    regions = torch.export.Dim("regions", min=1, max=65536)
    shapes = tuple({graph.regions[name]: regions} if name in graph.regions else None for name in graph.inputs)
    with warnings.catch_warnings(), _quiet(logging.getLogger("torch.onnx")), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            str(path),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, told)
    onnx.save(model, str(path))


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Errors alone, for as long as it lasts."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _apart(graph: Graph, path: Path, count: int) -> float:
    """The largest difference of an output, for a number of regions."""
    import onnxruntime

    inputs = {name: _repeated(x, graph.regions.get(name), count) for name, x in graph.inputs.items()}
    with torch.no_grad():
        wanted = graph.module(*inputs.values())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(list(graph.outputs), {name: x.numpy() for name, x in inputs.items()})
    pairs = zip((wanted,) if isinstance(wanted, Tensor) else wanted, found, strict=True)
    return max(float(np.abs(a.numpy() - b).max()) for a, b in pairs)


def _from_scores(scorer: Scorer, path: Path, count: int) -> float:
    """The largest difference of a score, or of its standard deviation, from what the scorer says of so many regions."""
    import onnxruntime

    image, masks = _picture(count)
    regions = prepare_regions(image, masks, scorer.preprocess, scorer.crop_size)
    given = {**vars(regions), "image": prepare_image(image, scorer.preprocess)[None]}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    said = session.run(None, {i.name: given[i.name].numpy() for i in session.get_inputs()})
    found = dict(zip((o.name for o in session.get_outputs()), said, strict=True))
    tasks = [task for task in scorer.tasks if task != "distortion"]
    answers = scorer.score(image, masks, tasks)
    pairs = [
        (found[name].reshape(count, -1), np.array([[getattr(answer[task], field) for task in tasks] for answer in answers], np.float64))
        for name, field in (("scores", "value"), ("stds", "std"))
        if name in found
    ]
    return max(float(np.abs(got - wanted).max()) for got, wanted in pairs)


def _picture(count: int) -> tuple[Tensor, Tensor]:
    """An image (3, 96, 128) uint8 from dark to bright and from even to noisy, and boxes (count, 96, 128) across it."""
    noise = torch.randint(-60, 61, (3, 96, 128), generator=torch.Generator().manual_seed(0)) * torch.linspace(0, 1, 128)
    image = (torch.linspace(20, 230, 96)[:, None] + noise).clamp(0, 255).byte()
    masks = torch.zeros(count, 96, 128, dtype=torch.bool)
    for n, mask in enumerate(masks):
        mask[7 * n : 7 * n + 30 + 9 * n, 17 * n : 17 * n + 25 + 7 * n] = True
    return image, masks


def _repeated(x: Tensor, axis: int | None, count: int) -> Tensor:
    """The example with `count` regions, those it has in turn."""
    return x if axis is None else x.index_select(axis, torch.arange(count) % x.shape[axis])
