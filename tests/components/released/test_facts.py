"""The published numbers of SEAGULL-7B: token ids, places, lengths, preprocessing, level words (reference facts 1.2 to 1.13)."""

import os
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from transformers import AutoTokenizer, CLIPImageProcessorPil

from components.llm_adapters.base import LLM_ADAPTERS
from components.preprocess import Preprocess, prepare_image, prepare_masks, prepare_regions
from components.prompts import IMAGE, LEVELS, REGION, Dialogue, released_segments
from components.readouts.base import READOUTS, Heard, Target
from components.registry import ConfigError
from components.released.shards import CheckpointError
from components.released.tokenizer import hostile_texts, write_tokenizer
from components.scorers.base import SCORERS
from components.splice import Branch, expand, pack, splice
from components.tasks import TASKS
from components.vision_encoders.base import VISION_ENCODERS
from configs.schema import load_model
from tests.components.released.official import PIECES, skeleton, write_pieces

PREFIX = """1 319 13563 1546 263 12758 5199 322 385 23116 21082 20255 29889 450 20255 4076 8444 29892 13173 29892 322 1248 568 6089
304 278 5199 29915 29879 5155 29889 3148 1001 29901 29871 -200 29871 13 4013 8128 385 975 1493 310 278 1967 29889 13
3529 1234 278 1494 5155 1048 278 4944 5120 29889 3940 29901 6652 441 1080 3160 29901 1999 332 29892 2927 1319 2264 29892
24221 29892 12814 14060 545 322 11462 29889 13 2266 338 278 5120 29871 32000 32001"""
PREFIX = [int(i) for i in PREFIX.split()]
QUESTIONS = {
    "quality": "869 11597 29891 911 278 11029 310 445 5120 29889 319 1799 9047 13566 29901",
    "distortion": "869 9133 680 278 1320 441 291 1134 310 445 5120 29889 319 1799 9047 13566 29901",
    "importance": "869 10056 278 10879 310 445 5120 373 278 12463 1967 11029 29889 "
    "11597 29891 911 967 13500 304 278 12463 1967 11029 29889 319 1799 9047 13566 29901",
}
QUESTIONS = {task: [int(i) for i in ids.split()] for task, ids in QUESTIONS.items()}
STEMS = {"quality": [450, 11029, 338], "importance": [910, 5120, 338]}
WORDS = {
    "quality": {"excellent": [15129], "good": [1781], "fair": [6534], "poor": [6460], "bad": [4319]},
    "importance": {"essential": [18853], "important": [4100], "normal": [4226], "minor": [9461], "unimportant": [443, 17001]},
}
LLAMA = os.environ.get("SEAGULL_TOKENIZER")  # LLaMA's tokenizer.model, which may not be given away here
GIVEN = pytest.mark.skipif(not LLAMA, reason="SEAGULL_TOKENIZER does not name LLaMA's tokenizer.model")


def golden_texts():
    """Every text that the conversation asks a tokenizer for, with the published ids."""
    known = {}
    image = PREFIX.index(-200)
    for task in TASKS:
        before, _, between, _, after = released_segments(task)
        known |= {before: PREFIX[1:image], between: PREFIX[image + 1 : -2], after: QUESTIONS[task]}
        if task in STEMS:
            stem = QUESTIONS[task] + STEMS[task]
            said = {"quality": "The quality is", "importance": "This region is"}[task]
            tail = {"quality": ".", "importance": " to the overall quality."}[task]
            known[f"{after} {said}"] = stem
            known |= {f"{after} {said} {word}{tail}": [*stem, *ids, 29889] for word, ids in WORDS[task].items()}
    return known


class Published:
    """A tokenizer that knows the published texts and no others."""

    bos_token_id, eos_token_id, unk_token_id, pad_token_id = 1, 2, 0, 0
    added_tokens_decoder = {i: AddedToken(str(i), special=True) for i in (0, 1, 2, 32000, 32001)}  # noqa: RUF012

    def __init__(self):
        self.known = golden_texts()

    def __len__(self):
        return 32002

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": self.known[text]}


def test_the_conversation_asks_for_the_published_texts_in_their_order():
    dialogue = Dialogue(Published(), "seagull_v1")
    assert [{IMAGE: -200}.get(i, i) for i in dialogue.prefix] == PREFIX[:-2]
    assert len(PREFIX) == 88
    for task, length in (("quality", 15), ("distortion", 17), ("importance", 29)):
        assert dialogue.questions[task] == (REGION, *QUESTIONS[task])
        assert len(QUESTIONS[task]) == length
    assert dialogue.unsayable(32002) == (32000, 32001)


@pytest.mark.parametrize("task", STEMS)
def test_level_words_are_found_in_context(task):
    levels = Dialogue(Published(), "seagull_v1").levels(task)
    assert list(levels.stem) == STEMS[task]
    assert list(levels.ids) == [WORDS[task][word][0] for word in LEVELS[task]]


@pytest.mark.parametrize(("task", "length"), [("quality", 1126), ("distortion", 1128), ("importance", 1140)])
def test_slots_and_lengths(task, length):
    """Facts 1.9: image tokens from 35 on, <global> at 1109, <local> at 1110."""
    dialogue = Dialogue(Published(), "seagull_v1")
    answer = READOUTS.build({"plugin": "text", "grammar": False}, dialogue)
    assert answer.tasks == TASKS
    branch = Branch(0, dialogue.questions[task], Target((7,)))
    packed = pack(dialogue.prefix, [[branch]], 1024, 2)
    assert packed.ids.shape == (1, length)
    assert packed.positions[0].tolist() == list(range(length))
    assert packed.image_slots.tolist() == list(range(35, 35 + 1024))
    assert packed.region_slots.tolist() == [[0, 1109, 0, 0], [0, 1110, 0, 1]]
    assert len(expand(dialogue.prefix, 1024, 2)) == 1109
    image, region = torch.full((1, 1024, 1), 2.0), torch.tensor([[[[3.0], [4.0]]]])
    row = splice(torch.ones(1, length, 1), packed, image, region)[0, :, 0]
    assert row[34:1111].tolist() == [1.0] + [2.0] * 1024 + [1.0] * 50 + [3.0, 4.0]
    assert row[1111:].tolist() == [1.0] * (length - 1111)


def test_two_questions_behind_one_prefix_have_its_positions():
    dialogue = Dialogue(Published(), "seagull_v1")
    said = Target((7,))
    packed = pack(dialogue.prefix, [[Branch(r, dialogue.questions["quality"], said) for r in (0, 1)]], 1024, 2)
    assert packed.positions[0, 1109:].tolist() == list(range(1109, 1126)) * 2


def test_a_score_is_the_published_expectation():
    """Facts 1.13: a softmax over the five words' logits, whatever the others are, against 1, 3/4, 1/2, 1/4, 0 from the best."""
    readout = READOUTS.build({"plugin": "levels"}, Dialogue(Published(), "seagull_v1"))
    best_first = ("excellent", "good", "fair", "poor", "bad")
    given = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.7])
    talk = readout.talk("quality")
    said = next(talk)
    assert said.ids == tuple(STEMS["quality"])
    logits = dict(zip((WORDS["quality"][word][0] for word in best_first), given.tolist(), strict=True))
    with pytest.raises(StopIteration) as end:
        talk.send(Heard(0, tuple(logits[i] for i in said.among)))
    score = end.value.value
    assert score.value == pytest.approx(float(given.softmax(0) @ torch.tensor([1, 0.75, 0.5, 0.25, 0])), abs=1e-6)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    write_pieces(folder / "tokenizer.model")
    (folder / "added_tokens.json").write_text(f'{{"<local>": {PIECES + 1}, "<global>": {PIECES}}}')
    write_tokenizer(folder / "tokenizer.model", folder / "fast")
    raw = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return raw, AutoTokenizer.from_pretrained(folder / "fast")


def test_the_written_tokenizer_is_sentencepiece(pieces):
    raw, fast = pieces
    assert fast.is_fast
    texts = list(hostile_texts(seed=5))
    assert [fast(t, add_special_tokens=False)["input_ids"] for t in texts] == [raw.encode(t) for t in texts]
    assert [fast.decode(raw.encode(t)) for t in texts] == [raw.decode(raw.encode(t)) for t in texts]
    assert (fast.bos_token_id, fast.eos_token_id, fast.unk_token_id, fast.pad_token_id) == (1, 2, 0, 0)


def test_added_words_keep_their_places_and_are_not_read_out(pieces):
    _, fast = pieces
    assert fast.convert_tokens_to_ids(["<global>", "<local>"]) == [PIECES, PIECES + 1]
    assert len(fast) == PIECES + 2
    assert fast.decode([PIECES, PIECES + 1], skip_special_tokens=True) == ""
    assert Dialogue(fast).unsayable(PIECES + 2) == (PIECES, PIECES + 1)


@pytest.mark.parametrize("task", TASKS)
def test_each_text_is_tokenised_by_itself(pieces, task):
    """Facts 1.5: every text, also one that follows a slot, begins with "▁"; the three are concatenated."""
    raw, fast = pieces
    before, _, between, _, after = released_segments(task)
    dialogue = Dialogue(fast, "seagull_v1")
    assert dialogue.prefix == (1, *raw.encode(before), IMAGE, *raw.encode(between))
    assert dialogue.questions[task] == (REGION, *raw.encode(after))
    assert raw.encode(after, out_type=str)[0].startswith("▁")


@pytest.mark.parametrize(
    ("text", "told"), [(f'{{"<global>": {PIECES + 1}}}', f"the id {PIECES + 1}, .* it gets {PIECES}"), ("{", "is not JSON")]
)
def test_added_words_that_would_shift_are_refused(tmp_path, text, told):
    write_pieces(tmp_path / "tokenizer.model")
    (tmp_path / "added_tokens.json").write_text(text)
    with pytest.raises(CheckpointError, match=told):
        write_tokenizer(tmp_path / "tokenizer.model", tmp_path / "fast")


def test_what_is_no_such_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match="is missing: fetch all files of the checkpoint, the tokenizer too"):
        write_tokenizer(tmp_path / "tokenizer.model", tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\x08" * 40)
    with pytest.raises(CheckpointError, match="is not a SentencePiece model"):
        write_tokenizer(tmp_path / "tokenizer.model", tmp_path)


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"model_type": "unigram"}, "a BPE model"),
        ({"byte_fallback": False}, "byte fallback"),
        ({"add_dummy_prefix": False}, "a space before the first word"),
        ({"normalization_rule_name": "nmt_nfkc"}, "text taken as it is"),
        ({"user_defined_symbols": ["<x>"]}, "no symbols of its own kind"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(tmp_path, changes, lacking):
    write_pieces(tmp_path / "tokenizer.model", **changes)
    with pytest.raises(CheckpointError, match=f"is no tokenizer of LLaMA's kind.*it lacks: .*{lacking}"):
        write_tokenizer(tmp_path / "tokenizer.model", tmp_path / "fast")


@GIVEN
def test_golden_ids_of_the_released_tokenizer(tmp_path):
    write_tokenizer(Path(LLAMA), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in golden_texts().items():
        if not text.endswith(("bad.", "poor.", "fair.", "good.", "excellent.", "quality.")):
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    dialogue = Dialogue(tokenizer, "seagull_v1")
    assert [{IMAGE: -200}.get(i, i) for i in dialogue.prefix] == PREFIX[:-2]
    for task in TASKS:
        assert dialogue.questions[task] == (REGION, *QUESTIONS[task])
    for task, words in WORDS.items():
        levels = dialogue.levels(task)
        assert list(levels.stem) == STEMS[task]
        assert list(levels.ids) == [words[word][0] for word in LEVELS[task]]


CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}


@pytest.mark.parametrize("size", [(600, 800), (800, 600), (512, 512), (513, 700), (480, 640), (100, 1000), (37, 41), (3, 40)])
def test_preprocessing_is_that_of_the_clip_processor_and_a_squash(size):
    """Facts 1.10, steps 1 to 5, at the published size, bit by bit."""
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    if size[1] > 16 * size[0]:
        pytest.fail("beyond this the two ways part by design: see SLENDER")
    released = CLIPImageProcessorPil(size={"shortest_edge": 512}, do_center_crop=False, resample=3, **CLIP)
    (pixels,) = released(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    expected = F.interpolate(pixels[None], size=(512, 512), mode="bilinear", align_corners=False)[0]
    preprocess = Preprocess(512, tuple(CLIP["image_mean"]), tuple(CLIP["image_std"]))
    assert torch.equal(prepare_image(torch.from_numpy(image).permute(2, 0, 1), preprocess), expected)


def test_the_published_model_is_fed_so():
    model = skeleton(load_model("model/seagull_7b"))
    assert model.preprocess.told() == {
        "size": 512,
        "mean": tuple(CLIP["image_mean"]),
        "std": tuple(CLIP["image_std"]),
        "interpolation": "bicubic",
        "crop_edges": "released",
    }
    assert model.crop_size == 512
    assert model.vision_encoder.channels == (192, 384, 768, 1536)
    assert model.vision_encoder.sizes == ((128, 128), (64, 64), (32, 32), (16, 16))
    assert model.vision_encoder.sizes[model.projector.level] == (32, 32)
    assert model.region_extractor.tokens == 2


@pytest.mark.parametrize(("height", "width"), [(300, 400), (512, 512), (700, 511), (1, 1), (3, 900)])
def test_masks_take_the_nearest_pixel(height, width):
    """Facts 1.10: src = min(floor(dst * src_size / 512), src_size - 1), in OpenCV's double precision."""
    masks = torch.rand(2, height, width, generator=torch.Generator().manual_seed(0)) > 0.5
    rows, columns = (np.minimum(np.floor(np.arange(512) * (side / 512)).astype(int), side - 1) for side in (height, width))
    assert torch.equal(prepare_masks(masks, 512), masks[:, rows[:, None], columns])


@pytest.mark.parametrize(("height", "width", "cut"), [(30, 40, (29, 39)), (1, 9, (1, 8)), (9, 1, (8, 1)), (1, 1, (1, 1)), (4, 5, (3, 4))])
def test_crops_lack_their_last_row_and_column(height, width, cut):
    """Facts 1.10; where the released code fails (1 pixel) or misreads (3 pixels high), the region's own pixels are taken."""
    image = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (3, 60, 70), dtype=np.uint8))
    masks = torch.zeros(1, 60, 70, dtype=torch.bool)
    masks[0, 11 : 11 + height, 13 : 13 + width] = True
    plain = {"mean": tuple(CLIP["image_mean"]), "std": tuple(CLIP["image_std"])}
    for edges, (h, w) in (("released", cut), ("inclusive", (height, width))):
        preprocess = Preprocess(64, **plain, crop_edges=edges)
        regions = prepare_regions(image, masks, preprocess, 64)
        assert torch.equal(regions.crops[0], prepare_image(image[:, 11 : 11 + h, 13 : 13 + w], preprocess))
        assert regions.boxes[0].tolist() == pytest.approx([13 / 70, 11 / 60, width / 70, height / 60])


def test_crop_edges_are_one_of_two():
    with pytest.raises(ConfigError, match=r"crop_edges: got 'exclusive', expected .*inclusive.*released"):
        SCORERS.part({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny(), "crop_edges": "exclusive"})


def test_the_trunk_is_the_published_one():
    """Facts 1.2: norms with an epsilon of 1e-6, exact GELU, no norm on the stages' outputs."""
    with torch.device("meta"):
        encoder = VISION_ENCODERS.build({"plugin": "clip_convnext"})
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert len(norms) == 1 + 3 + 36
    assert {m.eps for m in norms} == {1e-6}
    gelus = [m for m in encoder.modules() if "GELU" in type(m).__name__]
    assert len(gelus) == 36
    assert all(getattr(m, "approximate", "none") == "none" for m in gelus)
    assert [len(stage.blocks) for name, stage in encoder.trunk.named_children() if name.startswith("stages")] == [3, 3, 27, 3]


def test_the_extractor_has_the_published_sizes():
    """Facts 1.6, the split of its parameters."""
    mfe = skeleton(load_model("model/seagull_7b")).region_extractor
    g, local = mfe.global_token, mfe.local_token

    def count(*modules):
        return sum(p.numel() for m in modules for p in m.parameters())

    assert count(g.region_out) == count(g.context_out) == 4_198_400
    assert count(g.fuse) == 33_558_528
    assert count(g.region_in) == 2_953_216
    assert count(g.channel_in) == 22_286_336
    assert count(g.block) == 10_499_584
    assert (count(local.shrink), count(local.attention), count(local.mlp)) == (26, 4_198_400, 2_888_704)


def test_the_language_model_is_the_published_one():
    node = load_model("model/seagull_7b")["llm"]
    with torch.device("meta"):
        llm = LLM_ADAPTERS.build({**node, "tokenizer": "project"})
    a = llm.architecture
    assert (a.hidden_size, a.num_hidden_layers, a.num_attention_heads, a.num_key_value_heads) == (4096, 32, 32, 32)
    assert (a.intermediate_size, a.rms_norm_eps, a.max_position_embeddings, a.vocab_size) == (11008, 1e-5, 4096, 32002)
    assert (a.hidden_act, a.tie_word_embeddings, a.rope_parameters["rope_theta"]) == ("silu", False, 10000.0)
