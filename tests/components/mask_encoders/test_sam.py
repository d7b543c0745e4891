from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, Prompt
from components.rle import RegionError

pytest.importorskip("segment_anything", reason="pip install 'roi-iqa[sam]'")

from segment_anything import sam_model_registry

from components.mask_encoders import sam
from components.mask_encoders.sam import SegmentAnything

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
PROMPTS = [Prompt(point=(30, 20)), Prompt(box=(10, 5, 30, 20))]


def build(**options) -> SegmentAnything:
    torch.manual_seed(0)
    return SegmentAnything(**SegmentAnything.tiny() | options)


@pytest.fixture
def checkpoint(tmp_path) -> str:
    torch.save(build().model.state_dict(), tmp_path / "tiny.pth")
    return str(tmp_path / "tiny.pth")


@pytest.fixture
def embeddings(monkeypatch) -> list[int]:
    """Grows by one with each image that is embedded."""
    from segment_anything import SamPredictor

    seen: list[int] = []
    original = SamPredictor.set_image
    monkeypatch.setattr(SamPredictor, "set_image", lambda self, image: (seen.append(1), original(self, image))[1])
    return seen


def test_the_toy_has_every_kind_of_part_that_the_released_model_has():
    with torch.device("meta"):
        released = sam_model_registry["vit_b"]()
    assert {type(m) for m in build().model.modules()} == {type(m) for m in released.modules()}


@pytest.mark.parametrize("model_type", ["vit_b", "vit_l", "vit_h"])
def test_construction_reads_no_disk(model_type):
    encoder = SegmentAnything(model_type=model_type, checkpoint="/nowhere/sam.pth")
    with torch.device("meta"):
        released = sam_model_registry[model_type]()
    shapes = {k: v.shape for k, v in encoder.model.state_dict().items()}
    assert shapes == {k: v.shape for k, v in released.state_dict().items()}
    assert all(p.is_meta for p in encoder.model.parameters())


def test_use_before_the_weights_are_read_is_refused(checkpoint):
    encoder = SegmentAnything(**SegmentAnything.tiny(), checkpoint=checkpoint)
    for use in (lambda: encoder.forward(IMAGE, PROMPTS), lambda: encoder.propose(IMAGE)):
        with pytest.raises(RuntimeError, match=r"weights have not been read yet: call load_pretrained\(\).*tiny\.pth"):
            use()


def test_load_pretrained_brings_the_weights(checkpoint):
    encoder = SegmentAnything(**SegmentAnything.tiny(), checkpoint=checkpoint)
    encoder.load_pretrained()
    np.testing.assert_array_equal(encoder.forward(IMAGE, PROMPTS), build().forward(IMAGE, PROMPTS))
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not encoder.model.training


def test_load_pretrained_without_a_checkpoint_leaves_the_toy_as_it_is():
    encoder = build()
    before = encoder.forward(IMAGE, PROMPTS)
    encoder.load_pretrained()
    np.testing.assert_array_equal(encoder.forward(IMAGE, PROMPTS), before)


def test_a_missing_checkpoint_file_is_refused():
    encoder = SegmentAnything(checkpoint="/nowhere/sam.pth")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at /nowhere/sam\.pth: get the one for vit_b from https"):
        encoder.load_pretrained()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "sam.pth").write_bytes(content)
    encoder = SegmentAnything(checkpoint=str(tmp_path / "sam.pth"))
    with pytest.raises(ValueError, match="is not a whole checkpoint of tensors"):
        encoder.load_pretrained()


@pytest.mark.parametrize("change", ["another size", "a key more", "no dictionary"])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, change):
    weights = build().model.state_dict()
    content = {"another size": weights, "a key more": weights | {"extra": torch.zeros(1)}, "no dictionary": torch.zeros(3)}[change]
    torch.save(content, tmp_path / "sam.pth")
    model_type = "vit_b" if change == "another size" else "tiny"
    encoder = SegmentAnything(model_type=model_type, checkpoint=str(tmp_path / "sam.pth"))
    with pytest.raises(ValueError, match=rf"does not fit model_type '{model_type}'"):
        encoder.load_pretrained()


def test_a_released_size_without_a_checkpoint_is_refused():
    with pytest.raises(ValueError, match="model_type 'vit_b' needs `checkpoint`"):
        SegmentAnything()


@pytest.mark.parametrize("option", ["points_per_side", "points_per_batch"])
def test_a_grid_of_no_points_is_refused(option):
    with pytest.raises(ValueError, match="are at least 1"):
        build(**{option: 0})


def test_an_image_is_embedded_once_for_its_prompts(embeddings):
    encoder = build()
    encoder.forward(IMAGE, PROMPTS)
    encoder.forward(IMAGE.copy(), PROMPTS[:1])
    assert len(embeddings) == 1


def test_visitors_in_turns_have_their_images_embedded_once_each(embeddings):
    encoder, other = build(), np.ascontiguousarray(255 - IMAGE[:30])
    wanted = [build().forward(image, PROMPTS) for image in (IMAGE, other)]
    embeddings.clear()
    for _ in range(3):
        for image, masks in zip((IMAGE, other), wanted, strict=True):
            np.testing.assert_array_equal(encoder.forward(image, PROMPTS), masks)
    assert len(embeddings) == 2


def test_threads_are_told_about_their_own_images(embeddings):
    """Nobody takes turns here: a predictor that all shared would answer about the image that was set last."""
    encoder = build()
    images = [np.ascontiguousarray(np.roll(IMAGE, 7 * n, 0)[: 40 - 5 * n]) for n in range(4)]
    wanted = [build().forward(image, PROMPTS) for image in images]
    embeddings.clear()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: encoder.forward(images[n % 4], PROMPTS), range(24)))
    for n, masks in enumerate(found):
        np.testing.assert_array_equal(masks, wanted[n % 4])
    assert len(embeddings) == 4


def test_an_image_changed_in_place_is_embedded_anew(embeddings):
    encoder, image = build(), IMAGE.copy()
    encoder.forward(image, PROMPTS)
    image[:] = 255 - image
    changed = encoder.forward(image, PROMPTS)
    assert len(embeddings) == 2
    np.testing.assert_array_equal(changed, build().forward(image, PROMPTS))


def test_the_same_bytes_in_another_shape_are_another_image(embeddings):
    encoder = build()
    encoder.forward(IMAGE, PROMPTS[:1])
    assert encoder.forward(IMAGE.reshape(60, 40, 3), PROMPTS[:1]).shape == (1, 60, 40)
    assert len(embeddings) == 2


def test_drawn_regions_need_no_embedding(embeddings):
    mask = np.zeros(IMAGE.shape[:2])
    mask[3:5, 6:9] = 1
    np.testing.assert_array_equal(build().forward(IMAGE, [Prompt(mask=mask)])[0], mask)
    assert not embeddings


def test_proposals_leave_the_kept_embedding_alone(embeddings):
    encoder = build()
    before = encoder.forward(IMAGE, PROMPTS)
    encoder.propose(255 - IMAGE)
    np.testing.assert_array_equal(encoder.forward(IMAGE, PROMPTS), before)


def test_of_a_large_image_fewer_points_are_asked_about_at_once(monkeypatch):
    """The generator makes three masks of the image's size, as numbers, of each point: 64 points of 24 megapixels would take 18 GB."""
    from segment_anything import SamPredictor

    encoder, together = build(points_per_side=3, points_per_batch=5), []
    predict = SamPredictor.predict_torch
    monkeypatch.setattr(SamPredictor, "predict_torch", lambda self, at, *r, **o: (together.append(len(at)), predict(self, at, *r, **o))[1])
    codes = list(encoder.propose_codes(IMAGE))
    monkeypatch.setattr(sam, "_ROOM", 2 * sam._PER_PIXEL * IMAGE[..., 0].size)
    assert [rle.area(code) for code in encoder.propose_codes(IMAGE)] == [rle.area(code) for code in codes]
    monkeypatch.setattr(sam, "_ROOM", 1)
    list(encoder.propose_codes(IMAGE))
    assert together == [5, 4] + [2] * 4 + [1] + [1] * 9


@pytest.mark.parametrize("best", [0, 1, 2])
def test_multimask_keeps_the_mask_of_the_best_predicted_quality(monkeypatch, best):
    encoder = build(multimask=True)
    masks = np.zeros((3, *IMAGE.shape[:2]), dtype=bool)
    masks[[0, 1, 2], [5, 6, 7]] = True
    quality = np.eye(3)[best]
    monkeypatch.setattr(sam.SamPredictor, "predict", lambda self, **asked: (masks, quality, None) if asked["multimask_output"] else None)
    np.testing.assert_array_equal(encoder.forward(IMAGE, PROMPTS[:1])[0], masks[best])


def test_nothing_found_is_refused(monkeypatch):
    encoder = build()
    monkeypatch.setattr(sam.SamPredictor, "predict", lambda *_, **__: (np.zeros((1, *IMAGE.shape[:2]), dtype=bool), np.ones(1), None))
    with pytest.raises(RegionError, match=r"nothing found for point \(30, 20\)"):
        encoder.forward(IMAGE, PROMPTS)


def test_no_proposals_is_refused():
    with pytest.raises(RegionError, match="no region passes the thresholds: lower pred_iou_thresh"):
        build(pred_iou_thresh=100.0).propose(IMAGE)


@pytest.mark.parametrize("prompt", [Prompt(point=(60, 5)), Prompt(box=(60, 5, 2, 2))])
def test_a_prompt_outside_is_refused(prompt):
    with pytest.raises(RegionError, match="lies outside the image of 60 x 40 pixels"):
        build().forward(IMAGE, [prompt])


def test_an_image_too_thin_is_refused():
    thin = np.zeros((2, 200, 3), dtype=np.uint8)
    with pytest.raises(RegionError, match=r"200 x 2 pixels .* less than one pixel left at size 64"):
        build().forward(thin, [Prompt(point=(5, 1))])


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "components.mask_encoders.sam")
    monkeypatch.setitem(sys.modules, "segment_anything", None)
    with pytest.raises(ImportError, match=r"pip install 'roi-iqa\[sam\]'"):
        importlib.import_module("components.mask_encoders.sam")


def test_a_package_that_lacks_something_itself_says_so_unchanged(monkeypatch):
    monkeypatch.delitem(sys.modules, "components.mask_encoders.sam")
    monkeypatch.setitem(sys.modules, "segment_anything.modeling", None)
    with pytest.raises(ModuleNotFoundError, match=r"segment_anything\.modeling"):
        importlib.import_module("components.mask_encoders.sam")


def test_the_registry_checks_its_options():
    with pytest.raises(ValueError, match="vit_b"):
        MASK_ENCODERS.part({"plugin": "sam", "model_type": "vit_x"})
