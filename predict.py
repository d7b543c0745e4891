"""python predict.py <model> <images> [regions] [options]: says how good regions of images look, how much they matter, what ails them.

python predict.py outputs/quickstart photo.jpg --box 40,30,120,90 --point 200,80 --overlay scored.png
python predict.py outputs/quickstart photos/ --propose --out scores.csv --overlay drawn/
python predict.py outputs/quickstart regions.json --mask-type rle --out scores.jsonl
python predict.py outputs/quickstart photo.jpg --map map.png

<model> is a run's folder, a saved or imported model, or a name on the hub. <images> is an image, a folder, or a list of regions: the JSON
that SEAGULL's own program takes, or a manifest (.jsonl, .csv); docs/predict.md describes them. Boxes are left,top,width,height in pixels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from components.mask_encoders.base import MASK_ENCODERS
from components.registry import ConfigError
from components.tasks import TASKS, Task
from datamodules.region_list import numbers
from inference import draw
from inference.cut import cut
from inference.cut import note as cut_note
from inference.engine import MEMORY, Engine
from inference.load import choose_device, load, located
from inference.output import Output, check_free, check_place, draft_of, hold, table
from inference.pictures import Pictures, Sort, drawers, places
from inference.predict import Predictor, shared_cores
from inference.quality_map import check_mapped
from inference.reduced import few, note, note_few, reduced
from inference.requests import MASK_TYPES, Asked, Request, gather
from inference.rows import Row
from lightning_modules.entry import EntryParser, run_entry

_PRINTED = 60  # rows; more go to a file
_WEIGHTS = ("model.safetensors", "checkpoints/last.ckpt")  # of a saved model, of a run


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Scores what is asked for; returns {"rows": [...], "regions": n, "failed": n, "images": n}. Rows that go to a file are not kept."""
    args = _parser().parse_args(argv)
    with ExitStack() as held:  # what this prediction writes, no other does
        return _predicted(args, held)


def _predicted(args: argparse.Namespace, held: ExitStack) -> dict[str, Any]:
    tasks = _tasks(args.tasks)
    regions = [_region(kind, text) for kind, text in args.regions]
    if args.map is not None and not any(asked.kind == "proposed" for asked in regions):
        regions.append(_region("propose", ""))
    requests = gather(args.images_or_list, regions, args.images, args.mask_type)
    name, *options = args.mask_encoder
    encoder = MASK_ENCODERS.part({"plugin": name, **options_of(options)}, "--mask-encoder")
    device = choose_device(args.accelerator)
    overlay, maps = (_place(option, args, len(requests)) for option in ("overlay", "map"))  # what is in the way is found before
    if not args.memory > 0:
        raise ConfigError(f"--memory {args.memory:g}: a positive number of MiB")
    if args.readers is not None and args.readers < 0:
        raise ConfigError(f"--readers {args.readers}: 0 or the number of images to make ready at a time")
    if overlay is not None and overlay == maps:
        raise ConfigError(f"--overlay and --map are both {maps}: the pictures of one would replace those of the other, name two places")
    if args.out is not None:
        Output(args.out, (), {}, args.overwrite, continued=False)

    segmenter = encoder()
    if any(a.kind == "proposed" for r in requests for a in r.regions) and not segmenter.can_propose:
        raise ConfigError(f"--propose: the mask encoder '{name}' finds nothing by itself: take superpixel or sam")
    segmenter.load_pretrained()
    folder = located(args.model)
    scorer = load(folder, device, args.quantization, args.grammar)
    engine = Engine(scorer, segmenter=segmenter, memory=args.memory, compile=args.compile, name=args.model)
    asked = engine.tasks if tasks is None else tasks
    if maps is not None:
        check_mapped(asked)
    identity = {
        "model": [args.model, *_version(folder, is_here=Path(args.model).is_dir())],
        "requests": [(r.name, str(r.path), [_told(a) for a in r.regions], _stamp(r.path)) for r in requests],
        "tasks": asked,
        "encoder": [encoder.settings(), [_stamp(Path(value)) for value in encoder.settings().values() if isinstance(value, str)]],
        "segment_boxes": args.segment_boxes,
        "rounding": [args.quantization, args.compile],
        "grammar": args.grammar,
        "pictures": [str(args.overlay), str(args.map)],  # else those of images that were scored before would be missing
    }
    kept = _kept(args, len(requests))
    out = None if kept is None else held.enter_context(Output(kept, asked, identity, args.overwrite, pictures=args.out is None))
    sorts: list[tuple[Sort, Path | None]] = [("overlay", overlay), ("map", maps)]
    wanted = {sort: place for sort, place in sorts if place is not None}
    for place in wanted.values():
        if place != kept and _several(args, len(requests)):  # of another prediction, that has an --out of its own
            try:
                held.callback(hold(place, "another folder").release)
            except FileExistsError:
                raise
            except OSError as error:  # the folder above may be another's
                print(f"note: {place} is not kept from other predictions, for nothing can be put beside it: {error}", file=sys.stderr)
    rows: list[Row] = []
    done = 0 if out is None else out.done
    for place in wanted.values():
        if not (out and out.begun) and not args.overwrite and place.is_dir():
            _check_empty(place)  # a draft was there, and of no use
    if out is not None and wanted:
        out.begin()
    if done:
        print(f"{done} of {len(requests)} images were scored before: going on", file=sys.stderr)
    if out is not None and out.undrawn:
        print(f"pictures of {out.undrawn} of these could not be drawn, the first: {out.first_undrawn}", file=sys.stderr)
    pictures = Pictures({s: places(p, [r.name for r in requests]) for s, p in wanted.items()}, asked, drawers(len(requests) - done))
    begun, counts = time.monotonic(), _counts(requests)
    scored = shrunk = small = reaching = 0
    ends = list(accumulate(counts or [1] * len(requests)))  # of each image, on the bar
    with shared_cores(device, len(requests) - done, args.readers) as readers, _bar(counts, len(requests), done) as bar:
        predictor = Predictor(engine, asked, args.segment_boxes, readers)
        if counts is not None:
            predictor.answered = bar.update
        for at, (seen, drawn) in enumerate(pictures.of(predictor(requests[done:])), done):
            if out is not None:
                out.add(seen.rows, drawn.sorts, drawn.error)
            for row in seen.rows:
                if row.error:
                    tqdm.write(f"{row.image}, {row.region}: {row.error}", file=sys.stderr)
            if drawn.error:
                tqdm.write(drawn.error, file=sys.stderr)
            scored += len(seen.rows)
            shrunk, small, reaching = shrunk + reduced(scorer, seen), small + few(seen), reaching + cut(seen)
            if out is None or (args.out is not None and len(rows) <= _PRINTED):
                rows += seen.rows
            bar.update(max(0, ends[at] - bar.n))  # what had no answer counts as well
            rate = f"{scored / max(time.monotonic() - begun, 1e-9):.1f} region/s"
            bar.set_postfix_str(rate if counts is None else f"image {at + 1}/{len(requests)}", refresh=False)
    of_all = pictures if out is None else out  # a draft knows of those that were drawn before, too
    if out is not None and args.out is None:
        rows = out.kept()
        out.finish(len(requests))
        out = None
    for said in filter(None, (cut_note(reaching), note(shrunk, scorer), note_few(small))):
        print(f"note: {said}", file=sys.stderr)
    found = _closed(rows, out, wanted, of_all.drawn, asked, len(requests), args.strict)
    if of_all.undrawn:
        told = f"pictures of {of_all.undrawn} of {len(requests)} images could not be drawn; the reasons are above"
        if args.strict:
            raise ValueError(f"--strict: {told}")
        print(told, file=sys.stderr)
    return found


def _counts(requests: Sequence[Request]) -> list[int] | None:
    """Regions of each image; None where some are to be proposed, so that nobody knows yet."""
    proposed = any(asked.kind == "proposed" for request in requests for asked in request.regions)
    return None if proposed else [len(request.regions) for request in requests]


def _bar(counts: Sequence[int] | None, images: int, done: int) -> tqdm[Any]:
    """Of regions, with their rate and the time left, or of images where the number of regions is not known; none where all is soon done.

    Args:
        done: images that were scored before.
    """
    if counts is None:
        return tqdm(total=images, initial=done, unit="image", desc="scoring", disable=images < 2)
    few = images < 2 and sum(counts) < _PRINTED
    return tqdm(total=sum(counts), initial=sum(counts[:done]), unit="region", desc="scoring", disable=few)


def _parser() -> argparse.ArgumentParser:
    parser = EntryParser(prog="predict.py", description=__doc__)
    parser.add_argument("model", help="outputs/<run>, a saved model's folder, or user/name on the hub")
    parser.add_argument("images_or_list", type=Path, metavar="images", help="an image, a folder, or a list (.json, .jsonl, .csv)")
    region = parser.add_argument_group("regions, each may be given several times; none: the whole image")
    parser.set_defaults(regions=[])
    region.add_argument("--box", action=_Said, metavar="X,Y,W,H")
    region.add_argument("--point", action=_Said, metavar="X,Y", help="the region around a point, by the mask encoder")
    region.add_argument("--mask", action=_Said, metavar="FILE", help="an image of the same size, not black inside")
    region.add_argument("--propose", action=_Said, nargs=0, help="every region that the mask encoder finds")
    region.add_argument("--mask-encoder", nargs="+", default=["superpixel"], metavar=("NAME", "key=value"), help="default: superpixel")
    region.add_argument("--segment-boxes", action="store_true", help="a box, too, means what the mask encoder finds in it")
    listed = parser.add_argument_group("lists")
    listed.add_argument("--images", type=Path, metavar="FOLDER", help="where the images of a list lie (default: beside it)")
    listed.add_argument(
        "--mask-type", choices=MASK_TYPES, default="points", help="which key of SEAGULL's JSON is the region (default: points)"
    )
    parser.add_argument("--tasks", default="all", help=f"some of {','.join(TASKS)}, or all (default)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="rows as .jsonl, .csv or .parquet; a killed prediction goes on where it stood"
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="PATH", help="a picture of the scored regions; a folder where there are several images"
    )
    parser.add_argument(
        "--map",
        type=Path,
        metavar="PATH",
        help="scores all that the mask encoder finds: a picture of quality and importance over the image; a folder for several images",
    )
    parser.add_argument("--memory", type=float, default=MEMORY, metavar="MIB", help="for the regions that are asked about at once")
    parser.add_argument(
        "--readers",
        type=int,
        metavar="N",
        help="images that are made ready while the model works, 0 for each in its turn (default: 2 with a GPU, else by the cores)",
    )
    parser.add_argument(
        "--compile", nargs="?", const="inductor", default="", metavar="BACKEND", help="torch.compile of the vision encoder (inductor)"
    )
    parser.add_argument("--quantization", choices=("nf4", "int8"), default="", help="of a language model from files")
    parser.add_argument(
        "--grammar",
        action=argparse.BooleanOptionalAction,
        help="answers in words are chosen among those that can be read, or given freely (default: as the model says)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--strict", action="store_true", help="end with an error if anything could not be scored")
    parser.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto")
    return parser


def _tasks(text: str) -> tuple[Task, ...] | None:
    if text == "all":
        return None
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TASKS:
            raise ConfigError(f"--tasks {text}: tasks are {', '.join(TASKS)}, or all; got {name!r}")
    return tuple(task for task in TASKS if task in names)


class _Said(argparse.Action):
    """A region of the command line, in the order in which they are said."""

    def __call__(self, parser: argparse.ArgumentParser, args: argparse.Namespace, value: Any, option: str | None = None) -> None:
        args.regions = [*args.regions, (str(option).removeprefix("--"), value)]


def _region(kind: str, text: str) -> Asked:
    """One region of the command line."""
    if kind == "propose":
        return Asked("proposed", "proposed")
    if kind == "mask":
        return Asked(f"mask {Path(text).name}", "mask", text)
    form = {"box": "left,top,width,height", "point": "x,y"}[kind]
    try:
        value = numbers(text)
    except ValueError as error:
        raise ConfigError(f"--{kind} {text}: expected {form}, numbers of pixels") from error
    if len(value) != len(form.split(",")):
        raise ConfigError(f"--{kind} {text}: expected {form}, got {len(value)} numbers")
    return Asked(f"{kind} {text}", "box" if kind == "box" else "point", value)


def options_of(texts: Sequence[str]) -> dict[str, Any]:
    """A mask encoder's options, each said as key=value with a YAML value. Raises ConfigError."""
    out = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--mask-encoder: '{text}' is not of the form key=value")
        out[key] = yaml.safe_load(value)
    return out


def _place(option: str, args: argparse.Namespace, images: int) -> Path | None:
    """Where the pictures of --overlay or --map go; None where none are asked for."""
    path: Path | None = getattr(args, option)
    if path is None:
        return None
    is_folder, kept = _several(args, images), _kept(args, images)
    if is_folder and path.suffix:
        raise ConfigError(f"--{option} {path}: there are {images} images, so it names a folder, without an ending")
    if is_folder:
        check_place(path / "inside")
    if is_folder and path.is_dir() and not args.overwrite and not (kept and draft_of(kept).exists()):
        _check_empty(path)
    if not is_folder:
        if path.suffix.lower() not in draw.SUFFIXES:
            raise ConfigError(f"--{option} {path}: its ending says the form, one of {', '.join(draw.SUFFIXES)}")
        check_free(path, args.overwrite)
    return path


def _check_empty(folder: Path) -> None:
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is there already and not empty: choose another folder, or write into it with --overwrite")


def _several(args: argparse.Namespace, images: int) -> bool:
    return bool(args.images_or_list.is_dir() or images > 1)


def _kept(args: argparse.Namespace, images: int) -> Path | None:
    """Beside what the draft lies: the file, or else the first folder of pictures; None where neither is asked for."""
    return args.out or next((p for p in (args.overlay, args.map) if p is not None and _several(args, images)), None)


def _closed(
    rows: list[Row],
    out: Output | None,
    pictures: Mapping[Sort, Path],
    drawn: Counter[str],
    tasks: Sequence[Task],
    images: int,
    strict: bool,
) -> dict[str, Any]:
    """Prints and writes what was found; `rows` are those of this prediction, as far as they were kept, and the file may hold more."""
    good = [row for row in rows if not row.error]
    if good and (out is None or len(rows) <= _PRINTED):
        print(table(good, tasks))
    if out is None:
        errors = [row.error for row in rows if row.error]
        regions, failed, first = len(rows), len(errors), next(iter(errors), "")
    else:
        regions, failed, first = out.finish(images), out.failed, out.first_error
        print(f"{regions} rows: {out.path}")
    if failed < regions:
        for sort, place in pictures.items():
            print(f"drawn: {place}" if drawn[sort] == images else f"drawn for {drawn[sort]} of {images} images: {place}")
    if regions and failed == regions:
        raise ValueError(f"none of the {regions} regions could be scored: {first}")
    if failed:
        told = f"{failed} of {regions} regions could not be scored; the reasons are " + ("above" if out is None else "in the file")
        if strict:
            raise ValueError(f"--strict: {told}")
        print(told, file=sys.stderr)
    return {"rows": [row.nested() for row in rows] if out is None else [], "regions": regions, "failed": failed, "images": images}


def _version(folder: Path, is_here: bool) -> list[Any]:
    """What changes when a model does: its files, or the commit of the hub's snapshot."""
    return [_stamp(folder / name) for name in ("config.json", "config.yaml", *_WEIGHTS)] if is_here else [folder.name]


def _told(asked: Asked) -> tuple[Any, ...]:
    """A region as a draft remembers it; of a mask file also whether it is still the same."""
    return (asked.id, asked.kind, str(asked.value), *((_stamp(Path(asked.value)),) if asked.kind == "mask" else ()))


def _stamp(path: Path) -> Any:
    """What changes when a file does, or one of a folder's; None where there is neither."""
    if path.is_dir():
        return [(str(inside.relative_to(path)), _stamp(inside)) for inside in sorted(path.rglob("*")) if inside.is_file()]
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


if __name__ == "__main__":
    run_entry(main)
