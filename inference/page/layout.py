"""The page in Gradio's own components: what stands where, and which event calls which part of the service."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image
from starlette.middleware import Middleware

from components.mask_encoders.base import MaskEncoder
from components.mask_encoders.superpixel import Superpixel
from components.reading import AnswerError
from components.registry import ConfigError
from components.rle import RegionError
from inference import draw
from inference.page import answers, shade
from inference.page.canvas import SIDE, Canvas
from inference.page.door import Door, Stored
from inference.page.downloads import Downloads
from inference.page.limits import Limits, Refusal
from inference.page.service import Service
from inference.page.uploads import painted, read_bytes, read_mask
from inference.page.visit import Visit
from inference.quality_map import draw_map

HOUR = 3600  # seconds that a visitor's image is kept after he last touched it
CSS = Path(__file__).with_name("page.css")
_AROUND, _BROADEST, _LEAST, _TALLEST = 62, 636, 200, 700  # pixels of the canvas: of its margins, and of the picture in it
_TOOLS = {"Click a point": "point", "Box": "box", "Paint": "paint", "Mask file": "mask"}
_BOX = ("Click one corner of the box.", "Now click the opposite corner.")
AT_ONCE = 2  # requests of each group that are worked on at once
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "page"}  # events of the page are no programming interface
_ASKING: dict[str, Any] = {**_PRIVATE, "concurrency_id": "model"}  # a group of its own, so that a slow model holds up nothing else
_EXPECTED = (Refusal, RegionError, AnswerError, ConfigError)  # what is said to a visitor in its own words


def theme() -> gr.themes.Base:
    """Fonts of the reader's system: nothing is fetched."""
    sans = ("ui-sans-serif", "system-ui", "sans-serif")
    return gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", radius_size="md", font=sans, font_mono=("ui-monospace", "Consolas", "monospace")
    )


def page(service: Service, pictures: dict[str, NDArray[np.uint8]], folder: Path) -> gr.Blocks:
    """The page.

    Args:
        pictures: the examples, by name; (H, W, 3) uint8.
        folder: where files for downloads are written.
    """
    with gr.Blocks(title="ROI-IQA", analytics_enabled=False, fill_width=True, delete_cache=(HOUR // 6, HOUR)) as blocks:
        Page(service, pictures, folder)
    for block in blocks.blocks.values():
        _fetch_nothing(block)
    blocks.queue(max_size=service.limits.waiting, api_open=False, default_concurrency_limit=AT_ONCE)
    return blocks


def _fetch_nothing(block: Any) -> None:
    """Where a visitor sends an address in place of an upload, Gradio would fetch it from the server."""
    keep = block.async_move_resource_to_block_cache

    @functools.wraps(keep)
    async def kept(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("The page fetches nothing: save the picture, and upload its file.", print_exception=False)
        found: str | None = await keep(path)
        return found

    block.async_move_resource_to_block_cache = kept


def serve(blocks: gr.Blocks, host: str, port: int, limits: Limits, folder: Path, guarded: list[str]) -> str:
    """Starts serving a page in the background -> its address. Of the server's disk only what visitors brought and were given can be read.

    Args:
        folder: of all visitors' files, Gradio's among them.
        guarded: folders of which nothing is ever given out.
    """
    door = Middleware(Door, limits=limits, stored=Stored(folder, Path(get_upload_folder()), HOUR + HOUR // 6))
    _, url, _ = blocks.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        share=False,
        footer_links=[],
        app_kwargs={"middleware": [door]},
        allowed_paths=[],
        blocked_paths=guarded,
        max_file_size=limits.bytes,
        state_session_capacity=limits.visitors,
        enable_monitoring=False,
        strict_cors=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        theme=theme(),
        css=CSS.read_text(encoding="utf-8"),
    )
    return url


class Page:
    """Components and events, made inside a `gr.Blocks`."""

    def __init__(self, service: Service, pictures: dict[str, NDArray[np.uint8]], folder: Path) -> None:
        self.service, self.pictures, self.downloads = service, pictures, Downloads(folder, HOUR)
        # A function, as Gradio copies what a component is made from for every visitor, and of a method that would be the whole page.
        self.visit = gr.State(None, time_to_live=HOUR, delete_callback=lambda visit: self._left(visit))
        gr.HTML(_head(service), elem_id="roi-head")
        self._welcome()
        self._work()
        self._opening()
        self._regions()
        self._mapping()

    def _welcome(self) -> None:
        limits = self.service.limits
        bounds = f"up to {limits.megabytes:g} MB and {limits.pixels / 1e6:g} million pixels"
        with gr.Column(elem_id="roi-welcome") as self.welcome:
            self.upload = gr.File(
                label=f"Your photograph: drop it here or click to choose it ({bounds})",
                file_count="single",
                type="filepath",
                height=150,
                elem_id="roi-upload",
            )
            shown = [(np.asarray(_thumbnail(image)), name) for name, image in self.pictures.items()]
            self.gallery = gr.Gallery(
                shown,
                label="Or take one of these",
                columns=max(len(shown), 1),
                allow_preview=False,
                object_fit="cover",
                height="auto",
                interactive=False,
                format="jpeg",
                buttons=[],
                elem_id="roi-examples",
                visible=bool(shown),
            )
            self.back = gr.Button("Back to the picture", size="sm", visible=False, elem_id="roi-back")

    def _work(self) -> None:
        with gr.Row(visible=False, elem_id="roi-work") as self.work:
            with gr.Column(scale=6, min_width=380):
                self.tool = gr.Radio(list(_TOOLS), value=next(iter(_TOOLS)), show_label=False, container=False, elem_id="roi-tool")
                self.hint = gr.HTML(elem_id="roi-hint")
                self.stage = gr.Image(
                    show_label=False, container=False, interactive=False, format="jpeg", buttons=["fullscreen"], elem_id="roi-stage"
                )
                self.mask = gr.File(label="Mask: an image of the same size, black outside", visible=False, height=120, elem_id="roi-mask")
                self.canvas = Canvas(
                    show_label=False,
                    sources=(),
                    transforms=(),
                    layers=False,
                    type="numpy",
                    brush=gr.Brush(default_size=40, colors=[("#1e60aa", 0.6)], default_color=("#1e60aa", 0.6), color_mode="fixed"),
                    format="png",
                    visible=False,
                    canvas_size=(SIDE, SIDE),
                    elem_id="roi-canvas",
                )
                self.paint = gr.Button("Score what is painted", variant="primary", visible=False, elem_id="roi-paint")
                with gr.Row():
                    self.whole = gr.Button("Whole image", size="sm", elem_id="roi-whole")
                    self.undo = gr.Button("Remove the last", size="sm", elem_id="roi-undo")
                    self.clear = gr.Button("Remove all", size="sm", elem_id="roi-clear")
                with gr.Row():
                    self.as_json = gr.DownloadButton("Answers as JSON", size="sm", interactive=False, elem_id="roi-json")
                    self.overlay = gr.DownloadButton("Picture with answers", size="sm", interactive=False, elem_id="roi-overlay")
                    self.other = gr.Button("Another picture", size="sm", elem_id="roi-other")
            with gr.Column(scale=5, min_width=380), gr.Tabs(elem_id="roi-tabs") as self.tabs:
                with gr.Tab("Regions", id="regions"):
                    self.answers = gr.HTML(elem_id="roi-answers")
                with gr.Tab("Map of the whole image", id="map"):
                    self._map_tab()

    def _map_tab(self) -> None:
        gr.HTML('<p class="roi-muted">The image is parted into regions, every one is scored, and the scores are drawn over it.</p>')
        self.map = gr.Button("Score every region of the image", variant="primary", elem_id="roi-map")
        with gr.Column(visible=False) as self.mapped:
            self.maps = gr.HTML(elem_id="roi-maps")
            self.ranking = gr.HTML(elem_id="roi-ranking")
            self.map_file = gr.DownloadButton("Map as a picture", size="sm", elem_id="roi-map-file")

    def _opening(self) -> None:
        """An image comes: by upload or as an example."""
        shown = [self.visit, self.welcome, self.work, *self._view(), self.tool, self.mapped]
        quiet = {**_PRIVATE, "show_progress": "minimal"}
        opened = self.upload.upload(told(self._opened), [self.upload, self.visit], shown, **quiet)
        _emptied(opened, self.upload)
        chosen = self.gallery.select(told(self._example), [self.visit], shown, **quiet)
        for event in (opened, chosen):
            event.success(told(self._looked), [self.visit], None, **_ASKING, show_progress="minimal")
        self.other.click(
            told(self._closed), [self.visit], [self.visit, self.welcome, self.work, self.back, self.gallery, self.upload], **quiet
        )
        self.back.click(told(self._returned), [self.visit], [self.visit, self.welcome, self.work], **quiet)
        tooled = [self.visit, self.stage, self.canvas, self.paint, self.mask, self.hint]
        self.tool.change(told(self._chosen), [self.visit, self.tool], tooled, **quiet)

    def _regions(self) -> None:
        """A region comes or goes; the files for downloads follow after the answer."""
        asking = {**_ASKING, "show_progress": "minimal"}
        view = [self.visit, *self._view()]
        masked = self.mask.upload(told(self._masked), [self.visit, self.mask], view, **asking)
        _emptied(masked, self.mask)
        events = [
            masked,
            self.stage.select(told(self._clicked), [self.visit, self.tool], view, trigger_mode="multiple", **asking),
            self.paint.click(told(self._painted), [self.visit, self.canvas], [*view, self.canvas], **asking),
            self.whole.click(told(self._wholly), [self.visit], view, **asking),
            self.undo.click(told(self._undone), [self.visit], view, **asking),
            self.clear.click(told(self._cleared), [self.visit], view, **asking),
        ]
        for event in events:
            # "multiple": else the browser drops the files of a click that came while those of the last were written
            quiet = {**_PRIVATE, "show_progress": "hidden", "trigger_mode": "multiple"}
            event.success(told(self._files), [self.visit], [self.as_json, self.overlay], **quiet)

    def _mapping(self) -> None:
        """The map is shown; the file for the download follows, whose picture takes longer than the map of a small photograph."""
        shown = self.map.click(
            told(self._mapped),
            [self.visit],
            [self.visit, self.mapped, self.maps, self.ranking, self.map_file],
            **_ASKING,
        )
        quiet = {**_PRIVATE, "show_progress": "hidden", "trigger_mode": "multiple"}
        shown.success(told(self._map_files), [self.visit], [self.map_file], **quiet)

    def _view(self) -> list[Any]:
        return [self.stage, self.answers, self.hint, self.as_json, self.overlay, self.tabs]

    def _shown(self, visit: Visit, hint: str = "") -> tuple[Any, ...]:
        """The values of `_view`; what can be downloaded is out of date until `_files` has written it anew. Who looked at the map sees the
        answers now."""
        stale = gr.update(interactive=False)
        told = answers.cards(visit, self.service.models, self.service.tasks)
        return self.service.picture(visit), told, _hint(hint), stale, stale, gr.update(selected="regions")

    def _answered(self, visit: Visit, hint: str = "") -> tuple[Any, ...]:
        """The values of `visit` and `_view`."""
        return _renewed(visit, *self._shown(visit, hint))

    def _opened(self, path: str, last: Visit | None) -> tuple[Any, ...]:
        with _kept(last):
            visit = self.service.open(path)
        return self._begun(visit, last)

    def _example(self, last: Visit | None, event: gr.SelectData) -> tuple[Any, ...]:
        name, image = list(self.pictures.items())[event.index]
        return self._begun(Visit(f"{name.split(',')[0]}.png", image), last)

    def _begun(self, visit: Visit, last: Visit | None) -> tuple[Any, ...]:
        shown = self._shown(visit, self._says("point"))
        self._left(last)
        return (
            visit,
            gr.update(visible=False),
            gr.update(visible=True),
            *shown,
            next(iter(_TOOLS)),
            gr.update(visible=False),
        )

    def _looked(self, visit: Visit | None) -> None:
        if visit is not None:
            self.service.look(visit)

    def _left(self, visit: Visit | None) -> None:
        """A visitor has another picture, or was away for an hour: nothing of this one is kept."""
        if visit is not None:
            visit.left = True
            self.service.looks.forget(visit.key)
            self.downloads.forget(visit.key)

    def _closed(self, visit: Visit | None) -> tuple[Any, ...]:
        """To choose another picture; this one stays until that is open."""
        back = gr.update(visible=visit is not None)
        return visit, gr.update(visible=True), gr.update(visible=False), back, gr.update(selected_index=None), None

    def _returned(self, visit: Visit | None) -> tuple[Any, ...]:
        return _renewed(_there(visit), gr.update(visible=False), gr.update(visible=True))

    def _chosen(self, visit: Visit | None, tool: str) -> tuple[Any, ...]:
        visit, kind = _there(visit), _TOOLS[tool]
        visit.corner = None
        canvas = gr.update(visible=False)
        if kind == "paint":
            canvas = gr.update(visible=True, value=self._canvas(visit), height=canvas_height(visit.size))
        stage = gr.update(visible=kind != "paint", value=self.service.picture(visit))
        return _renewed(
            visit, stage, canvas, gr.update(visible=kind == "paint"), gr.update(visible=kind == "mask"), _hint(self._says(kind))
        )

    def _says(self, kind: str) -> str:
        if kind == "point":
            return f"Click into the picture: {_found(self.service.engines[0].segmenter)} around that point is scored."
        return {
            "box": _BOX[0],
            "paint": "Paint over a region, then press the button below. Everything painted is one region.",
            "mask": "Upload a mask: an image of the same size; inside is what is not black.",
        }[kind]

    def _clicked(self, visit: Visit | None, tool: str, event: gr.SelectData) -> tuple[Any, ...]:
        visit, kind = _there(visit), _TOOLS[tool]
        x, y = self.service.place(visit, event.index)
        if kind == "box":
            found = self.service.corner(visit, x, y)
            return self._answered(visit, _BOX[1] if found is None else _BOX[0])
        self.service.point(visit, x, y)
        return self._answered(visit, self._says(kind))

    def _painted(self, visit: Visit | None, canvas: dict[str, Any] | None) -> tuple[Any, ...]:
        visit = _there(visit)
        self.service.mark(visit, painted((canvas or {}).get("layers") or [], visit.image), "mask", "painted")
        return _renewed(visit, *self._shown(visit, self._says("paint")), self._canvas(visit))

    def _masked(self, visit: Visit | None, path: str) -> tuple[Any, ...]:
        visit, limits = _there(visit), self.service.limits
        with _kept(visit):
            mask = read_mask(read_bytes(path, limits), visit.image, limits)
        self.service.mark(visit, mask, "mask", f"mask {Path(path).name}")
        return self._answered(visit, self._says("mask"))

    def _wholly(self, visit: Visit | None) -> tuple[Any, ...]:
        visit = _there(visit)
        self.service.whole(visit)
        return self._answered(visit)

    def _undone(self, visit: Visit | None) -> tuple[Any, ...]:
        """The corner of a box that was begun goes first."""
        visit = _there(visit)
        with visit.turn:
            begun, visit.corner = visit.corner is not None, None
            if visit.regions and not begun:
                visit.regions.pop()
        return self._answered(visit, _BOX[0] if begun else "")

    def _cleared(self, visit: Visit | None) -> tuple[Any, ...]:
        visit = _there(visit)
        with visit.turn:
            visit.regions.clear()
            begun, visit.corner = visit.corner is not None, None
        return self._answered(visit, _BOX[0] if begun else "")

    def _files(self, visit: Visit | None) -> tuple[Any, ...]:
        visit = _there(visit)
        regions = tuple(visit.regions)
        if not regions:
            return gr.update(value=None, interactive=False), gr.update(value=None, interactive=False)
        place = self.downloads.of(visit.key)
        answers_file, picture = place / f"{Path(visit.name).stem}_regions.json", place / f"{Path(visit.name).stem}_regions.png"
        with visit.filing:
            answers_file.write_text(visit.as_json(self.service.models), encoding="utf-8")
            draw.save(self.service.overlay(visit), picture)
        if tuple(visit.regions) != regions:  # a further click came meanwhile, and has its own files written
            return gr.skip(), gr.skip()
        return gr.update(value=str(answers_file), interactive=True), gr.update(value=str(picture), interactive=True)

    def _mapped(self, visit: Visit | None) -> tuple[Any, ...]:
        visit = _there(visit)
        found, models = self.service.map(visit), self.service.models
        visit.maps = found
        told = shade.panels(found, models), answers.ranking(found, models, self.service.notes(found))
        return _renewed(visit, gr.update(visible=True), *told, gr.update(value=None, interactive=False))

    def _map_files(self, visit: Visit | None) -> Any:
        visit = _there(visit)
        if not visit.maps:  # another picture by now
            return gr.skip()
        found, file = visit.maps, self.downloads.of(visit.key) / f"{Path(visit.name).stem}_map.png"
        with visit.filing:
            draw.save(_below([draw_map(f) for f in found]), file)
        return gr.update(value=str(file), interactive=True)

    def _canvas(self, visit: Visit) -> dict[str, Any]:
        """What is painted on: the picture with its regions."""
        picture = Image.fromarray(self.service.picture(visit))
        picture.thumbnail((SIDE, SIDE))
        return {"background": np.asarray(picture), "layers": [], "composite": None}


def canvas_height(size: tuple[int, int]) -> int:
    """Pixels in which the canvas shows an image of `size` (height, width) as large as the column is broad, or as a screen is high; not so
    few that the editor's tools would cover the page below it."""
    return _AROUND + min(_TALLEST, max(_LEAST, round(_BROADEST * size[0] / size[1])))


def _emptied(event: Any, upload: gr.File) -> None:
    """An upload takes the next file after this event, also where the last one was refused."""
    for after in (event.success, event.failure):
        after(lambda: None, None, upload, show_progress="hidden", **_PRIVATE)


def told(do: Callable[..., Any]) -> Callable[..., Any]:
    """As `do`, but what is wrong with a request is said on the page; anything else is a bug, which only the server's log describes."""

    @functools.wraps(do)
    def wrapper(*args: Any) -> Any:
        try:
            return do(*args)
        except _EXPECTED as error:
            raise gr.Error(str(error), title="This did not work", print_exception=False, duration=12) from error
        except gr.Error:
            raise
        except MemoryError as error:
            raise gr.Error("There is not enough memory for this now: try a smaller picture.", print_exception=False) from error

    return wrapper


@contextmanager
def _kept(visit: Visit | None) -> Iterator[None]:
    """A refusal also says that nothing was lost, to whom had something."""
    try:
        yield
    except Refusal as error:
        raise Refusal(f"{error} What was on the page is still there." if visit else str(error)) from error


def _there(visit: Visit | None) -> Visit:
    if visit is None:
        raise Refusal("This picture was put away, as nothing happened for an hour or many others came: please choose it again.")
    return visit


def _renewed(visit: Visit, *values: Any) -> tuple[Any, ...]:
    """A visit and what is shown of it, for an event of which the visit is an output: it then counts as used just now. Nothing, where the
    visitor has another picture by now."""
    return (visit, *values) if not visit.left else tuple(gr.skip() for _ in range(len(values) + 1))


def _head(service: Service) -> str:
    names = " and ".join(f"<b>{escape(name)}</b>" for name in service.models)
    head = "Models" if len(service.models) > 1 else "Model"
    return (
        "<h1>How good does this part of a picture look?</h1>"
        "<p>Choose a picture and a region of it. The model says its <b>quality</b>, its <b>importance</b> to the whole image, and which "
        f"<b>distortion</b> it shows. Scores go from 0 to 1. <span class='roi-muted'>{head}: {names}</span></p>"
    )


def _hint(text: str) -> Any:
    return f'<span aria-live="polite">{text}</span>' if text else gr.skip()


def _found(segmenter: MaskEncoder) -> str:
    return "the patch of one colour" if isinstance(segmenter, Superpixel) else "what is found"


def _thumbnail(image: NDArray[np.uint8]) -> Image.Image:
    small = Image.fromarray(image)
    small.thumbnail((480, 480))
    return small


def _below(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures one below the other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    filled = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in pictures]
    return np.concatenate(filled)
