"""SEAGULL-7B as its authors released it (reference facts 1.4 to 1.7): 742 tensors, their names and ours.

    released                                   ours                              file of ours
    model.embed_tokens, layers, norm; lm_head  llm.model. + the same             llm/ (a folder of transformers)
    model.vision_tower.vision_tower.visual.    vision_encoder.trunk.             vision_encoder.safetensors
    model.mm_projector.                        projector.mlp.                    model.safetensors
    mask_extractor.                            region_extractor.                 model.safetensors
    dead, see `is_dead`                        not built                         official/dead.safetensors

Names are translated by their beginnings, one to one. Tensors keep their precision, so that what is brought here and written back
is equal bit by bit; the parts that the released code carries but never evaluates are kept aside for that alone.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PretrainedConfig as Architecture

from components.released.shards import CheckpointError, Shards, open_tensors

_VISUAL = "model.vision_tower.vision_tower.visual."
_GLOBAL, _LOCAL = "region_extractor.global_token.", "region_extractor.local_token."
_ATTENTIONS = {
    f"{_GLOBAL}block.self_attention.": "mask_extractor.cross_att_res.self_attn.",
    f"{_GLOBAL}block.cross_attention.": "mask_extractor.cross_att_res.cross_attn.",
    f"{_LOCAL}attention.": "mask_extractor.sa.",
}
RELEASED: dict[str, str] = {  # beginning of our name -> beginning of theirs
    "llm.model.lm_head.": "lm_head.",
    **{f"llm.model.model.{part}.": f"model.{part}." for part in ("embed_tokens", "layers", "norm")},
    "vision_encoder.trunk.stem_": f"{_VISUAL}trunk.stem.",
    "vision_encoder.trunk.stages_": f"{_VISUAL}trunk.stages.",
    "projector.mlp.": "model.mm_projector.",
    **{f"{_GLOBAL}region_in.{level}.": f"mask_extractor.res{level + 2}." for level in range(4)},
    **{f"{_GLOBAL}channel_in.{level}.": f"mask_extractor.g_res{level + 2}." for level in range(4)},
    **{
        f"{ours}{role}.": f"{theirs}{name}_proj."
        for ours, theirs in _ATTENTIONS.items()
        for role, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
    },
    f"{_GLOBAL}block.norm_self.": "mask_extractor.cross_att_res.norm1.",
    f"{_GLOBAL}block.norm_cross.": "mask_extractor.cross_att_res.norm2.",
    f"{_GLOBAL}block.mlp.0.": "mask_extractor.cross_att_res.mlp.lin1.",
    f"{_GLOBAL}block.mlp.2.": "mask_extractor.cross_att_res.mlp.lin2.",
    f"{_GLOBAL}region_out.": "mask_extractor.feat_linear.",
    f"{_GLOBAL}context_out.": "mask_extractor.cross_feat_linear.",
    f"{_GLOBAL}fuse.": "mask_extractor.final_mlp.",
    **{f"{_LOCAL}shrink.{n}.": f"mask_extractor.global_vit.{n}." for n in (0, 3)},
    **{f"{_LOCAL}mlp.{2 * n}.": f"mask_extractor.mlp.layers.{n}." for n in range(3)},
}
_OURS = {theirs: ours for ours, theirs in RELEASED.items()}
DEAD: dict[str, str] = {  # what the released code carries without evaluating it -> why
    r"mask_extractor\.mask_linear\.layers\.[012]\.(weight|bias)": "Osprey's branch for the mask's shape, never called",
    re.escape(_VISUAL) + r"trunk\.head\.norm\.(weight|bias)": "the norm behind the last stage, never reached",
    re.escape(_VISUAL) + r"head\.mlp\.fc(1\.(weight|bias)|2\.weight)": "CLIP's projection head, never reached",
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq": "rotary frequencies, which follow from the configuration",
}
_DEAD = re.compile("|".join(DEAD))
TOKENIZER = "tokenizer.model"
_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps")
_SAME = (*_SIZES, "num_key_value_heads", "max_position_embeddings", "hidden_act", "tie_word_embeddings", "attention_bias", "mlp_bias")
_DTYPES = ("float16", "bfloat16", "float32", "int64")
_WEIGHTS = (".bin", ".safetensors")
_RECORD, _DEAD_FILE = "tensors.json", "dead.safetensors"


def is_dead(name: str) -> bool:
    """Whether a released tensor is on the list of those that take no part in any answer."""
    return _DEAD.fullmatch(name) is not None


def to_ours(name: str) -> str | None:
    """Released name -> ours; None for a dead or unknown one."""
    return None if is_dead(name) else _translated(name, _OURS)


def to_released(name: str) -> str | None:
    """Our name -> the released one; None for a part that the released model does not have."""
    return _translated(name, RELEASED)


def check(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: object) -> None:
    """Whether every released tensor is used or dead, and every tensor of ours is there.

    Args:
        found: released name -> tensor. wanted: our name -> tensor (of a scorer on the meta device).

    Raises:
        CheckpointError: naming what is missing, unknown or of another shape.
    """
    expected = {released: tuple(x.shape) for name, x in wanted.items() if (released := to_released(name)) is not None}
    untold = sorted(name for name in wanted if to_released(name) is None)
    if untold:
        raise CheckpointError(f"this model has {_listed(untold)} which the released one does not have: switch that part off")
    faults = {
        "missing": sorted(expected.keys() - found.keys()),
        "neither used nor on the list of dead ones": sorted(k for k in found if k not in expected and not is_dead(k)),
        "of another shape": sorted(f"{k} {tuple(found[k].shape)} instead of {s}" for k, s in expected.items() if _differs(found.get(k), s)),
    }
    if any(faults.values()):
        told = "; ".join(f"{what}: {_listed(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"{where} is not the released checkpoint of this model. {told}. Nothing was written")


def check_architecture(folder: Path, architecture: Architecture) -> None:
    """Whether the released config.json describes the same language model: a wrong epsilon or head count would load and score wrongly.

    Raises:
        CheckpointError: there is no config.json, or it disagrees.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no config.json: fetch all files of the checkpoint")
    try:
        told = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): fetch it again") from error
    if not isinstance(told, dict):
        raise CheckpointError(f"{path} holds no JSON object: fetch it again")
    ours = architecture.to_dict()
    if lacking := [k for k in _SIZES if k not in told]:
        raise CheckpointError(f"{path} does not tell {', '.join(lacking)}: fetch it again")
    differ = [f"{k}: {told[k]!r} there, {ours.get(k)!r} here" for k in _SAME if k in told and told[k] != ours.get(k)]
    rope = ours.get("rope_parameters") or {}
    theirs, here = told.get("rope_theta", 10_000.0), rope.get("rope_theta", 10_000.0)
    differ += [f"rope_theta: {theirs!r} there, {here!r} here"] if theirs != here else []
    if told.get("rope_scaling") and rope.get("rope_type", "default") == "default":
        differ.append(f"rope_scaling: {told['rope_scaling']!r} there, none here")
    if differ:
        raise CheckpointError(f"{path} describes another language model ({'; '.join(differ)}): import it with a model file that agrees")


def unpack(folder: Path, out: Path, wanted: Mapping[str, Tensor], architecture: Architecture, shard_size: str = "5GB") -> None:
    """Writes the released checkpoint in `folder` as files of ours into `out`, tensor by tensor and bit by bit; of the language model the
    weights and config.json, not the tokenizer. What only the released code needs goes to `out`/official.

    Args:
        wanted: our name -> tensor, of the scorer on the meta device that is to take the weights.
        shard_size: of the language model's files, the most that is held in memory.

    Raises:
        CheckpointError: as `check` and `check_architecture`, or a damaged file. Nothing is written then.
    """
    shards = Shards(folder)
    check(shards, wanted, folder)
    check_architecture(folder, architecture)
    ours = {name: shards[released] for name in wanted if (released := to_released(name)) is not None}
    dead = {name: x for name, x in shards.items() if is_dead(name)}
    _check_room(out, _bytes(shards.values()))
    official = out / "official"
    official.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and not file.name.endswith(_WEIGHTS) and not file.name.startswith("."):
            shutil.copyfile(file, official / file.name)
    record = {name: {"file": shards.place[name], "dtype": _told(x.dtype), "shape": list(x.shape)} for name, x in shards.items()}
    (official / _RECORD).write_text(json.dumps(record, indent=0) + "\n")
    with tqdm(total=_bytes(shards.values()), unit="B", unit_scale=True, desc="importing") as bar:
        _save(dead, official / _DEAD_FILE, bar)
        _save(_part(ours, "vision_encoder.trunk."), out / "vision_encoder.safetensors", bar)
        _save({k: v for k, v in ours.items() if k.startswith(("projector.", "region_extractor."))}, out / "model.safetensors", bar)
        _save_language_model(_part(ours, "llm.model."), out / "llm", architecture, shard_size, bar)


def pack(folder: Path, out: Path, official: Path | None = None) -> list[str]:
    """The inverse of `unpack`: writes the weights in `folder` under the released names, in the released precision and files.

    Args:
        folder: as `unpack` made it, or a fine-tuned model saved from it.
        out: a new folder.
        official: where `unpack` kept what only the released code needs; None for `folder`/official.

    Returns:
        The names of tensors that were rounded to the released precision.

    Raises:
        CheckpointError: something is missing, is adapted by LoRA, or does not fit the released model.
    """
    official = official or folder / "official"
    if not (official / _RECORD).is_file():
        raise CheckpointError(
            f"{official} has no {_RECORD}, which says what the released checkpoint holds: "
            "give the folder official/ of an imported checkpoint"
        )
    record: dict[str, dict[str, Any]] = json.loads((official / _RECORD).read_text())
    for name, entry in record.items():
        if Path(entry["file"]).name != entry["file"] or not entry["file"].endswith(_WEIGHTS) or entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{official / _RECORD} puts {name} into {entry['file']!r} as {entry['dtype']!r}: no record of an import")
    ours = _tensors(folder)
    adapters = sorted(k for k in ours if "lora_" in k)
    if adapters:
        raise CheckpointError(
            f"{folder} holds LoRA adapters ({_listed(adapters)}), for which the released names have no room: merge them first "
            "(python prepare.py merge)"
        )
    dead = open_tensors(official / _DEAD_FILE)
    untold = sorted(name for name in ours if to_released(name) is None)
    found = {**dead, **{released: x for name, x in ours.items() if (released := to_released(name)) is not None}}
    faults = {
        "missing": sorted(record.keys() - found.keys()),
        "unknown to the released model": sorted({*(found.keys() - record.keys()), *untold}),
        "of another shape": sorted(k for k in record if _differs(found.get(k), tuple(record[k]["shape"]))),
    }
    if any(faults.values()):
        told = "; ".join(f"{what}: {_listed(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"{folder} does not fit the released checkpoint. {told}. Nothing was written")
    _check_room(out, sum(_entry_bytes(entry) for entry in record.values()))
    out.mkdir(parents=True)
    for file in official.iterdir():
        if file.name not in (_RECORD, _DEAD_FILE):
            shutil.copyfile(file, out / file.name)
    rounded: list[str] = []
    with tqdm(total=_bytes(found.values()), unit="B", unit_scale=True, desc="exporting") as bar:
        for file_name in sorted({entry["file"] for entry in record.values()}):
            inside = {k: _cast(k, found[k], entry["dtype"], rounded) for k, entry in record.items() if entry["file"] == file_name}
            (save_file if file_name.endswith(".safetensors") else torch.save)(inside, out / file_name)
            bar.update(_bytes(inside.values()))
    return rounded


def _translated(name: str, table: Mapping[str, str]) -> str | None:
    start = next((s for s in table if name.startswith(s)), None)
    return None if start is None else table[start] + name[len(start) :]


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Our name -> tensor; what was trained stands before what it started from."""
    found = {f"llm.model.{k}": v for k, v in Shards(folder / "llm").items()}
    found |= {f"vision_encoder.trunk.{k}": v for k, v in open_tensors(folder / "vision_encoder.safetensors").items()}
    return found | open_tensors(folder / "model.safetensors")


def _part(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def _save(tensors: Mapping[str, Tensor], path: Path, bar: tqdm[Any]) -> None:
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})
    bar.update(_bytes(tensors.values()))


def _save_language_model(tensors: dict[str, Tensor], folder: Path, architecture: Architecture, shard_size: str, bar: tqdm[Any]) -> None:
    folder.mkdir()
    architecture.save_pretrained(folder)
    plan = split_torch_state_dict_into_shards(tensors, filename_pattern="model{suffix}.safetensors", max_shard_size=shard_size)
    for file, names in plan.filename_to_tensors.items():
        _save({name: tensors[name] for name in names}, folder / file, bar)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _cast(name: str, x: Tensor, dtype: str, rounded: list[str]) -> Tensor:
    """`x` in the released precision; names what changed by it."""
    cast = x.to(getattr(torch, dtype))
    if cast.dtype != x.dtype and not torch.equal(cast.to(x.dtype), x):
        if not torch.isfinite(cast).all():
            raise CheckpointError(f"{name} has values beyond the range of {dtype}, the released precision: it cannot be exported")
        rounded.append(name)
    return cast


def _check_room(out: Path, needed: int) -> None:
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise CheckpointError(f"{there} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed: make room or choose another place")


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def _entry_bytes(entry: Mapping[str, Any]) -> int:
    return math.prod(entry["shape"]) * int(getattr(torch, entry["dtype"]).itemsize)


def _differs(x: Tensor | None, shape: tuple[int, ...]) -> bool:
    return x is not None and tuple(x.shape) != shape


def _told(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
