"""python prepare.py <command>: checkpoints brought here and written back, trained models made ready to be given away, data.

python prepare.py import-seagull SEAGULL-7B models/seagull-7b     the released checkpoint -> a model of ours
python prepare.py export-seagull models/seagull-7b SEAGULL-7B-out  and back, under the released names
python prepare.py import-mobile-iqa teacher_model.pkl models/mobile-iqa   MobileIQA's released teacher or student -> a model of ours
python prepare.py import-teacher-iqa koniq_teacher_iqa.pkl models/teacher-iqa   and TeacherIQA's, or its restoring network alone
python prepare.py save outputs/quickstart models/quickstart       a run -> a folder that describes itself
python prepare.py merge outputs/mine models/mine                  a run with LoRA adapters -> a model without, which is the same
python prepare.py export-onnx outputs/small small.onnx              a scorer without a language model, for other runtimes
python prepare.py index SEAGULL-100w data/seagull-100w              SEAGULL-100w as it is downloaded -> tables
python prepare.py show data/mine mine.html                        images with regions and labels, and the labels' distributions
python prepare.py validate data/mine                              what is wrong with data, and how much can be used
python prepare.py synthesize photos data/mine mode=mixed images=1000   clean photographs -> distorted, labelled data
python prepare.py regions outputs/quickstart regions              its test images, a mask of each region, and a table for others' scores
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.registry import ConfigError, configured
from configs.layers import load_options
from lightning_modules.entry import EntryParser, run_entry

_SEAGULL = "model/seagull_7b"
_DTYPES = ("bfloat16", "float32", "float16")  # of a language model
_DATA = "options of the data, as train.py takes them: of a list of regions, quality_scale=[1,5]"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs one command; returns what it found, as it printed it."""
    parser = EntryParser(prog="prepare.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], dict[str, Any]], what: str, into: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what)
        sub.add_argument("folder", type=Path)
        sub.add_argument("out", type=Path, help=into)
        sub.add_argument("--overwrite", action="store_true", help="replace what is there")
        sub.set_defaults(run=run, command=name)
        return sub

    sub = command("import-seagull", import_seagull, "brings the released SEAGULL checkpoint here", "a new folder: our model")
    sub.add_argument("--model", default=_SEAGULL, help="the model file whose architecture it has (default: %(default)s)")
    sub = command(
        "export-seagull", export_seagull, "writes a model under the names of the released SEAGULL checkpoint", "a new folder: theirs"
    )
    sub.add_argument("--official", type=Path, help="folder official/ of the imported checkpoint (default: that in the model's folder)")
    for name, run, whose in (
        ("import-mobile-iqa", import_mobile_iqa, "MobileIQA's teacher or student"),
        ("import-teacher-iqa", import_teacher_iqa, "TeacherIQA, or its restoring network"),
    ):
        sub = command(name, run, f"brings a released checkpoint here: {whose}", "a new folder: our model")
        sub.add_argument("--model", default="", help="the model file whose architecture it has (default: the published one)")
    sub = command("save", save_model, "makes a run, or another model, a folder that describes itself", "a new folder")
    sub.add_argument("--licence", default="", help="of the weights, for the model card")
    sub = command("merge", merge_model, "merges LoRA adapters into the language model, and shows that it is still the same", "a new folder")
    sub.add_argument("--dtype", choices=_DTYPES, default="", help="of the language model written (default: that of the adapters' base)")
    sub.add_argument("--accelerator", choices=("auto", "cpu", "gpu"), default="auto", help="what to merge and compare on")
    command("export-onnx", export_small, "writes a scorer without a language model as ONNX, and compares it", "a new file (.onnx)")
    sub = commands.add_parser("index", help="SEAGULL-100w as downloaded -> tables", description=index_data.__doc__)
    sub.add_argument("folder", type=Path, help="with Dist.Images/, Labels/ and Ref.Images.zip, archives left as they are")
    sub.add_argument("out", type=Path, help="a new folder: the tables")
    sub.add_argument("--mapping", type=Path, help="YAML: which keys of the label files mean what, where they differ from what we infer")
    sub.add_argument(
        "--importance", choices=("higher", "lower"), help="which end of its scores is the most important (default: the mapping's)"
    )
    sub.add_argument("--shares", type=float, nargs=3, default=(0.9, 0.05, 0.05), metavar=("TRAIN", "VAL", "TEST"), help="of the references")
    sub.add_argument("--seed", type=int, default=0, help="of the split")
    sub.add_argument("--threads", type=int, default=1, help="that parse and sort")
    sub.set_defaults(run=index_data)
    sub = commands.add_parser(
        "show", help="a page of images with regions and labels, and of the labels' distributions", description=show_data.__doc__
    )
    sub.add_argument("folder", type=Path, help="of tables, or of images with labels.csv or labels.jsonl")
    sub.add_argument("out", type=Path, help="the page (.html), which needs nothing else")
    sub.add_argument("--image-root", type=Path, help="folder that the images' paths are relative to (default: as the data set `indexed`)")
    sub.add_argument("--data", nargs="+", default=[], metavar="key=value", help=_DATA)
    sub.add_argument("--pictures", type=int, default=12, help="images shown")
    sub.add_argument("--images", type=int, default=2000, help="images whose labels are plotted")
    sub.add_argument("--seed", type=int, default=0, help="of which they are")
    sub.set_defaults(run=show_data)
    sub = commands.add_parser("validate", help="looks for everything that is wrong with data", description=validate_data.__doc__)
    sub.add_argument("folder", type=Path, help="of tables, or of images with labels.csv or labels.jsonl")
    sub.add_argument("--image-root", type=Path, help="folder that the images' paths are relative to (default: as the data set `indexed`)")
    sub.add_argument("--data", nargs="+", default=[], metavar="key=value", help=_DATA)
    sub.add_argument("--images", action="store_true", help="reads and decodes every image, too; those of a list always are")
    sub.add_argument(
        "--apart", type=Path, help="other data, tables or a list, whose test images must not be trained on here: compared byte by byte"
    )
    sub.add_argument("--json", type=Path, help="a file for what was found; data.exclude=<it> trains on what is whole")
    sub.set_defaults(run=validate_data)
    sub = commands.add_parser("synthesize", help=(what := "makes distorted, labelled data from clean photographs"), description=what)
    sub.add_argument("folder", type=Path, help="of photographs, RAW files among them")
    sub.add_argument("out", type=Path, help="a new folder, or one that was begun with the same options: it is finished")
    sub.add_argument("options", nargs="*", metavar="key=value", help="or a YAML file of options, the later over the earlier: docs/data.md")
    sub.set_defaults(run=synthesize)
    sub = commands.add_parser(
        "regions", help="test images, masks and a table, for the scores of another system", description=hand_out_regions.__doc__
    )
    sub.add_argument("folder", help="of a run; or an experiment, by name or file, whose data are meant")
    sub.add_argument("out", type=Path, help="a new folder, or one that was begun with the same data: it is finished")
    sub.set_defaults(run=hand_out_regions)
    args = parser.parse_args(argv)
    return dict(args.run(args))


def index_data(args: argparse.Namespace) -> dict[str, Any]:
    """SEAGULL-100w as it is downloaded -> tables, in constant memory; a run that was killed goes on when it is given again."""
    from datamodules.label_mapping import load_mapping
    from datamodules.rows import parts_of, scan
    from datamodules.seagull_100w import Indexer

    mapping = load_mapping(args.mapping)
    if args.importance:
        mapping["scales"]["importance"]["direction"] = args.importance
    indexer = Indexer(args.folder, args.out, mapping, tuple(args.shares), args.seed, args.threads)
    found = indexer.run()
    coverage = scan(parts_of(args.out), indexer.maker.files).coverage()  # which has read the archives' directories already
    print("\n".join(f"{count:>14,} {what}" for what, count in found["counts"].items()))
    print(f"importance: {mapping['scales']['importance']['direction']} scores are the more important (not published: see --importance)")
    if mapping["severity"] == "quality":
        print("severities: five equal steps of the quality scores (not published: `severity: unknown` in a --mapping leaves them out)")
    print(f"{args.out}: {coverage}")
    return {**found, "coverage": coverage, "out": str(args.out)}


def show_data(args: argparse.Namespace) -> dict[str, Any]:
    """Draws images with their regions and labels, and plots how labels are distributed, as one page; what cannot be read is told."""
    import numpy as np
    from tqdm.auto import tqdm

    from datamodules.datasets.roi_folder import RoiFolder
    from datamodules.folder import data_of
    from datamodules.records import GO_ON, SPLITS, ImageRecord
    from datamodules.region_list import named
    from evaluation.data_report import figures, write_page
    from inference.draw import encode_labelled

    if args.out.suffix != ".html":
        raise ConfigError(f"{args.out}: the page is a file that ends in .html")
    data = data_of(args.folder, _data_options(args))
    if isinstance(data, RoiFolder) or data.rows.readable.any() or not data.rows.regions.any():
        data.check()
    dataset = data.tables if isinstance(data, RoiFolder) else data
    there = bool(dataset.rows.readable.any())
    splits = [dataset.split(s) if there else dataset.labelled(s) for s in SPLITS]
    ends = np.cumsum([len(s) for s in splits])
    drawn = np.random.default_rng(args.seed).permutation(ends[-1])[: max(args.images, args.pictures)]
    which = np.searchsorted(ends, drawn, side="right")
    chosen = [(int(s), int(i - ends[s] + len(splits[s]))) for s, i in zip(which, drawn, strict=True)]
    records, pictures, skipped = list[ImageRecord](), dict[str, bytes](), dict[tuple[int, int], str]()
    for s, i in tqdm(chosen[: args.images], unit="image", desc="reading labels"):
        try:
            records.append(splits[s].record(i).measured())
        except ValueError as error:
            skipped[s, i] = str(error)
    with tqdm(total=min(args.pictures, len(chosen)) if there else 0, unit="image", desc="drawing") as bar:
        for s, i in chosen:
            if bar.n == bar.total:
                break
            try:
                pixels, record = splits[s].decoded(i)
                pictures[f"{record.id} ({record.split})"] = encode_labelled(pixels, record)
                bar.update()
            except ValueError as error:
                skipped[s, i] = str(error)
    why = [said.removesuffix(f". {GO_ON}") for said in skipped.values()]
    said = f"Of {len(records):,} of {ends[-1]:,} images, drawn by seed {args.seed}"
    write_page(args.out, str(args.folder), dataset.rows.coverage(), said, pictures, figures(records), why)
    print(f"page: {args.out}" + ("" if there else "; it shows labels alone, for no image is where the tables say"))
    if why:
        print(f"{len(why):,} images cannot be shown: {named(why)}. {GO_ON.replace('DATA', str(args.folder))}")
    return {"out": str(args.out), "images": len(records), "pictures": len(pictures), "skipped": why}


def validate_data(args: argparse.Namespace) -> dict[str, Any]:
    """Finds, counts and locates every problem of data, and says how much of it can be used. Exit status 1 if there is an error."""
    from datamodules.datasets.roi_folder import RoiFolder
    from datamodules.folder import data_of
    from datamodules.list_validation import tests_of_list, validate_list
    from datamodules.validation import tests_of, validate
    from lightning_modules.runs import write_json

    elsewhere = None
    if args.apart:
        other = data_of(args.apart, {})
        if isinstance(other, RoiFolder):
            elsewhere = tests_of_list(other.read(), str(other.root / other.table))
        else:
            elsewhere = tests_of(other.root, other.files)
    data = data_of(args.folder, _data_options(args))
    if isinstance(data, RoiFolder):
        report = validate_list(data.read(), data.table, elsewhere)
    else:
        report = validate(data.root, data.files, args.images or args.apart is not None, elsewhere)
    report.apart = "" if elsewhere is None else elsewhere.text(str(args.apart))
    if args.json:
        write_json(args.json, report.as_dict())
    print(report.text())
    return report.as_dict()


def _data_options(args: argparse.Namespace) -> dict[str, Any]:
    return load_options([*args.data, *([f"images={args.image_root}"] if args.image_root else [])], ())


def import_seagull(args: argparse.Namespace) -> dict[str, Any]:
    """Released folder -> a model of ours. What commands about models need (PyTorch, transformers) those about data do without."""
    from configs.schema import load_model
    from inference import handover

    return handover.import_seagull(args, load_model)


def import_mobile_iqa(args: argparse.Namespace) -> dict[str, Any]:
    """A file of MobileIQA's authors -> a model of ours."""
    from configs.schema import load_model
    from inference import handover

    return handover.import_mobile_iqa(args, load_model)


def import_teacher_iqa(args: argparse.Namespace) -> dict[str, Any]:
    """A file of TeacherIQA's authors -> a model of ours."""
    from configs.schema import load_model
    from inference import handover

    return handover.import_teacher_iqa(args, load_model)


def export_seagull(args: argparse.Namespace) -> dict[str, Any]:
    """A model's folder -> `out` with the released names, files and precision."""
    from inference import handover

    return handover.export_seagull(args)


def save_model(args: argparse.Namespace) -> dict[str, Any]:
    """A run or a saved model -> `out`, weights and description."""
    from inference import handover

    return handover.save_model(args)


def merge_model(args: argparse.Namespace) -> dict[str, Any]:
    """A run or saved model with adapters -> `out`, a saved model without."""
    from inference import handover

    return handover.merge_model(args)


def export_small(args: argparse.Namespace) -> dict[str, Any]:
    """A run or a saved model of a small scorer -> `out`, ONNX."""
    from inference import handover

    return handover.export_small(args)


def synthesize(args: argparse.Namespace) -> dict[str, Any]:
    """Photographs -> `out`: Parquet parts, data.json, references; finishes what was interrupted."""
    from datamodules.synthesis_job import PARTS, Synthesis

    options = load_options(args.options, PARTS)
    data = configured(Synthesis, options, "synthesize")(args.folder, args.out).run()
    spent = data["seconds"]
    if total := sum(spent.values()):
        print("time: " + ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in spent.items()))
    lost = sum(s["images"] for s in data["skipped"])
    print(
        f"{data['counts']['images']} images with {data['counts']['regions']} regions"
        + (f"; {lost} could not be made, see data.json" if lost else "")
    )
    print(f"data: {args.out}")
    return data


def hand_out_regions(args: argparse.Namespace) -> dict[str, Any]:
    """The test split that a run is measured on -> PNGs of its images and of a mask for each region, and regions.csv: with its scores
    filled in, python eval.py compares them with the run. Finishes what was interrupted."""
    import json

    from configs.schema import load_config
    from datamodules.datasets.base import DATASETS
    from datamodules.handout import TABLE, hand_out
    from lightning_modules.runs import Run

    run = Run(Path(args.folder))
    dataset = DATASETS.build(load_config(str(run.config) if run.folder.is_dir() else args.folder).data, where="data")
    dataset.prepare()
    described = json.loads(json.dumps(dataset.describe()))
    if run.record.exists():
        told = json.loads(run.record.read_text())
        if (measured := told.get("evaluation", {}).get("data") or told.get("data")) not in (None, described):
            raise ValueError(
                f"the data made now are not those that {run.folder} was measured on, so its regions may be others: measure it again, with "
                f"python eval.py {run.folder} (differing: {', '.join(k for k in described if measured.get(k) != described[k])})"
            )
    counts = hand_out(dataset.split("test"), described, args.out)
    print(
        f"{counts['images']:,} images with {counts['regions']:,} regions; fill the column score of {args.out / TABLE}, rename it, compare"
    )
    return {**counts, "out": str(args.out)}


def _entry() -> None:
    if main().get("errors"):
        sys.exit(1)


if __name__ == "__main__":
    run_entry(_entry)
