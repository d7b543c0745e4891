"""A synthetic released checkpoint: its 742 names, precisions and files, at a width that fits a test; and the real shapes as a table."""

import json
from functools import cache
from pathlib import Path

import sentencepiece
import torch
import yaml

from components.prompts import TOKENIZER_CORPUS
from components.released.seagull import is_dead, to_ours
from components.scorers.base import SCORERS

SHARDS = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
INDEX = "pytorch_model.bin.index.json"
PIECES = 800
NODE = {
    "plugin": "roi_vlm",
    "weights": "models/x/model.safetensors",
    "crop_edges": "released",
    "vision_encoder": {
        "plugin": "clip_convnext",
        "image_size": 64,
        "depths": [3, 3, 27, 3],
        "dims": [4, 8, 12, 16],
        "weights": "models/x/vision_encoder.safetensors",
    },
    "region_extractor": {"plugin": "mfe", "embed": 16, "heads": 2, "mlp": 24, "crop_size": 64, "local_hidden": 8},
    "llm": {
        "plugin": "hf_causal",
        "source": "models/x/llm",
        "config": {
            "model_type": "llama",
            "vocab_size": PIECES + 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
        "adaptation": "frozen",
    },
}


@cache
def table():
    """name -> (shape, dtype) of the released SEAGULL-7B, to the byte (reference facts 1.7)."""
    lines = (Path(__file__).parent / "seagull_7b_tensors.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    return {name: (tuple(int(side) for side in shape.split("x")), getattr(torch, dtype)) for name, shape, dtype in rows}


def skeleton(node):
    """The scorer on the meta device, without a tokenizer of its own."""
    with torch.device("meta"):
        return SCORERS.build({**node, "llm": {**node["llm"], "adaptation": "full", "tokenizer": "project"}})


def tensors(node=NODE):
    """All released names with random values, in the shapes of `node`; parts that `node` does not have are small."""
    ours = {name: tuple(x.shape) for name, x in skeleton(node).state_dict().items()}
    generator = torch.Generator().manual_seed(7)
    out = {}
    for name, (_, dtype) in table().items():
        shape = (3,) if is_dead(name) else ours[to_ours(name)]
        x = torch.randn(shape, generator=generator) * 0.05
        scales = len(shape) == 1 and name.endswith((".weight", ".gamma"))  # of norms and branches
        out[name] = (x + 1 if scales else x).to(dtype)
    return out


def write_pieces(path, **changes):
    """A small SentencePiece model with LLaMA's settings."""
    options = {"vocab_size": PIECES, "model_type": "bpe", "byte_fallback": True, "split_digits": True, "character_coverage": 1.0}
    options |= {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1, "normalization_rule_name": "identity"}
    options |= {"add_dummy_prefix": True, "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True}
    options |= changes
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TOKENIZER_CORPUS), model_writer=file, minloglevel=2, num_threads=1, hard_vocab_limit=False, **options
        )


def write_index(folder, place, total):
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": place}))


def write_checkpoint(folder, state=None, node=NODE):
    """The released folder: two pickled shards, an index, config.json, the tokenizer. Returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    state = tensors(node) if state is None else state
    names = list(state)
    place = {name: SHARDS[i >= len(names) * 2 // 3] for i, name in enumerate(names)}
    for shard in SHARDS:
        torch.save({name: state[name].clone() for name in names if place[name] == shard}, folder / shard)
    write_index(folder, place, sum(x.numel() * x.element_size() for x in state.values()))
    told = {k: v for k, v in node["llm"]["config"].items() if k != "model_type"}
    (folder / "config.json").write_text(json.dumps({"architectures": ["OspreyLlamaForCausalLM"], "model_type": "seagull", **told}))
    (folder / "generation_config.json").write_text('{"max_length": 4096}')
    write_pieces(folder / "tokenizer.model")
    (folder / "added_tokens.json").write_text(json.dumps({"<global>": PIECES, "<local>": PIECES + 1}))
    return state


def write_model_file(path, node=NODE):
    path.write_text(yaml.safe_dump({"model": node}))
    return path
