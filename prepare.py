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
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from components.registry import ConfigError, configured
from components.released import mobile_iqa, seagull, teacher_iqa
from components.released.states import Names, read_state, read_wrapped
from components.scorers.base import SCORERS, Scorer
from components.scorers.roi_vlm import RoiVLM
from configs.schema import load_model, load_options
from inference.load import find
from inference.merged import DTYPES, write_merged
from inference.saved import About, describe, is_saved, save, share
from lightning_modules.entry import run_entry
from lightning_modules.runs import write_json

if TYPE_CHECKING:
    from components.scorers._crop_quality import CropQuality
    from components.scorers.mobile_iqa import MobileIQA

_SEAGULL = "model/seagull_7b"
_DATA = "options of the data, as train.py takes them: of a list of regions, quality_scale=[1,5]"
_SEAGULL_LICENCE = "Apache-2.0 (SEAGULL); the language model is derived from Llama 2, under the Llama 2 Community Licence"
_NO_LICENCE = "none is stated by the authors: all rights reserved"
_SEAGULL_BASES = (
    {"part": "all", "id": "Zevin2023/SEAGULL-7B", "revision": "unknown: read from a local folder"},
    {"part": "vision_encoder", "id": "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup", "revision": "unknown"},
)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs one command; returns what it found, as it printed it."""
    parser = argparse.ArgumentParser(prog="prepare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    sub.add_argument("--dtype", choices=DTYPES, default="", help="of the language model written (default: that of the adapters' base)")
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
    from datamodules.folder import tables_of
    from datamodules.records import GO_ON, SPLITS, ImageRecord
    from datamodules.region_list import named
    from evaluation.data_report import figures, write_page
    from inference.draw import encode_labelled

    if args.out.suffix != ".html":
        raise ConfigError(f"{args.out}: the page is a file that ends in .html")
    dataset = tables_of(args.folder, _data_options(args))
    there = bool(dataset.rows.readable.any())
    if there or not dataset.rows.regions.any():
        dataset.prepare()
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
                sample = splits[s][i]
                pictures[f"{sample.record.id} ({sample.record.split})"] = encode_labelled(sample)
                bar.update()
            except ValueError as error:
                skipped[s, i] = str(error)
    why = [said.removesuffix(f". {GO_ON}") for said in skipped.values()]
    said = f"Of {len(records):,} of {ends[-1]:,} images, drawn by seed {args.seed}"
    write_page(args.out, str(args.folder), dataset.rows.coverage(), said, pictures, figures(records), why)
    print(f"page: {args.out}" + ("" if there else "; it shows labels alone, for no image is where the tables say"))
    if why:
        print(f"{len(why):,} images cannot be shown: {named(why)}")
    return {"out": str(args.out), "images": len(records), "pictures": len(pictures), "skipped": why}


def validate_data(args: argparse.Namespace) -> dict[str, Any]:
    """Finds, counts and locates every problem of data, and says how much of it can be used. Exit status 1 if there is an error."""
    from datamodules.datasets.roi_folder import RoiFolder
    from datamodules.folder import data_of
    from datamodules.list_validation import tests_of_list, validate_list
    from datamodules.validation import tests_of, validate

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
    """Released folder -> `out`/{config.json, model.safetensors, vision_encoder.safetensors, llm/, official/, README.md}."""
    from components.llm_adapters.hf_causal import HFCausal  # takes 250 MiB, which the commands about data do without
    from components.released.tokenizer import write_tokenizer  # needs sentencepiece, which the other commands do without

    node = load_model(args.model)
    scorer = _skeleton(node, args.model)
    own = {**node, "weights": ""}
    own["vision_encoder"] = {**node["vision_encoder"], "weights": "./vision_encoder.safetensors"}
    own["llm"] = {**{k: v for k, v in node["llm"].items() if k != "config"}, "source": "./llm"}
    with _made(args) as draft:
        assert isinstance(scorer.llm, HFCausal)
        with tempfile.TemporaryDirectory() as words:  # before anything large is written
            write_tokenizer(args.folder / seagull.TOKENIZER, Path(words))
            seagull.unpack(args.folder, draft, scorer.state_dict(), scorer.llm.architecture)
            shutil.copytree(words, draft / "llm", dirs_exist_ok=True)
        describe(draft, scorer, own, About(_SEAGULL_LICENCE, _SEAGULL_BASES, {"command": f"import-seagull {args.folder.name}"}))
        record = json.loads((draft / "official" / "tensors.json").read_text())
    dead = sorted(name for name in record if seagull.is_dead(name))
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in scorer.parts().items()}
    print(f"{len(record)} tensors: {len(record) - len(dead)} used, {len(dead)} dead and kept aside in {args.out / 'official'}")
    print("\n".join(f"{name:<20}{size:>16,} parameters" for name, size in sizes.items() if size))
    print(f"model: {args.out}")
    return {"tensors": len(record), "dead": dead, "parameters": sizes, "out": str(args.out)}


def import_mobile_iqa(args: argparse.Namespace) -> dict[str, Any]:
    """A file of `torch.save` -> `out`/{config.json, model.safetensors, README.md}; teacher or student, as its tensors say."""
    found = read_state(args.folder)
    whose = mobile_iqa.kind(found, args.folder)
    node = load_model(args.model or mobile_iqa.PRESETS[whose])
    scorer = _picture_scorer(node, "mobile_iqa", args.model)
    shapes = cast("MobileIQA", scorer).compared
    names = mobile_iqa.names(whose, shapes["levels"], shapes["opinions"])
    return _import_state(args, found, names, node, f"chencn2020/MobileIQA ({whose})", scorer.state_dict())


def import_teacher_iqa(args: argparse.Namespace) -> dict[str, Any]:
    """A file of `torch.save` -> `out`, as `import_mobile_iqa`. Of a restoring network alone, the network that rates is made anew: the
    model is one of the stage "restoration", with which training can begin.

    Raises:
        ConfigError: a network that rates, kept under a key as the later training code does, and no --model: its tensors do not tell which
            pixels it saw and which scale it rates on.
    """
    state, under = read_wrapped(args.folder)
    found = teacher_iqa.today(state)
    alone = not any(name.startswith("iqaScore.") for name in found)
    if under and not alone and not args.model:
        raise ConfigError(
            f"{args.folder} keeps its tensors under {under!r}, as the authors' later training code (SimpleIQA) does, and other pixels and "
            f"another scale belong to that: give --model {teacher_iqa.RESTORING} for it (normalised pixels, scores from 0 to 1), or "
            f"--model {teacher_iqa.PRESET} for the weights released for KonIQ-10k (pixels as they are, scores from 0 to 100)"
        )
    node = load_model(args.model or (teacher_iqa.RESTORING if alone else teacher_iqa.PRESET))
    node = {**node, "stage": "restoration"} if alone else node
    wanted = _picture_scorer(node, "teacher_iqa", args.model).state_dict()
    if alone:
        wanted = {name: x for name, x in wanted.items() if not name.startswith("reader.")}
    return _import_state(args, found, teacher_iqa.names(), node, "chencn2020/TeacherIQA" + " (restoring network)" * alone, wanted)


def _picture_scorer(node: Mapping[str, Any], plugin: str, where: str) -> Scorer:
    """The scorer of a model file on the meta device: names and shapes. Raises ConfigError where it is another one."""
    if node["plugin"] != plugin:
        raise ConfigError(f"{where}: this checkpoint goes into a scorer {plugin}, got {node['plugin']}")
    with torch.device("meta"):
        return SCORERS.build(node, where="model")


def _import_state(
    args: argparse.Namespace, found: Mapping[str, Tensor], names: Names, node: dict[str, Any], origin: str, wanted: Mapping[str, Tensor]
) -> dict[str, Any]:
    brought = names.bring(found, wanted, args.folder)
    own = {**node, "vision_encoder": {**node["vision_encoder"], "weights": ""}}  # which are in what is brought
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of what the checkpoint does not have
        scorer = SCORERS.build(own, where="model")
    scorer.load_trained({**scorer.state_dict(), **brought})
    base = {"part": "all", "id": origin, "revision": "unknown: read from a local file"}
    with _made(args) as draft:
        save(draft, scorer, own, About(_NO_LICENCE, (base,), {"command": f"{args.command} {args.folder.name}"}))
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in scorer.parts().items()}
    print(f"{origin}: {len(brought)} tensors, all used")
    print(_assumed(scorer, args.model))
    print("\n".join(f"{name:<20}{size:>16,} parameters" for name, size in sizes.items()))
    print(f"model: {args.out}")
    return {"origin": origin, "tensors": len(brought), "parameters": sizes, "out": str(args.out)}


def _assumed(scorer: Scorer, model: str) -> str:
    """What the tensors do not tell."""
    seen, (worst, best) = scorer.preprocess, (cast("CropQuality", scorer).worst, cast("CropQuality", scorer).best)
    whose = f"as {model} says" if model else "as published"
    return (
        f"assumed, for the file does not tell ({whose}): pixels in [0, 1] less {tuple(seen.mean)}, over {tuple(seen.std)}; scores from "
        f"{worst:g} to {best:g}"
    )


def export_seagull(args: argparse.Namespace) -> dict[str, Any]:
    """A model's folder -> `out` with the released names, files and precision."""
    with _made(args) as draft:
        rounded = seagull.pack(args.folder, draft, args.official)
    if rounded:
        print(f"{len(rounded)} tensors were rounded to the released precision (first: {rounded[0]})")
    print(f"checkpoint: {args.out}")
    return {"rounded": rounded, "out": str(args.out)}


def save_model(args: argparse.Namespace) -> dict[str, Any]:
    """A run or a saved model -> `out`, weights and description."""
    scorer, node, about = find(args.folder)
    about = About(args.licence or about.licence, about.base_models, about.made)
    with _made(args) as draft:
        save(draft, scorer, node, about)
    print(f"model: {args.out}")
    return {"out": str(args.out)}


def merge_model(args: argparse.Namespace) -> dict[str, Any]:
    """A run or saved model with adapters -> `out`, a saved model without."""
    from inference.load import choose_device

    scorer, node, about = find(args.folder, choose_device(args.accelerator))
    with _made(args) as draft:
        count, found = write_merged(draft, scorer, node, about, args.dtype)
    print(f"{count} linear maps merged. On a probe, logits differ from the unmerged model's by {found.error:.2g} of their spread (the")
    print(
        f"adapters change them by {found.effect:.2g}, of which {found.share:.1%} arrived), scores by {found.answers:.2g} at most; "
        f"{found.texts} of the generated texts differ"
    )
    print(f"model: {args.out}")
    return {"merged": count, **vars(found), "out": str(args.out)}


def export_small(args: argparse.Namespace) -> dict[str, Any]:
    """A run or a saved model of a small scorer -> `out`, ONNX."""
    from inference.export import export_onnx

    if args.out.exists() and not args.overwrite:
        raise FileExistsError(f"{args.out} is there already: choose another name, or replace it with --overwrite")
    apart = export_onnx(find(args.folder)[0], args.out)
    print(f"{args.out}: its answers differ from the model's by {apart:.2g} at most. How images become its inputs stands in its metadata")
    return {"apart": apart, "out": str(args.out)}


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


def _skeleton(node: Mapping[str, Any], where: str) -> RoiVLM:
    """The scorer of a model file on the meta device: names and shapes, no weights, no tokenizer."""
    llm = node.get("llm", {})
    if node.get("plugin") != "roi_vlm" or llm.get("plugin") != "hf_causal" or not llm.get("config"):
        raise ConfigError(f"{where}: the released checkpoint goes into a roi_vlm with an hf_causal whose `config` is stated, got {node!r}")
    plain = {**node, "llm": {**llm, "adaptation": "full", "tokenizer": "project"}}
    with torch.device("meta"):
        scorer = SCORERS.build(plain, where=where)
    assert isinstance(scorer, RoiVLM)
    return scorer


@contextmanager
def _made(args: argparse.Namespace) -> Iterator[Path]:
    """A folder to write into that becomes `args.out` when all went well, and nothing otherwise.

    Raises:
        FileExistsError: `args.out` is there and --overwrite is not given, or it is no folder that these commands write.
    """
    out: Path = args.out
    read = [p.resolve() for p in (args.folder, getattr(args, "official", None)) if p is not None]
    if any(out.resolve() == p or out.resolve() in p.parents or p in out.resolve().parents for p in read):
        raise FileExistsError(f"{out} is, holds or lies in what is read: write to another place")
    if out.exists() and not args.overwrite:
        raise FileExistsError(f"{out} is there already: choose another place, or replace it with --overwrite")
    if out.exists() and not (is_saved(out) or any(out.glob("*.index.json"))):
        raise FileExistsError(f"{out} is no folder of weights, and is not replaced: choose another place")
    draft, old = (out.with_name(f".{out.name}.{what}") for what in ("draft", "old"))
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        yield draft
        share(draft)
        if out.exists():
            out.rename(old)  # removing gigabytes takes long, and is done when what replaces them stands in their place
        draft.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _entry() -> None:
    if main().get("errors"):
        sys.exit(1)


if __name__ == "__main__":
    run_entry(_entry)
