"""python predict.py <model> <images> [regions] [options]: says how good regions of images look, how much they matter, what ails them.

python predict.py outputs/quickstart photo.jpg --box 40,30,120,90 --point 200,80 --overlay scored.png
python predict.py outputs/quickstart photos/ --propose --out scores.csv --overlay drawn/
python predict.py outputs/quickstart regions.json --mask-type rle --out scores.jsonl

<model> is a run's folder, a saved or imported model, or a name on the hub. <images> is an image, a folder, or a list of regions: the JSON
that SEAGULL's own program takes, or a manifest (.jsonl, .csv); docs/predict.md describes them. Boxes are left,top,width,height in pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tqdm.auto import tqdm

from components.batch import TASKS, Task
from components.mask_encoders.base import MASK_ENCODERS
from components.registry import ConfigError
from inference import draw
from inference.load import choose_device, load
from inference.output import Output, check_free, check_place, table
from inference.predict import Predictor, Row, Seen
from inference.requests import MASK_TYPES, Asked, gather, numbers
from lightning_modules.entry import run_entry

_PRINTED = 60  # rows; more go to a file
_WEIGHTS = ("model.safetensors", "checkpoints/last.ckpt")  # of a saved model, of a run


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Scores what is asked for; returns {"rows": [...], "failed": n, "images": n}."""
    args = _parser().parse_args(argv)
    tasks = _tasks(args.tasks)
    requests = gather(args.images_or_list, [_region(kind, text) for kind, text in args.regions], args.images, args.mask_type)
    name, *options = args.mask_encoder
    encoder = MASK_ENCODERS.part({"plugin": name, **_options(options)}, "--mask-encoder")
    device = choose_device(args.accelerator)
    overlay = _overlay(args, len(requests))  # what is in the way is found before anything large is read
    if args.out is not None:
        Output(args.out, (), {}, args.overwrite, continued=False)

    segmenter = encoder()
    if any(a.kind == "proposed" for r in requests for a in r.regions) and not segmenter.can_propose:
        raise ConfigError(f"--propose: the mask encoder '{name}' finds nothing by itself: take superpixel or sam")
    segmenter.load_pretrained()
    scorer = load(args.model, device)
    asked = scorer.tasks if tasks is None else tasks
    predictor = Predictor(scorer, segmenter, asked, args.segment_boxes)
    identity = {
        "model": [str(args.model), *(_stamp(Path(args.model) / name) for name in ("config.json", "config.yaml", *_WEIGHTS))],
        "requests": [(r.name, str(r.path), [_told(a) for a in r.regions], _stamp(r.path)) for r in requests],
        "tasks": asked,
        "encoder": encoder.settings(),
        "segment_boxes": args.segment_boxes,
    }
    out = None if args.out is None else Output(args.out, asked, identity, args.overwrite)
    pictures = {} if overlay is None else _pictures(overlay, [r.name for r in requests])
    rows: list[Row] = []
    done = 0 if out is None else out.done
    if not done and overlay is not None and not args.overwrite and overlay.is_dir():
        _check_empty(overlay)  # a draft was there, and of no use
    if done:
        print(f"{done} of {len(requests)} images were scored before: going on", file=sys.stderr)
    with tqdm(total=len(requests), initial=done, unit="image", desc="scoring", disable=len(requests) < 2) as bar:
        for seen in predictor(requests[done:]):
            if overlay is not None:
                _draw(seen, pictures[seen.request.name], asked)
            if out is not None:
                out.add(seen.rows)
            for row in seen.rows:
                if row.error:
                    tqdm.write(f"{row.image}, {row.region}: {row.error}", file=sys.stderr)
            rows += seen.rows
            bar.update()
    return _closed(rows, out, overlay, asked, len(requests), args.strict)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--out", type=Path, metavar="FILE", help="rows as .jsonl or .csv; a killed prediction goes on where it stood")
    parser.add_argument(
        "--overlay", type=Path, metavar="PATH", help="a picture of the scored regions; a folder where there are several images"
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


def _options(texts: Sequence[str]) -> dict[str, Any]:
    out = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--mask-encoder: '{text}' is not of the form key=value")
        out[key] = yaml.safe_load(value)
    return out


def _overlay(args: argparse.Namespace, images: int) -> Path | None:
    path: Path | None = args.overlay
    if path is None:
        return None
    is_folder = args.images_or_list.is_dir() or images > 1
    if is_folder and path.suffix:
        raise ConfigError(f"--overlay {path}: there are {images} images, so it names a folder, without an ending")
    if is_folder:
        check_place(path / "inside")
    if is_folder and path.is_dir() and not args.overwrite and not _begun(args.out):
        _check_empty(path)
    if not is_folder:
        if path.suffix.lower() not in draw.SUFFIXES:
            raise ConfigError(f"--overlay {path}: its ending says the form, one of {', '.join(draw.SUFFIXES)}")
        check_free(path, args.overwrite)
    return path


def _check_empty(folder: Path) -> None:
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is there already and not empty: choose another folder, or write into it with --overwrite")


def _begun(out: Path | None) -> bool:
    return out is not None and out.with_name(f".{out.name}.draft").exists()


def _pictures(overlay: Path, names: Sequence[str]) -> dict[str, Path]:
    """Where the picture of each image goes: `overlay` itself, or below it under the image's own path, as PNG."""
    if overlay.suffix:
        return dict.fromkeys(names, overlay)
    inside = {name: Path(*(part for part in Path(name).parts if part not in ("..", Path(name).anchor))) for name in names}
    plain = Counter(path.with_suffix(".png") for path in inside.values())
    out: dict[str, Path] = {}
    taken: set[Path] = set()
    for name, path in inside.items():
        alone = [path.with_suffix(".png")] if plain[path.with_suffix(".png")] == 1 else []
        spots = [*alone, path.with_name(f"{path.name}.png"), *(path.with_name(f"{path.name}.{n}.png") for n in range(2, len(names) + 2))]
        place = next(spot for spot in spots if spot not in taken)
        taken.add(place)
        out[name] = overlay / place
    return out


def _draw(seen: Seen, path: Path, tasks: Sequence[Task]) -> None:
    scored = [row for row in seen.rows if not row.error]
    if seen.image is not None and seen.masks is not None and scored:
        draw.save(draw.draw(seen.image, seen.masks, scored, tasks), path)


def _closed(rows: list[Row], out: Output | None, overlay: Path | None, tasks: Sequence[Task], images: int, strict: bool) -> dict[str, Any]:
    """Prints and writes what was found; `rows` are those of this prediction, the file may hold more from one that was killed."""
    good = [row for row in rows if not row.error]
    if good and (out is None or len(good) <= _PRINTED):
        print(table(good, tasks))
    if out is not None:
        print(f"{out.finish()} rows: {out.path}")
    if overlay is not None and good:
        print(f"drawn: {overlay}")
    lines = [row.nested() for row in rows] if out is None else out.lines
    errors = [line["error"] for line in lines if line["error"]]
    if lines and len(errors) == len(lines):
        raise ValueError(f"none of the {len(lines)} regions could be scored: {errors[0]}")
    if errors:
        told = f"{len(errors)} of {len(lines)} regions could not be scored; the reasons are " + ("above" if out is None else "in the file")
        if strict:
            raise ValueError(f"--strict: {told}")
        print(told, file=sys.stderr)
    return {"rows": lines, "failed": len(errors), "images": images}


def _told(asked: Asked) -> tuple[Any, ...]:
    """A region as a draft remembers it; of a mask file also whether it is still the same."""
    return (asked.id, asked.kind, str(asked.value), *((_stamp(Path(asked.value)),) if asked.kind == "mask" else ()))


def _stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file does."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


if __name__ == "__main__":
    run_entry(main)
