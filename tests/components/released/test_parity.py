"""The released model spelled out a second time, from the written facts and the released names alone, against the imported one.

Sections of the reference facts stand beside each step. Nothing of ours takes part in the second telling: PIL, numpy, timm, transformers
and SentencePiece do.
"""

import dataclasses

import numpy as np
import pytest
import sentencepiece
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

import prepare
from components.preprocess import prepare_image, prepare_regions, stack
from inference.load import load
from tests.components.released.official import NODE, write_checkpoint, write_model_file

SIDE = 64  # stands for the released 512
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BEFORE = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. USER: "
)
BETWEEN = (
    "\nThis provides an overview of the image.\n Please answer the following questions about the provided region. "
    "Note: Distortions include: blur, colorfulness, compression, contrast exposure and noise.\n Here is the region "
)
AFTER = {
    "quality": ". Analyze the quality of this region. ASSISTANT:",
    "distortion": ". Provide the distortion type of this region. ASSISTANT:",
    "importance": ". Consider the impact of this region on the overall image quality. "
    "Analyze its importance to the overall image quality. ASSISTANT:",
}
STEMS = {"quality": " The quality is", "importance": " This region is"}
WORDS = {  # best first, as facts 1.13 lists the weights 1, .75, .5, .25, 0
    "quality": ("excellent", "good", "fair", "poor", "bad"),
    "importance": ("essential", "important", "normal", "minor", "unimportant"),
}


class Released:
    """The released pipeline on a state of released names, in single precision."""

    def __init__(self, state, pieces):
        self.state = {k: v.float() for k, v in state.items()}
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
        vision = NODE["vision_encoder"]
        self.trunk = timm.create_model("convnext_large", depths=vision["depths"], dims=vision["dims"], num_classes=0).eval()
        start = "model.vision_tower.vision_tower.visual.trunk."
        trunk = {k.removeprefix(start): v for k, v in self.state.items() if k.startswith(start) and ".head." not in k}
        left = self.trunk.load_state_dict(trunk, strict=False)
        assert all(k.startswith("head.") for k in left.missing_keys)
        assert left.unexpected_keys == []
        options = {k: v for k, v in NODE["llm"]["config"].items() if k != "model_type"}
        self.llm = LlamaForCausalLM(LlamaConfig(**options)).eval()
        start = ("lm_head.", "model.embed_tokens.", "model.layers.", "model.norm.")
        self.llm.load_state_dict({k: v for k, v in self.state.items() if k.startswith(start) and not k.endswith("inv_freq")})

    def pixels(self, image):
        """Facts 1.10: (H, W, 3) uint8 -> (3, S, S)."""
        height, width = image.shape[:2]
        short, long = min(height, width), max(height, width)
        size = (int(SIDE * long / short), SIDE) if width > height else (SIDE, int(SIDE * long / short))
        resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) if short != SIDE else image
        unit = (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
        normal = ((unit - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)
        return F.interpolate(torch.from_numpy(normal)[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0]

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def attention(self, name, query, key, heads):
        """softmax(Q K^T / sqrt(d)) V, head by head."""
        q, k, v = (self.linear(f"{name}.{r}_proj", x) for r, x in (("q", query), ("k", key), ("v", key)))
        out = []
        for part in range(heads):
            columns = slice(part * q.shape[-1] // heads, (part + 1) * q.shape[-1] // heads)
            weights = (q[:, columns] @ k[:, columns].T / (q.shape[-1] // heads) ** 0.5).softmax(-1)
            out.append(weights @ v[:, columns])
        return self.linear(f"{name}.out_proj", torch.cat(out, -1))

    def norm(self, name, x):
        weight = self.state[f"{name}.weight"]
        return F.layer_norm(x, weight.shape, weight, self.state[f"{name}.bias"], 1e-5)

    def extracted(self, maps, mask, crop):
        """Facts 1.6, one region: maps (C, h, w) each, mask (S, S), crop (3, S, S) -> global and local, (D,) each."""
        heads, m = NODE["region_extractor"]["heads"], "mask_extractor"
        alone, context = [], []
        for level, x in zip((2, 3, 4, 5), maps, strict=True):
            cells = F.interpolate(mask[None, None], size=x.shape[-2:], mode="bilinear", align_corners=False)[0, 0] > 0
            pooled = (x * cells).flatten(1).sum(1) / (cells.sum() + 1e-8)
            basic = self.linear(f"{m}.res{level}", pooled[None])  # (1, E)
            channels = self.linear(f"{m}.g_res{level}", x.flatten(1))  # (C, E)
            y = self.norm(f"{m}.cross_att_res.norm1", basic + self.attention(f"{m}.cross_att_res.self_attn", basic, basic, heads))
            y = self.norm(f"{m}.cross_att_res.norm2", y + self.attention(f"{m}.cross_att_res.cross_attn", y, channels, heads))
            y = y + self.linear(f"{m}.cross_att_res.mlp.lin2", self.linear(f"{m}.cross_att_res.mlp.lin1", y).relu())
            alone.append(basic)
            context.append(y)
        joined = torch.cat([self.linear(f"{m}.cross_feat_linear", sum(context)), self.linear(f"{m}.feat_linear", sum(alone))], -1)
        s = self.state
        x = F.avg_pool2d(F.gelu(F.conv2d(crop[None], s[f"{m}.global_vit.0.weight"], s[f"{m}.global_vit.0.bias"])), 4)
        x = F.avg_pool2d(F.gelu(F.conv2d(x, s[f"{m}.global_vit.3.weight"], s[f"{m}.global_vit.3.bias"])), 4)
        x = self.attention(f"{m}.sa", x.reshape(1, -1), x.reshape(1, -1), heads)
        x = self.linear(f"{m}.mlp.layers.1", self.linear(f"{m}.mlp.layers.0", x).relu()).relu()
        return self.linear(f"{m}.final_mlp", joined)[0], self.linear(f"{m}.mlp.layers.2", x)[0]

    def tokens(self, image, mask):
        """Facts 1.2, 1.3, 1.10: -> image tokens (N, D), region tokens (2, D)."""
        maps, h = [], self.trunk.stem(self.pixels(image)[None])
        for stage in self.trunk.stages:
            h = stage(h)
            maps.append(h[0])
        cells = maps[2].flatten(1).T  # row by row
        image_tokens = self.linear("model.mm_projector.2", F.gelu(self.linear("model.mm_projector.0", cells)))
        rows, columns = np.nonzero(mask)
        crop = self.pixels(image[rows.min() : rows.max(), columns.min() : columns.max()])
        near = [np.minimum(np.arange(SIDE) * side // SIDE, side - 1) for side in mask.shape]
        small = torch.from_numpy(mask[near[0][:, None], near[1]].astype(np.float32))
        return image_tokens, torch.stack(self.extracted(maps, small, crop))

    def prompt(self, image, mask, task, said=""):
        """Facts 1.5, 1.8, 1.9: embeddings of the whole sequence, (L, D)."""
        image_tokens, region = self.tokens(image, mask)

        def words(text, first=()):
            return self.llm.get_input_embeddings()(torch.tensor([*first, *self.pieces.encode(text)]))

        return torch.cat([words(BEFORE, [1]), image_tokens, words(BETWEEN), region, words(AFTER[task] + said)])

    def value(self, image, mask, task):
        """Facts 1.13."""
        logits = self.llm(inputs_embeds=self.prompt(image, mask, task, STEMS[task])[None]).logits[0, -1]
        stem = self.pieces.encode(AFTER[task] + STEMS[task])
        ids = [self.pieces.encode(f"{AFTER[task]}{STEMS[task]} {word}")[len(stem)] for word in WORDS[task]]
        return float(logits[ids].softmax(-1) @ torch.tensor([1, 0.75, 0.5, 0.25, 0]))

    def answer(self, image, mask, task, limit):
        """Facts 1.12: greedy, read anew for every token."""
        sequence, ids = self.prompt(image, mask, task), []
        while len(ids) < limit:
            logits = self.llm(inputs_embeds=sequence[None]).logits[0, -1]
            token = int(logits[: self.pieces.vocab_size()].argmax())
            if token == 2:
                break
            ids.append(token)
            sequence = torch.cat([sequence, self.llm.get_input_embeddings()(torch.tensor([token]))])
        return ids


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The second telling and the imported model. Weights are scaled up, so that what is read differs from region to region."""
    folder = tmp_path_factory.mktemp("parity")
    state = write_checkpoint(folder / "released")
    for name, x in state.items():
        if x.ndim > 1 and not name.endswith("conv_dw.weight"):
            x.mul_(40 if ".global_vit." in name else 4)
    write_checkpoint(folder / "released", state)
    write_model_file(folder / "small.yaml")
    prepare.main(["import-seagull", str(folder / "released"), str(folder / "ours"), "--model", str(folder / "small.yaml")])
    return Released(state, folder / "released" / "tokenizer.model"), load(folder / "ours")


@pytest.fixture(scope="module")
def shown():
    """An image, and regions that differ: a box, a blob, a region that vanishes at coarse levels, nearly everything."""
    rng = np.random.default_rng(0)
    image = np.asarray(Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((150, 110), Image.Resampling.BICUBIC))
    masks = np.zeros((4, 110, 150), dtype=bool)
    masks[0, 10:60, 20:90] = True
    masks[1] = (np.add.outer((np.arange(110) - 70) ** 2, (np.arange(150) - 100) ** 2)) < 900
    masks[2, 3:6, 5:9] = True
    masks[3, 1:] = True
    return image, masks


@torch.no_grad()
def test_tokens_are_those_of_the_released_pipeline(both, shown):
    released, ours = both
    image, masks = shown
    pixels, regions = torch.from_numpy(image.copy()).permute(2, 0, 1), torch.from_numpy(masks)
    batch = stack([prepare_image(pixels, ours.preprocess)], [prepare_regions(pixels, regions, ours.preprocess, ours.crop_size)])
    pyramid = ours.see(batch.images)
    expected = [released.tokens(image, mask) for mask in masks]
    torch.testing.assert_close(ours.projector(pyramid)[0], expected[0][0], atol=1e-4, rtol=1e-4)
    found = ours.region_extractor(ours.region_extractor.prepare(pyramid), batch.regions)[0]  # (R, 2, D)
    local = found[:, 1]
    torch.testing.assert_close(found, torch.stack([tokens for _, tokens in expected]), atol=1e-4, rtol=1e-4)
    whole = dataclasses.replace(ours.preprocess, crop_edges="inclusive")
    other = ours.region_extractor.local_token(prepare_regions(pixels, regions, whole, ours.crop_size).crops[None])[0]
    assert (local - other).abs().max() > 1e-2  # a crop with its last row and column would be seen


@torch.no_grad()
def test_scores_are_those_of_the_released_pipeline(both, shown):
    released, ours = both
    image, masks = shown
    scores = ours.score(torch.from_numpy(image.copy()).permute(2, 0, 1), torch.from_numpy(masks), ["quality", "importance"])
    for task in ("quality", "importance"):
        expected = [released.value(image, mask, task) for mask in masks]
        assert [region[task].value for region in scores] == pytest.approx(expected, abs=5e-5)  # 1.4e-5 measured, of 32 layers
        assert max(expected) - min(expected) > 1e-3  # else the test would see nothing


@torch.no_grad()
def test_words_are_those_of_the_released_pipeline(both, shown):
    released, ours = both
    image, masks = shown
    ours.readouts["distortion"].max_tokens, ours.readouts["distortion"].grammar = 12, False
    scores = ours.score(torch.from_numpy(image.copy()).permute(2, 0, 1), torch.from_numpy(masks), ["distortion"])
    for region, mask in zip(scores, masks, strict=True):
        ids = released.answer(image, mask, "distortion", 12)
        assert region["distortion"].text == released.pieces.decode(ids).strip()
