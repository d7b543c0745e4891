"""Checkpoints brought here and written back, and trained models made ready to be given away: what `prepare.py` does with models."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from components.llm_adapters.hf_causal import HFCausal
from components.registry import ConfigError
from components.released import mobile_iqa, seagull, teacher_iqa
from components.released.states import Names, read_state, read_wrapped
from components.scorers.base import SCORERS, Scorer
from components.scorers.roi_vlm import RoiVLM
from inference.load import choose_device, find
from inference.merged import write_merged
from inference.saved import About, describe, is_saved, save, share

if TYPE_CHECKING:
    from components.scorers._crop_quality import CropQuality
    from components.scorers.mobile_iqa import MobileIQA

Loads = Callable[[str], dict[str, Any]]  # the name of a model file -> its node
_SEAGULL_LICENCE = "Apache-2.0 (SEAGULL); the language model is derived from Llama 2, under the Llama 2 Community Licence"
_NO_LICENCE = "none is stated by the authors: all rights reserved"
_SEAGULL_BASES = (
    {"part": "all", "id": "Zevin2023/SEAGULL-7B", "revision": "unknown: read from a local folder"},
    {"part": "vision_encoder", "id": "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup", "revision": "unknown"},
)


def import_seagull(args: argparse.Namespace, load: Loads) -> dict[str, Any]:
    """Released folder -> `out`/{config.json, model.safetensors, vision_encoder.safetensors, llm/, official/, README.md}."""
    from components.released.tokenizer import write_tokenizer  # needs sentencepiece, which the other commands do without

    node = load(args.model)
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


def import_mobile_iqa(args: argparse.Namespace, load: Loads) -> dict[str, Any]:
    """A file of `torch.save` -> `out`/{config.json, model.safetensors, README.md}; teacher or student, as its tensors say."""
    found = read_state(args.folder)
    whose = mobile_iqa.kind(found, args.folder)
    node = load(args.model or mobile_iqa.PRESETS[whose])
    scorer = _picture_scorer(node, "mobile_iqa", args.model)
    shapes = cast("MobileIQA", scorer).compared
    names = mobile_iqa.names(whose, shapes["levels"], shapes["opinions"])
    return _import_state(args, found, names, node, f"chencn2020/MobileIQA ({whose})", scorer.state_dict())


def import_teacher_iqa(args: argparse.Namespace, load: Loads) -> dict[str, Any]:
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
    node = load(args.model or (teacher_iqa.RESTORING if alone else teacher_iqa.PRESET))
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
