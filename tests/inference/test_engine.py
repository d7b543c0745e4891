"""The engine: any image, any way to say a region, within a budget, from any thread: always the scorer's own answers."""

import dataclasses
import math
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, Prompt
from components.preprocess import prepare_regions
from components.registry import ConfigError
from components.rle import RegionError
from components.scorers.base import SCORERS, Look
from datamodules.images import ImageError
from inference.engine import Engine, as_image, as_prompt
from inference.load import choose_device
from inference.quality_map import quality_map
from tests.components.scorers.samples import INSTALLED, apart, picture, scene, sensitive

BOX, OTHER = (5, 10, 30, 20), (40, 2, 33, 50)
CLOSE = 1e-5  # of two ways to the same score


def built(name):
    torch.manual_seed(1)
    scorer = SCORERS.build({"plugin": name, **SCORERS.get(name).tiny()})
    scorer.load_pretrained()
    return sensitive(scorer.eval())


@pytest.fixture(scope="module", params=INSTALLED)
def any_scorer(request):
    return built(request.param)


@pytest.fixture(scope="module")
def scorer():
    return built("roi_vlm")


def close(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert one.keys() == other.keys()
        for task in one:
            a, b = one[task], other[task]
            assert (a.text, a.distortions, a.parsed) == (b.text, b.distortions, b.parsed)
            for x, y in ((a.value, b.value), (a.std, b.std)):
                assert x is y is None or math.isclose(x, y, abs_tol=CLOSE)


def test_it_gives_the_scorers_answers(any_scorer):
    image, masks = scene(3)
    engine = Engine(any_scorer)
    wanted = any_scorer.score(image, masks, any_scorer.tasks)
    assert apart(wanted) > 10 * CLOSE
    close(engine.score(image, masks), wanted)
    looked = engine.look(image)
    close([engine.score(looked, masks[n : n + 1])[0] for n in range(len(masks))], wanted)


def test_answers_that_are_mixed_up_are_not_close(any_scorer, monkeypatch):
    """The other tests can fail: in another order, or all those of one region, answers are told from the right ones."""
    image, masks = scene(3)
    wanted, answer = any_scorer.score(image, masks, any_scorer.tasks), Look.answer
    for mix in (lambda found: found[::-1], lambda found: [found[0]] * len(found)):
        monkeypatch.setattr(Look, "answer", lambda *asked, mix=mix: mix(answer(*asked)))
        mixed = Engine(any_scorer).score(image, masks)
        with pytest.raises(AssertionError):
            close(mixed, wanted)


def test_regions_get_words_of_their_own(scorer):
    assert len({answer["distortion"].text for answer in scorer.score(*scene(3))}) > 1


def test_every_way_to_say_an_image_is_the_same_image(tmp_path):
    image, _ = picture(1)
    array = image.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "a.png")
    for said in (image, array, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(as_image(said), array)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_array_is_the_png_of_its_pixels(tmp_path, channels, bits):
    rng = np.random.default_rng(channels)
    array = rng.integers(0, 2**bits, (20, 30, channels), np.uint16 if bits == 16 else np.uint8)
    (tmp_path / "a.png").write_bytes(png(array))
    wanted = as_image(tmp_path / "a.png")
    assert len(np.unique(wanted)) > 100
    said = [array, torch.from_numpy(array).permute(2, 0, 1), *([array[..., 0], torch.from_numpy(array[..., 0])] if channels == 1 else [])]
    for one in said:
        assert np.array_equal(as_image(one), wanted)


def png(array):
    """Pixels (H, W, C) of 8 or 16 bits as a PNG, which Pillow writes of 8 bits alone where there is colour."""
    height, width, channels = array.shape
    wide = array.astype(array.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + wide[y].tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def test_an_array_of_grey_has_the_scores_of_its_file(tmp_path):
    scorer, grey = built("pooled_mlp"), scene(3)[0].permute(1, 2, 0).numpy()[..., 1]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert Engine(scorer).score(grey, [BOX, OTHER]) == Engine(scorer).score(tmp_path / "a.png", [BOX, OTHER])


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_look_stays_what_it_was_when_its_memory_is_used_again(as_tensor):
    """As of a camera's buffer: features of the old picture and crops of a new one would be no picture's answer."""
    scorer, (image, masks) = built("pooled_mlp"), scene(3)
    engine, array = Engine(scorer), image.permute(1, 2, 0).numpy().copy()
    wanted = engine.score(array.copy(), masks)
    looked = engine.look(torch.from_numpy(array).permute(2, 0, 1) if as_tensor else array)
    array[:] = 255 - array
    assert np.array_equal(looked.image, image.permute(1, 2, 0).numpy())
    assert engine.score(looked, masks) == wanted


def test_what_another_model_read_is_not_answered_from():
    """Its answers would come, under the name of the model that was asked."""
    (one, other), (image, masks) = (Engine(built("pooled_mlp"), name=name) for name in ("runs/one", "runs/other")), scene(3)
    looked = one.look(image)
    regions = prepare_regions(image, masks, other.scorer.preprocess, other.scorer.crop_size)
    for ask in (
        lambda: other.score(looked, masks),
        lambda: other.answer(looked, regions, other.tasks),
        lambda: quality_map(other, looked),
        lambda: other.look(looked),
    ):
        with pytest.raises(ValueError, match=r"the model runs/one has looked at this image, and runs/other is asked"):
            ask()
    assert one.look(looked) is looked
    assert Engine(one.scorer).score(looked, masks) == one.score(image, masks)  # another engine, the same model


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((3, 8, 9), np.uint8),
        np.zeros((8, 9, 3)),
        np.zeros((8, 9), np.int32),
        np.zeros((0, 9), np.uint8),
        np.zeros(9, np.uint8),
        torch.zeros(3, 8, 9),
        torch.zeros(8, 9),
    ],
)
def test_what_is_no_image_is_refused(image):
    with pytest.raises(ImageError, match="uint8"):
        as_image(image)


def test_every_way_to_say_a_region_is_the_same_region(scorer):
    image, _ = scene(2)
    size = image.shape[-2:]
    mask = np.zeros(size, bool)
    mask[10:30, 5:35] = True
    outline = [5, 10, 35, 10, 35, 30, 5, 30]
    said = [BOX, list(BOX), np.array(BOX), mask, torch.from_numpy(mask), outline, Prompt(box=BOX), Prompt(mask=mask)]
    corners = [(5, 10), (35, 10), (35, 30), (5, 30)]
    said += [corners, [list(xy) for xy in corners], np.array(corners), [outline], [np.array(outline)]]
    said.append([[5, 10, 20, 10, 20, 30, 5, 30], [15, 10, 35, 10, 35, 30, 15, 30]])  # COCO's rings: their union
    runs = np.diff(np.flatnonzero(np.diff(np.r_[0, mask.T.ravel(), 0])), prepend=0)
    said.append({"size": list(size), "counts": [*runs.tolist(), int(mask.size - runs.sum())]})
    engine = Engine(scorer)
    close(engine.score(image, said), engine.score(image, [BOX]) * len(said))
    both = engine.score(image, np.stack([mask, ~mask]))
    assert apart(both) > 10 * CLOSE
    close(both[:1], engine.score(image, [BOX]))


def test_a_point_means_what_the_segmenter_makes_of_it(scorer):
    image, _ = scene(2)
    segmenter = MASK_ENCODERS.build({"plugin": "superpixel", "segments": 4})
    engine = Engine(scorer, segmenter=segmenter)
    mask = segmenter.forward(as_image(image), [Prompt(point=(20, 20))])
    wanted = engine.score(image, [BOX, mask[0], OTHER])
    assert apart(wanted) > 10 * CLOSE
    close(engine.score(image, [BOX, (20, 20), OTHER]), wanted)


def test_regions_of_all_sorts_are_what_their_masks_are(scorer):
    """To the bit, in their order: masks at the model's size, crops, boxes and areas."""
    image, _ = scene(2)
    array, engine = as_image(image), Engine(scorer)
    masks = np.zeros((5, *array.shape[:2]), bool)
    masks[0] = engine.segmenter.forward(array, [Prompt(point=(20, 20))])[0]
    masks[1, 10:30, 5:35] = masks[2, ::3, 7:] = masks[3, 2:52, 40:73] = masks[4, 1:4, :9] = True
    said = [(20, 20), [5, 10, 35, 10, 35, 30, 5, 30], masks[2], OTHER, rle.encode(masks[4])]
    for order in ([0, 1, 2, 3, 4], [4, 2, 3, 0, 1], [2], [3, 0], [2, 2, 1]):
        wanted = prepare_regions(image, torch.from_numpy(masks[order]), scorer.preprocess, scorer.crop_size)
        got = engine._regions(array, [as_prompt(said[n]) for n in order], 0)
        for field in dataclasses.fields(wanted):
            assert torch.equal(getattr(got, field.name), getattr(wanted, field.name)), (order, field.name)


@pytest.mark.parametrize(
    "region",
    [
        (1, 2, 3),
        "x" * 200,
        {"counts": 3},
        object(),
        (),
        np.zeros((2, 2, 2)),
        (math.nan, 1, 2, 3),
        [BOX, OTHER],
        [(1, 2), (3, 4)],
        [(1, 2), (3, 4), (5, 6, 7)],
        [[(1, 2), (30, 4), (5, 60)]],
        ["ab", "cd", "ef"],
    ],
)
def test_a_region_that_is_not_understood_is_named(scorer, region):
    with pytest.raises(RegionError, match="region 1"):
        Engine(scorer).score(picture(1)[0], [BOX, region])


def test_what_is_wrong_with_a_region_says_which(scorer):
    with pytest.raises(RegionError, match=r"region 2: box .* lies outside"):
        Engine(scorer).score(picture(1)[0], [BOX, OTHER, (900, 900, 5, 5)])


@pytest.mark.parametrize(
    "regions",
    [
        "mask.png",
        {"size": [70, 90], "counts": "x"},
        Prompt(box=BOX),
        np.ones((70, 90), bool),
        torch.ones(70, 90, dtype=torch.bool),
        np.ones((70, 90), np.uint8),
        torch.ones(70, 90),
        iter([BOX]),
        BOX,
        list(BOX),
        np.array(BOX),
        torch.tensor(BOX),
        (5, 10, 35, 10, 35, 30, 5, 30),
        (np.float32(20), 20.5),
    ],
)
def test_a_single_region_is_not_taken_for_several(scorer, regions):
    with pytest.raises(RegionError, match=r"regions: got .* a single one stands in a list"):
        Engine(scorer).score(scene(1)[0], regions)


def test_no_region_has_no_answer(scorer):
    assert Engine(scorer).score(picture(1)[0], []) == []


def test_only_tasks_that_are_asked(scorer):
    assert [list(r) for r in Engine(scorer).score(picture(1)[0], [BOX], ["quality"])] == [["quality"]]
    with pytest.raises(ValueError, match="task 'beauty'"):
        Engine(scorer).score(picture(1)[0], [BOX], ["beauty"])
    for ask in (Engine(scorer).score, lambda image, _, tasks: quality_map(Engine(scorer), image, tasks)):
        with pytest.raises(ValueError, match=r"tasks: got 'quality', expected a list of them; .* \['quality'\]"):
            ask(picture(1)[0], [BOX], "quality")


def test_tables_of_boxes_are_no_mask(scorer):
    boxes = np.array([BOX, OTHER])
    engine, image = Engine(scorer), picture(1)[0]
    close(engine.score(image, boxes), engine.score(image, [BOX, OTHER]))
    close(engine.score(image, torch.from_numpy(boxes)), engine.score(image, [BOX, OTHER]))


@pytest.mark.parametrize("memory", [1e-9, 1.0])
def test_a_budget_changes_no_score(any_scorer, memory, monkeypatch):
    image, masks = scene(4)
    engine = Engine(any_scorer, memory=memory)
    asked = []
    answer = type(any_scorer).answer
    monkeypatch.setattr(type(any_scorer), "answer", lambda self, s, r, t: (asked.append(r.valid.shape[1]), answer(self, s, r, t))[1])
    close(engine.score(image, masks), any_scorer.score(image, masks, any_scorer.tasks))
    size, budget = image.shape[-2:], memory * 2**20
    assert asked[0] == 1 or any_scorer.answer_bytes(size, asked[0]) <= budget
    assert asked[0] == len(masks) or any_scorer.answer_bytes(size, asked[0] + 1) > budget


@pytest.mark.parametrize("memory", [0, -1, math.nan])
def test_a_budget_is_positive(scorer, memory):
    with pytest.raises(ConfigError, match=r"memory: got .* positive number of MiB"):
        Engine(scorer, memory=memory)


@pytest.mark.parametrize("name", INSTALLED)
def test_a_compiled_encoder_gives_the_same_scores(name):
    image, masks = picture(3)
    wanted = built(name).score(image, masks)
    graphs = []
    torch._dynamo.register_backend(lambda graph, _: graphs.append(graph) or graph.forward, name=f"counted_{name}")
    engine = Engine(built(name), compile=f"counted_{name}")
    close(engine.score(image, masks), wanted)
    assert graphs


def test_inductor_gives_the_same_scores():
    """The compiler that `predict.py --compile` takes, with the system's own for C++."""
    image, masks = scene(3)
    small = {"plugin": "timm_pyramid", "name": "test_resnet", "image_size": 64}  # a larger one is compiled for half a minute
    scorer = sensitive(SCORERS.build({"plugin": "pooled_mlp", **SCORERS.get("pooled_mlp").tiny(), "vision_encoder": small}).eval())
    wanted = scorer.score(image, masks)
    assert apart(wanted) > 10 * CLOSE
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    close(Engine(scorer, compile="inductor").score(image, masks), wanted)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert torch._dynamo.utils.counters["inductor"]


def test_what_cannot_be_compiled_is_refused(monkeypatch):
    scorer = built("pooled_mlp")
    with pytest.raises(ConfigError, match=r"compile: got 'inducter', .*'inductor'"):
        Engine(scorer, compile="inducter")
    monkeypatch.setattr(scorer, "parts", lambda: {"head": scorer.head})
    with pytest.raises(ConfigError, match="PooledMLP has only head"):
        Engine(scorer, compile="inductor")


def test_threads_get_the_answers_of_one_after_the_other(any_scorer):
    engine = Engine(any_scorer)
    pictures = [scene(seed) for seed in range(6)]
    wanted = [engine.score(*p) for p in pictures]
    assert apart([answers[0] for answers in wanted]) > CLOSE
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda n: engine.score(*pictures[n % 6]), range(18)))
    for n, answer in enumerate(got):
        assert answer == wanted[n % 6]  # to the bit: nothing of another request is read


class Alone:
    """Wraps what only one thread may do at a time, and notes whether two did."""

    def __init__(self):
        self.inside, self.together, self.calls = 0, False, 0

    def __call__(self, do):
        def wrapped(*args, **options):
            self.inside, self.calls = self.inside + 1, self.calls + 1
            self.together |= self.inside > 1
            time.sleep(0.003)  # others come in here, where nothing holds them
            try:
                return do(*args, **options)
            finally:
                self.inside -= 1

        return wrapped


def test_one_thread_at_a_time_is_on_the_model_and_on_the_segmenter(monkeypatch):
    """Models and plugins need not be made for several threads."""
    scorer, alone, (image, masks) = built("pooled_mlp"), Alone(), scene(3)
    monkeypatch.setattr(scorer, "look", alone(scorer.look))
    monkeypatch.setattr(scorer, "answer", alone(scorer.answer))
    segmenter = MASK_ENCODERS.build({"plugin": "superpixel", "segments": 4})
    engines, shared = [Engine(scorer, segmenter=segmenter)], Alone()
    monkeypatch.setattr(segmenter, "codes", shared(segmenter.codes))
    monkeypatch.setattr(segmenter, "propose_codes", shared(segmenter.propose_codes))
    engines.append(Engine(built("pooled_mlp"), segmenter=segmenter))  # which shares it
    array = as_image(image)
    asked = [
        lambda: engines[0].score(image, masks),
        lambda: engines[0].answer(engines[0].look(image), prepare_regions(image, masks, scorer.preprocess, scorer.crop_size), scorer.tasks),
        lambda: engines[0].segment(array, [Prompt(point=(2, 2))]),
        lambda: engines[1].propose(array),
        lambda: engines[1].score(image, [(2, 2)]),
    ]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: asked[n % len(asked)](), range(20)))
    assert (alone.calls, alone.together) == (16, False)
    assert (shared.calls, shared.together) == (12, False)


def test_an_accelerator_is_one_that_is_there():
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match="'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch sees none"):
            choose_device("gpu")


def test_a_prompt_stays_what_it_is():
    prompt = Prompt(point=(1, 2))
    assert as_prompt(prompt) is prompt
