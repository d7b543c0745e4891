"""Any number of regions of an image, which is encoded and read once: a trained model in a few lines.

from inference.engine import load

scorer = load("outputs/quickstart")
for region in scorer.score("photo.jpg", [(40, 30, 120, 90), (150, 80)]):
    print(region["quality"].value, region["importance"].value, region["distortion"].text)
"""

from __future__ import annotations

import bisect
import numbers
import sys
import threading
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor

from components import rle
from components.batch import Regions
from components.mask_encoders.base import MASK_ENCODERS, Code, MaskEncoder, Masks, Prompt, image_size, rings_of
from components.mask_encoders.given import Given
from components.preprocess import crop_regions, prepare_regions
from components.registry import ConfigError
from components.rle import RegionError
from components.rle_many import sample_all
from components.scorers.base import Look, Scorer
from components.tasks import RegionScores, Task
from datamodules.images import ImageError, array_to_rgb, load_image, to_rgb
from inference import load as models
from inference.load import choose_device

MIB = 2**20
MEMORY = 2048.0  # MiB for what is made of the regions that are asked about at once
MOST = 10_000  # of them, whatever the memory

ImageLike = str | Path | PILImage.Image | NDArray[np.uint8] | NDArray[np.uint16] | Tensor
T = TypeVar("T")
RegionLike = Prompt | Sequence[Any] | Mapping[str, Any] | NDArray[Any] | Tensor | str | Path


@dataclass(frozen=True)
class Looked:
    """An image that an engine has encoded and read: regions of it can be asked about again and again.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        model: what the engine is called, for errors.
    """

    image: NDArray[np.uint8]
    look: Look
    model: str


def load(model: str | Path, accelerator: str = "auto", *, quantization: str = "", grammar: bool | None = None, **options: Any) -> Engine:
    """A trained model, ready for use.

    Args:
        model: the folder of a run (`outputs/<name>`), the folder of a saved or imported model, or a name on the hub (`user/name`).
        accelerator: "auto" is a GPU where there is one; "cpu" or "gpu".
        quantization: stores the linear maps of a language model from files, frozen or with adapters, as "nf4" or "int8".
        grammar: True lets readouts that generate text choose among well-formed answers alone, False lets them generate freely; None
            leaves what the model says.
        options: of `Engine`.

    Raises:
        FileNotFoundError: no such model.
        ConfigError: a GPU is asked for and there is none, or an option that this model does not allow.
        ValueError: the weights are of another architecture than the configuration says.
    """
    return Engine(models.load(model, choose_device(accelerator), quantization, grammar), **{"name": str(model), **options})


class Engine:
    """Scores regions of images with one model. May be used from several threads: requests take turns on the model, and each gets the
    answers that it would get alone.

    Args:
        scorer: with its weights, in eval mode.
        segmenter: makes a region of a point; superpixels where none is given.
        memory: MiB that the regions which are asked about at once may take: masks, crops, and what a language model reads about them,
            by `Scorer.answer_bytes`. As many are asked about together as fit, one at least; this changes no score. The weights, and
            what is kept of an image that was looked at, are not in it.
        compile: a backend of `torch.compile`, "inductor" say, for the vision encoder: the first image then takes longer, and scores
            change by rounding. "" compiles nothing.
        name: what errors call the model; "" for its class.

    Raises:
        ConfigError: `memory` is not positive, or there is no such backend or nothing to compile.
    """

    def __init__(
        self, scorer: Scorer, *, segmenter: MaskEncoder | None = None, memory: float = MEMORY, compile: str = "", name: str = ""
    ) -> None:
        if not memory > 0:
            raise ConfigError(f"memory: got {memory}, expected a positive number of MiB")
        if compile:
            _compile(scorer, compile)
        self.scorer, self.memory, self.name = scorer, memory, name or type(scorer).__name__
        self.segmenter = segmenter or MASK_ENCODERS.build({"plugin": "superpixel"})
        self._given = Given()
        self._turn = threading.Lock()  # one at a time on the model; on the segmenter, which engines may share, its own

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What can be asked."""
        return self.scorer.tasks

    def look(self, image: ImageLike | Looked, prepared: Tensor | None = None) -> Looked:
        """Encodes an image and lets the model read it, once.

        Args:
            image: a file, a PIL image, or the pixels of a PNG, uint8 or uint16: an array (H, W) or (H, W, 1) of grey, (H, W, 3) of RGB,
                (H, W, 2) or (H, W, 4) with alpha, or a tensor (H, W) or (C, H, W) of the same; what this method returned is given back.
            prepared: `components.preprocess.prepare_image` of it, where that was done before.

        Raises:
            ImageError: a file that cannot be read, or an image of another form.
            ValueError: another model has looked at it.
        """
        if isinstance(image, Looked):
            self._check_own(image)
            return image
        pixels = as_image(image)
        with self._turn:
            return Looked(pixels, Look(self.scorer, torch.from_numpy(pixels).permute(2, 0, 1), prepared), self.name)

    def score(
        self, image: ImageLike | Looked, regions: Sequence[RegionLike] | Masks | Tensor, tasks: Sequence[Task] | None = None
    ) -> list[RegionScores]:
        """Scores regions of an image.

        Args:
            image: see `look`, or what it returned.
            regions: each a box (left, top, width, height), cut to the image, a point (x, y), or a polygon, all in pixels: its ring (x0, y0,
                x1, y1, x2, y2, ...), its points [(x0, y0), (x1, y1), (x2, y2), ...], or COCO's list of rings, whose union it is; COCO's
                run-length code {"size", "counts"}; a mask (H, W) of one region or its file; or a `Prompt`. All masks at once may be one
                array (R, H, W).
            tasks: some of `tasks`; all of them where none are named.

        Returns:
            For each region, in their order, a mapping from task to `RoiScore`.

        Raises:
            ImageError: as `look`.
            RegionError: a region that is empty, outside the image or not understood, and it says which; or no list of regions.
            ValueError: a task that the model cannot answer, or an image that another model has looked at.
        """
        asked = self.tasks if tasks is None else tasks
        self.scorer.check_tasks(asked)
        _check_several(regions)
        if not len(regions):
            return []
        prompts = [as_prompt(region, n) for n, region in enumerate(regions)]
        looked = self.look(image)
        _check_several(regions, image_size(looked.image))
        out: list[RegionScores] = []
        step = self.at_once(image_size(looked.image))
        for at in range(0, len(prompts), step):
            out += self.answer(looked, self._regions(looked.image, prompts[at : at + step], at), asked)
        return out

    def prepare(self, image: NDArray[np.uint8], codes: Sequence[Code]) -> Regions:
        """image (H, W, 3) uint8 and R run-length codes -> the regions as the model wants to see them, for `answer`. No mask of the
        image's size is made.

        Raises:
            RegionError: a code without pixels.
        """
        preprocess, (height, width) = self.scorer.preprocess, image.shape[:2]
        side = np.arange(preprocess.size)
        rows, columns = side * height // preprocess.size, side * width // preprocess.size
        masks = torch.from_numpy(sample_all(height, width, [code["counts"] for code in codes], rows, columns))
        measured = [rle.measure(code) for code in codes]
        boxes, areas = torch.tensor([box for box, _ in measured]), torch.tensor([area for _, area in measured])
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        return crop_regions(pixels, masks, boxes, areas, preprocess, self.scorer.crop_size)

    def answer(self, looked: Looked, regions: Regions, tasks: Sequence[Task]) -> list[RegionScores]:
        """As `score`, of regions as `prepare` or `components.preprocess.prepare_regions` makes them, at most `at_once` of them."""
        self._check_own(looked)
        with self._turn:
            return looked.look.answer(regions, tasks)

    def segment(self, image: NDArray[np.uint8], prompts: Sequence[Prompt]) -> list[Code]:
        """image (H, W, 3) uint8 -> R run-length codes: what the segmenter makes of `prompts`. Raises RegionError as it does."""
        with self.segmenter.turn:
            return self.segmenter.codes(image, prompts)

    def propose(self, image: NDArray[np.uint8]) -> tuple[Code, ...]:
        """image (H, W, 3) uint8 -> run-length codes of all that the segmenter finds, for `score`: as masks they may take gigabytes.

        Raises:
            ConfigError: it finds nothing by itself.
            RegionError: as the segmenter does.
        """
        if not self.segmenter.can_propose:
            raise ConfigError(f"the segmenter {type(self.segmenter).__name__} finds nothing by itself: take superpixel or sam")
        with self.segmenter.turn:
            return tuple(self.segmenter.propose_codes(image))

    def at_once(self, size: tuple[int, int], beside: int = 0) -> int:
        """How many regions of an image of `size` (height, width) are asked about together: as many as `memory` allows, one at least.
        Without bound where an image's regions change each other's scores.

        Args:
            beside: bytes that each of them takes elsewhere, in groups that wait, say.
        """
        if self.scorer.coupled:
            return sys.maxsize
        room = int(self.memory * MIB)
        within = bisect.bisect_right(range(1, MOST + 1), room, key=lambda n: self.scorer.answer_bytes(size, n) + beside * n)
        return max(1, within)

    def _check_own(self, looked: Looked) -> None:
        """Raises ValueError for what another model has read: the answers would be that model's."""
        if looked.look.scorer is not self.scorer:
            raise ValueError(
                f"the model {looked.model} has looked at this image, and {self.name} is asked about it: each answers from what it read "
                "itself, so give this one the image, or its own look() of it"
            )

    def _regions(self, image: NDArray[np.uint8], prompts: Sequence[Prompt], first: int) -> Regions:
        """R prompts, of which the first is called number `first`, as the model wants to see them."""
        kinds = [prompt.kind for prompt in prompts]
        grown, masked = ([n for n, kind in enumerate(kinds) if kind == wanted] for wanted in ("point", "mask"))
        coded = [n for n, kind in enumerate(kinds) if kind not in ("point", "mask")]
        codes = _made(self.segment, image, prompts, grown, first) if grown else []
        codes += _made(self._given.codes, image, prompts, coded, first) if coded else []
        parts = [self.prepare(image, codes)] if codes else []
        if masked:
            masks = _made(self._given.forward, image, prompts, masked, first)
            pixels = torch.from_numpy(image).permute(2, 0, 1)
            parts.append(prepare_regions(pixels, torch.from_numpy(masks), self.scorer.preprocess, self.scorer.crop_size))
        if len(parts) == 1 and not (grown and coded):
            return parts[0]
        order = torch.from_numpy(np.argsort([*grown, *coded, *masked]))
        return Regions(**{f.name: torch.cat([getattr(part, f.name) for part in parts])[order] for f in fields(Regions)})


def _compile(scorer: Scorer, backend: str) -> None:
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ConfigError(f"compile: got '{backend}', torch.compile has here {', '.join(map(repr, known))}")
    encoder = scorer.parts().get("vision_encoder")
    if encoder is None:
        raise ConfigError(
            f"compile: of a scorer its 'vision_encoder' is compiled, and {type(scorer).__name__} has only {', '.join(scorer.parts())}: "
            "leave it out"
        )
    encoder.compile(backend=backend)


def as_image(image: ImageLike) -> NDArray[np.uint8]:
    """-> (H, W, 3) uint8 RGB. Raises ImageError."""
    if isinstance(image, str | Path):
        return load_image(image)
    if isinstance(image, PILImage.Image):
        return to_rgb(image)
    if not isinstance(image, Tensor):
        return array_to_rgb(np.asarray(image))  # a copy: crops are cut later, and a caller may use its memory again
    pixels = image.detach().cpu()
    try:
        return array_to_rgb((pixels.permute(1, 2, 0) if pixels.ndim == 3 else pixels).numpy())
    except ImageError as error:
        raise ImageError(f"{error} behind the channels of a tensor, (channels, height, width)") from error


def _check_several(regions: object, size: tuple[int, int] = (0, 0)) -> None:
    """Raises RegionError for a single region, whose numbers or letters would be taken for regions, and for what has no length.

    Args:
        size: (height, width) of the image, where it is known, by which a single mask of numbers is told from a table of boxes.
    """
    is_one = isinstance(regions, str | Path | Mapping | Prompt)
    if isinstance(regions, np.ndarray | Tensor):
        is_mask = str(regions.dtype).endswith("bool") or tuple(regions.shape) == size
        of_numbers = isinstance(regions, Tensor) or regions.dtype.kind in "biuf"
        is_one = (regions.ndim == 1 and len(regions) > 0 and of_numbers) or (regions.ndim == 2 and is_mask)
    elif isinstance(regions, list | tuple):
        is_one = len(regions) > 0 and all(isinstance(value, numbers.Real) for value in regions)
    if is_one or not isinstance(regions, Sized):
        raise RegionError(f"regions: got {_short(regions)}, expected a list of them; a single one stands in a list, too")


def as_prompt(region: RegionLike, number: int = 0) -> Prompt:
    """A region, however it is said, as a `Prompt`; `number` is what errors call it. Raises RegionError."""
    if isinstance(region, Prompt):
        return region
    if isinstance(region, str | Path):
        return Prompt(mask=region)
    if isinstance(region, Mapping):
        return Prompt(rle=dict(region))
    if isinstance(region, Tensor):
        region = region.detach().cpu().numpy()
    if isinstance(region, np.ndarray) and region.ndim == 2:
        of_points = region.shape[1] == 2 and region.dtype.kind in "if" and region.shape[0] >= 3
        return Prompt(polygon=region.tolist()) if of_points else Prompt(mask=region)
    if isinstance(region, list | tuple) and all(isinstance(part, Sequence | np.ndarray) and not isinstance(part, str) for part in region):
        rings = rings_of(region)
        if rings and all(len(ring) >= 6 and len(ring) % 2 == 0 for ring in rings):
            return Prompt(polygon=rings)
    try:
        values = [float(v) for v in region]
    except (TypeError, ValueError):
        values = []
    if len(values) == 2:
        return Prompt(point=(values[0], values[1]))
    if len(values) == 4:
        return Prompt(box=(values[0], values[1], values[2], values[3]))
    if len(values) >= 6 and len(values) % 2 == 0:
        return Prompt(polygon=[values])
    raise RegionError(
        f"region {number} is not understood: {_short(region)}. Say a box (left, top, width, height), a point (x, y), a polygon "
        "(x0, y0, x1, y1, x2, y2, ...), [(x0, y0), (x1, y1), (x2, y2), ...] or a list of such rings as the first, a run-length code, "
        "a mask (height, width) or its file, or a Prompt"
    )


def _made(
    make: Callable[[NDArray[np.uint8], Sequence[Prompt]], T],
    image: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    chosen: Sequence[int],
    first: int,
) -> T:
    """What is made of the chosen ones among `prompts`, of which the first is called number `first`."""
    try:
        return make(image, [prompts[n] for n in chosen])
    except RegionError:
        for n in chosen:  # once more, to say which it was
            try:
                make(image, [prompts[n]])
            except RegionError as error:
                raise RegionError(f"region {first + n}: {error}") from error
        raise


def _short(value: object) -> str:
    text = f"an array of shape {tuple(value.shape)}" if isinstance(value, np.ndarray | Tensor) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
