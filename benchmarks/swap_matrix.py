"""Every vision encoder with every language model, adapted in every way: each trains two steps and scores.

    python benchmarks/swap_matrix.py                 all of it, and writes docs/swap_matrix.md
    python benchmarks/swap_matrix.py --third 0       a third of it, chosen by a seed; writes nothing

The parts are real architectures at tiny sizes with random weights, so it says whether parts fit, not how well they see. Encoders are those
of the registry and the families of timm below; language models are the adapters of the registry, `hf_causal` with the families below. What
an adapter does not offer is no cell: the page lists it with the reason. A cell counts where the losses of both steps are finite, every part
that should learn has moved, the language model's frozen weights have not, and every region has a score in [0, 1]. What is refused is asked
for, too, and the reason is the error's own.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.batch import Batch, Labels
from components.llm_adapters.base import LLM_ADAPTERS, LLMAdapter
from components.llm_adapters.hf_causal import Adaptation
from components.preprocess import prepare_image, prepare_regions, stack
from components.region_extractors.base import REGION_EXTRACTORS
from components.scorers.roi_vlm import RoiVLM
from components.vision_encoders.base import VISION_ENCODERS, VisionEncoder

OUT = Path(__file__).resolve().parents[1] / "docs" / "swap_matrix.md"
VIT = {"embed_dim": 32, "depth": 4, "num_heads": 2}
TIMM: dict[str, dict[str, Any]] = {
    "ConvNeXt": {"name": "convnext_atto", "model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}},
    "ResNet": {"name": "resnet10t", "model_args": {"channels": [8, 16, 24, 32]}},
    "Swin": {
        "name": "swin_tiny_patch4_window7_224",
        "model_args": {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2},
    },
    "MobileNet v3": {"name": "mobilenetv3_small_050"},
    "DINOv2": {"name": "vit_small_patch14_dinov2", "image_size": 56, "model_args": VIT},
    "SigLIP": {"name": "vit_base_patch16_siglip_224", "model_args": VIT},
    "CLIP": {"name": "vit_base_patch32_clip_224", "model_args": VIT},
}
SIZES = {
    "vocab_size": 768,
    "hidden_size": 32,
    "intermediate_size": 64,  # bitsandbytes packs weights in blocks of 64
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"model_type": "llama"},
    "Qwen2": {"model_type": "qwen2"},
    "Qwen3": {"model_type": "qwen3", "head_dim": 8},
    "Mistral": {"model_type": "mistral", "sliding_window": 8},
    "Phi-3": {"model_type": "phi3"},
    "Gemma": {"model_type": "gemma", "head_dim": 8},
}
RECURRENT = {
    **{k: v for k, v in SIZES.items() if not k.endswith("token_id")},
    "model_type": "qwen3_next",
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "num_experts": 0,
}
ADAPTATIONS: tuple[str, ...] = typing.get_args(Adaptation)
ANY = "hf_causal"  # the adapter of the families
REFUSED: dict[str, dict[str, Any]] = {
    "positions from columns (ALiBi), packed": {
        "llm": {
            "config": {
                "model_type": "falcon",
                "vocab_size": 768,
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "alibi": True,
            }
        }
    },
    "no fused attention in transformers, with the default attention": {
        "llm": {"config": {"model_type": "bloom", "vocab_size": 768, "hidden_size": 32, "n_layer": 2, "n_head": 4}}
    },
    "recurrent layers, packed": {"llm": {"config": RECURRENT}},
    "full training of quantised weights": {"llm": {"quantization": "nf4", "adaptation": "full"}},
    "QLoRA on int8": {"llm": {"quantization": "int8", "adaptation": "qlora"}},
    "timm's weights under local statistics": {
        "vision_encoder": {"plugin": "local_statistics", "name": "resnet10t", "image_size": 64, "weights": "pretrained"}
    },
    "an image size that patches do not divide": {
        "vision_encoder": {"plugin": "timm_pyramid", "name": "vit_small_patch14_dinov2", "image_size": 64}
    },
}


def encoders() -> dict[str, dict[str, Any]]:
    """Name -> node, of the families of timm and of every other plugin."""
    nodes = {name: {"plugin": "timm_pyramid", "image_size": 64, **options} for name, options in TIMM.items()}
    others = [name for name in VISION_ENCODERS.names() if name != "timm_pyramid"]
    return nodes | {f"`{name}`": {"plugin": name, **VISION_ENCODERS.get(name).tiny()} for name in others}


def llms() -> dict[str, dict[str, Any]]:
    """Name -> node, of the families of transformers and of every other adapter of the registry."""
    nodes = {name: {"plugin": ANY, "config": {**SIZES, **family}, "tokenizer": "project"} for name, family in FAMILIES.items()}
    others = [name for name in LLM_ADAPTERS.names() if name != ANY]
    return nodes | {f"`{name}`": {"plugin": name, **LLM_ADAPTERS.get(name).tiny()} for name in others}


def offered(llm: str) -> tuple[str, ...]:
    """The ways in which a language model can be adapted, as its constructor says; of one without that option, in full."""
    schema = LLM_ADAPTERS.schema(llms()[llm]["plugin"])
    return typing.get_args(schema["adaptation"].annotation) if "adaptation" in schema else ("full",)


def absent() -> dict[tuple[str, str], str]:
    """(language model, adaptation) -> why there is no such pair."""
    return {
        (llm, adaptation): f"its option `adaptation` has {', '.join(offered(llm))}" if len(offered(llm)) > 1 else "it has no such option"
        for llm in llms()
        for adaptation in ADAPTATIONS
        if adaptation not in offered(llm)
    }


def llm_node(llm: str, adaptation: str) -> dict[str, Any]:
    """A language model, adapted in one way."""
    node = llms()[llm]
    options = {"lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0.0, "adaptation": adaptation}
    known = LLM_ADAPTERS.schema(node["plugin"])
    return {**node, **{name: value for name, value in options.items() if name in known}}


def cells() -> list[tuple[str, str, str]]:
    """(encoder, language model, adaptation), all that are offered."""
    ways = [(llm, adaptation) for llm in llms() for adaptation in ADAPTATIONS if adaptation in offered(llm)]
    return [(encoder, *way) for encoder in encoders() for way in ways]


def third(seed: int) -> list[tuple[str, str, str]]:
    """A third of the cells, in order."""
    every = cells()
    return sorted(random.Random(seed).sample(every, len(every) // 3), key=every.index)


class Parts:
    """Makes each part once: cells share them, and each begins with them as they were made, whatever the cells before have trained."""

    def __init__(self) -> None:
        self._encoders: dict[str, VisionEncoder] = {}
        self._llms: dict[tuple[str, str], LLMAdapter] = {}
        self._made: dict[int, list[torch.Tensor]] = {}

    def scorer(self, encoder: str, llm: str, adaptation: str) -> RoiVLM:
        """The composition of a cell."""
        if encoder not in self._encoders:
            self._encoders[encoder] = VISION_ENCODERS.build(encoders()[encoder])
        if (llm, adaptation) not in self._llms:
            self._llms[llm, adaptation] = LLM_ADAPTERS.build(llm_node(llm, adaptation))
        scorer = composed(lambda: self._encoders[encoder], lambda: self._llms[llm, adaptation])
        scorer.load_pretrained()
        for part in (self._encoders[encoder], self._llms[llm, adaptation]):
            self._renew(part)
        return scorer

    @torch.no_grad()
    def _renew(self, part: torch.nn.Module) -> None:
        """Puts back what training moves, as it was when the part was first seen."""
        moving = [*(p for p in part.parameters() if p.requires_grad), *part.buffers()]
        made = self._made.setdefault(id(part), [x.clone() for x in moving])
        for x, first in zip(moving, made, strict=True):
            x.copy_(first)


def composed(encoder: Any, llm: Any) -> RoiVLM:
    """A scorer of two parts, with the region extractor that costs least; weights have not been read."""
    extractor = REGION_EXTRACTORS.part({"plugin": "mask_pool", "embed": 8, "shape_size": 8})
    return RoiVLM(vision_encoder=encoder, region_extractor=extractor, llm=llm, conversation="brief", image_pool=1, image_level=-1)


def batch_of(scorer: RoiVLM) -> Batch:
    """An image with two labelled regions."""
    image = torch.randint(0, 256, (3, 72, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 72, 80, dtype=torch.bool)
    masks[0, 8:40, 16:48] = masks[1, 30:70, 20:76] = True
    batch = stack([prepare_image(image, scorer.preprocess)], [prepare_regions(image, masks, scorer.preprocess, scorer.crop_size)])
    known = torch.tensor([[0.2, 0.9]])
    labels = Labels(known, known / 10, known.flip(1), known / 10, (((("blur", "minor"),), ()),))
    return Batch(batch.images, batch.regions, labels, (("a", "b"),))


def fault(scorer: RoiVLM) -> str:
    """What goes wrong in two steps and a scoring; "" where nothing does."""
    batch = batch_of(scorer)
    trained = {name: p for name, p in scorer.named_parameters() if p.requires_grad}
    frozen = {name: p for name, p in scorer.llm.named_parameters() if not p.requires_grad}
    before = {name: p.detach().clone() for name, p in {**trained, **{f"llm.{n}": p for n, p in frozen.items()}}.items()}
    optimizer = torch.optim.AdamW(trained.values(), 1e-3)
    scorer.train()
    for _ in range(2):
        loss = scorer.loss(batch)["loss"]
        if not torch.isfinite(loss):
            return f"the loss is {float(loss.detach())}"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = dict(scorer.named_parameters())
    for part, module in scorer.parts().items():
        names = [f"{part}.{n}" for n, p in module.named_parameters() if p.requires_grad]
        if names and all(torch.equal(after[n], before[n]) for n in names):
            return f"{part} has learned nothing"
    if any(not torch.equal(after[f"llm.{n}"], before[f"llm.{n}"]) for n in frozen):
        return "frozen weights have moved"
    return unscored(scorer.eval().score_batch(batch, scorer.tasks)[0])


def unscored(regions: list[Any]) -> str:
    """What is missing in the scores of the two regions; "" where nothing is."""
    values = [region[task].value for region in regions for task in ("quality", "importance")]
    good = len(regions) == 2 and all(value is not None and 0 <= value <= 1 for value in values)
    return "" if good and all(region["distortion"].parsed for region in regions) else f"the scores are {values}"


def run(chosen: Iterable[tuple[str, str, str]]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Each cell with what goes wrong in it."""
    torch.manual_seed(0)
    parts = Parts()
    for cell in chosen:
        try:
            yield cell, fault(parts.scorer(*cell))
        except Exception as error:  # a cell of the table, whatever it is
            yield cell, f"{type(error).__name__}: {error}".splitlines()[0]


def refusal(nodes: dict[str, dict[str, Any]]) -> str:
    """The error of a pair that is refused on building, before weights are read. Raises AssertionError where it is not."""
    llm = {**llm_node("Llama", "full"), **nodes.get("llm", {})}
    encoder = nodes.get("vision_encoder", encoders()["ResNet"])
    try:
        composed(lambda: VISION_ENCODERS.build(encoder), lambda: LLM_ADAPTERS.build(llm))
    except ValueError as error:
        return str(error).partition(". Please ")[0]  # what follows is no reason
    raise AssertionError(f"{nodes} is not refused")


def table(found: dict[tuple[str, str, str], str]) -> str:
    """Markdown: encoders down, language models across, in each cell the adaptations that work."""
    columns = llms()
    rows = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for encoder in encoders():
        worked = [[a for a in ADAPTATIONS if found.get((encoder, llm, a)) == ""] for llm in columns]
        rows.append(f"| {encoder} | {' | '.join('all four' if len(w) == len(ADAPTATIONS) else ', '.join(w) or 'none' for w in worked)} |")
    return "\n".join(rows)


def page(found: dict[tuple[str, str, str], str], seconds: float) -> str:
    """The page in the docs."""
    faults = [f"- {' x '.join(cell)}: {told}" for cell, told in found.items() if told]
    missing = [f"- {' x '.join(pair)}: {why}" for pair, why in absent().items()]
    refused = [f'- {name}: "{refusal(nodes)}"' for name, nodes in REFUSED.items()]
    return "\n".join(
        [
            "# What fits together",
            "",
            "Written by `python benchmarks/swap_matrix.py`: every vision encoder with every language model, frozen, trained in full,",
            "through LoRA and through QLoRA. Real architectures at tiny sizes with random weights, on a CPU; each pair trains two steps",
            "and scores an image. In a cell stands what works:",
            f"{len(found) - len(faults)} of {len(found)} do. It took {seconds:.0f} s; the suite runs a third, chosen by a seed.",
            "",
            table(found),
            "",
            "## What does not",
            "",
            *(faults or ["None of the pairs above failed."]),
            "",
            "## What is not offered, and why",
            "",
            *(missing or ["Every adapter of the registry offers all four ways."]),
            "",
            "## What is refused, and why",
            "",
            "On building, before any weight is read, in these words:",
            "",
            *refused,
            "",
            "Region extractor (`mask_pool`), readouts and image sizes are the same in every cell, and each cell begins with its parts as",
            "they were made. The families of `hf_causal` and the nets of timm are a list in the script; the other encoders and language",
            "models are those of the registry.",
            "",
            "What cannot read packed rows can be trained and asked all the same, with `model.packing=none`.",
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """See the module. Returns how many cells failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--third", type=int, metavar="SEED", help="a third of the cells")
    args = parser.parse_args(argv)
    chosen = cells() if args.third is None else third(args.third)
    began = time.perf_counter()
    found = dict(run(tqdm(chosen, unit="cell")))
    for cell, told in found.items():
        if told:
            print(f"{' x '.join(cell)}: {told}")
    if args.third is None:
        OUT.write_text(page(found, time.perf_counter() - began))
    print(f"{sum(not told for told in found.values())} of {len(found)} cells work")
    return sum(bool(told) for told in found.values())


if __name__ == "__main__":
    sys.exit(min(1, main()))
