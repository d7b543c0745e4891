"""A model with adapters -> the same model without: merged, written, read again, and compared on a probe before it is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.batch import Batch, Labels
from components.llm_adapters.hf_causal import HFCausal
from components.merging import Agreement, MergeError, agreement, merge, without_adapters
from components.preprocess import prepare_image, prepare_regions, stack
from components.release import release
from components.scorers.base import SCORERS, Scorer
from components.tasks import RoiScore
from inference.saved import About, save

# Measured on small models: 6e-7 in single precision; 2e-2 in bfloat16 and 7e-3 on an int8 base, whose rounding grows with the depth.
TOLERANCE = {True: 1e-4, False: 1e-1}  # of `Agreement.error`: single precision throughout -> at most
_ENOUGH = 0.5  # of what the adapters do: a difference as large as that has lost them
_SHARE = 0.1  # of what they do may be missing or too much, which rounding leaves nearly as it is, and a wrong scale or a lost map does not


def write_merged(folder: Path, scorer: Scorer, node: Mapping[str, Any], about: About, dtype: str = "") -> tuple[int, Agreement]:
    """Merges the adapters of `scorer`, whose weights are gone afterwards, and writes what `save` would write of a model without any.

    Args:
        node: that it was built from.
        dtype: of the language model that is written; "" for that of its base. An adapter on a quantised base is merged into the unpacked
            weights, which are those that it was trained on.

    Returns:
        How many linear maps were merged, and how far the written model is from the unmerged one.

    Raises:
        MergeError: no adapters, an adapter that changes nothing, or another model than was trained. `folder` is then not to be used.
    """
    name, llm = _language_model(scorer)
    base = next(p.dtype for p in llm.model.get_input_embeddings().parameters())
    target = getattr(torch, dtype) if dtype else base
    device = next(scorer.parameters()).device
    batch = _probe(scorer).to(device)
    unmerged = _answers(scorer, batch)
    with without_adapters(llm.model):
        plain = _answers(scorer, batch)[0]
    count = merge(llm.model, target)
    _write_language_model(llm, folder / name, target)
    exact = base == target == torch.float32 and llm.quantization != "int8"
    known = llm.base_model()
    bases = () if known is None else ({"part": name, **known},)
    own = {**node, name: _plain(node[name], folder / name, target)}
    state = {k: v.cpu() for k, v in scorer.state_dict().items() if not k.startswith(f"{name}.") and k in scorer.trained_keys()}
    release(scorer)  # one model on the device, not two

    merged = SCORERS.build(own, where="model")
    merged.check_trained(state)
    with torch.device(device):
        merged.load_pretrained()
    merged.load_trained(state)
    found = agreement(unmerged, plain, _answers(merged.to(device).eval(), batch))
    _check(found, exact)
    save(folder, merged, own, About(about.licence, (*about.base_models, *bases), {**about.made, "merged": vars(found)}))
    return count, found


def _check(found: Agreement, exact: bool) -> None:
    allowed = min(TOLERANCE[exact], _ENOUGH * found.effect)
    if not (found.error <= allowed and abs(found.share - 1) <= _SHARE):
        raise MergeError(
            f"the merged model is not the one that was trained: its logits differ by {found.error:.2g} of their spread, {allowed:.2g} are "
            f"allowed, and the adapters themselves change them by {found.effect:.2g}, of which {found.share:.0%} arrived, "
            f"{1 - _SHARE:.0%} to {1 + _SHARE:.0%} are allowed. Nothing was written. Where bfloat16 rounds too much away, write in "
            "--dtype float32"
        )


def _language_model(scorer: Scorer) -> tuple[str, HFCausal]:
    for name, part in scorer.parts().items():
        for module in part.modules():
            if isinstance(module, HFCausal):
                return name, module
    raise MergeError(f"{type(scorer).__name__} has no language model, so there are no adapters to merge")


def _plain(node: Mapping[str, Any], source: Path, dtype: torch.dtype) -> dict[str, Any]:
    kept = {key: node[key] for key in ("attention",) if key in node}
    return {"plugin": "hf_causal", "source": str(source), "adaptation": "frozen", "dtype": str(dtype).removeprefix("torch."), **kept}


def _write_language_model(llm: HFCausal, folder: Path, dtype: torch.dtype) -> None:
    """As `transformers` reads it: safetensors, config.json, tokenizer."""
    architecture = copy.deepcopy(llm.architecture)
    architecture.dtype = dtype
    with torch.device("meta"):
        skeleton = type(llm.model)(architecture)  # the model at hand may still call itself quantised
    state = {name: x.to(dtype) if x.is_floating_point() else x for name, x in llm.model.state_dict().items()}
    skeleton.save_pretrained(folder, state_dict=state, max_shard_size="5GB")
    llm.tokenizer.save_pretrained(folder)


def _probe(scorer: Scorer) -> Batch:
    """An image of coarse noise with two regions, every question about them answered."""
    draw = torch.Generator().manual_seed(0)
    side = scorer.preprocess.size
    coarse = torch.rand(1, 3, 8, 8, generator=draw) * 255
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")[0].to(torch.uint8)
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    masks[0, : side // 2, : side // 2] = True
    masks[1, side // 4 :, side // 3 :] = True
    shown = stack([prepare_image(image, scorer.preprocess)], [prepare_regions(image, masks, scorer.preprocess, scorer.crop_size)])
    known = torch.tensor([[0.3, 0.8]])
    labels = Labels(known, known / 5, 1 - known, known / 5, (((("blur", "minor"),), (("noise", "severe"),)),))
    return Batch(shown.images, shown.regions, labels, (("a", "b"),))


@torch.no_grad()
def _answers(scorer: Scorer, batch: Batch) -> tuple[Tensor, list[RoiScore]]:
    """Logits (N, V) of the tokens taught, and every answer to every question, region by region."""
    seen: list[Tensor] = []
    hook = _language_model(scorer)[1].register_forward_hook(lambda module, inputs, out: seen.append(out.flatten(0, -2).cpu()))
    try:
        scorer.loss(batch)
    finally:
        hook.remove()
    scored = scorer.score_batch(batch, scorer.tasks)
    return torch.cat(seen), [region[task] for image in scored for region in image for task in scorer.tasks]
