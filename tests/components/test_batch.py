"""The containers."""

import dataclasses

import torch

from components.batch import Batch, Labels, Pyramid, Regions, join, pad_stack, split


def test_pad_stack():
    out = pad_stack([torch.ones(1, 2), torch.ones(3, 2)], 7)
    assert out.tolist() == [[[1, 1], [7, 7], [7, 7]], [[1, 1], [1, 1], [1, 1]]]


def test_a_batch_moves_with_all_it_holds():
    scores = torch.zeros(1, 1)
    regions = Regions(torch.ones(1, 1, 4, 4, dtype=torch.bool), torch.zeros(1, 1, 3, 2, 2), torch.zeros(1, 1, 4), scores, scores.bool())
    batch = Batch(torch.zeros(1, 3, 4, 4), regions, Labels(scores, scores, scores, scores, ((None,),)), (("a",),))
    moved = batch.to("meta")
    assert moved.images.is_meta
    assert moved.regions.masks.is_meta
    assert moved.labels.quality.is_meta
    assert moved.ids == (("a",),)
    assert not batch.images.is_meta


def several() -> Batch:
    """Three images with two, none and three regions, and what an encoder saw of them."""
    generator = torch.Generator().manual_seed(0)
    counts = (2, 0, 3)
    valid = torch.arange(3) < torch.tensor(counts)[:, None]

    def random(*shape: int) -> torch.Tensor:
        x = torch.rand(3, 3, *shape, generator=generator)
        return torch.where(valid.view(3, 3, *[1] * len(shape)), x, torch.zeros(()))

    regions = Regions(random(4, 4) > 0.5, random(3, 2, 2), random(4), random(), valid)
    scores = [torch.where(valid, random(), torch.nan) for _ in range(4)]
    kinds = tuple(tuple((("blur", "minor"),) if r else None for r in range(n)) for n in counts)
    ids = tuple(tuple(f"{b}-{r}" for r in range(n)) for b, n in enumerate(counts))
    pyramid = Pyramid((torch.rand(3, 5, 4, 4, generator=generator), torch.rand(3, 7, 2, 2, generator=generator)))
    native = tuple(torch.randint(0, 256, (3, 5 + b, 9), dtype=torch.uint8, generator=generator) for b in range(3))
    return Batch(torch.rand(3, 3, 8, 8, generator=generator), regions, Labels(*scores, kinds), ids, pyramid, random(3, 2, 2), native)


def assert_same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, torch.Tensor):
            torch.testing.assert_close(x, y, rtol=0, atol=0, equal_nan=True)
        elif dataclasses.is_dataclass(x):
            assert_same(x, y)
        elif isinstance(x, tuple) and x and isinstance(x[0], torch.Tensor):
            assert all(map(torch.equal, x, y))
        else:
            assert x == y


def test_join_undoes_split():
    batch = several()
    singles = split(batch)
    assert [len(s.regions.valid[0]) for s in singles] == [2, 0, 3]  # without padding
    assert [len(s.clean[0]) for s in singles] == [2, 0, 3]
    assert all(len(s.images) == 1 for s in singles)
    assert [image.shape for single in singles for image in single.native] == [(3, 5, 9), (3, 6, 9), (3, 7, 9)]
    assert_same(join(singles), batch)
    assert join(list(reversed(singles))).ids == tuple(reversed(batch.ids))


def test_split_and_join_without_labels_pyramid_clean_crops_and_native_images():
    batch = dataclasses.replace(several(), labels=None, pyramid=None, clean=None, native=())
    assert_same(join(split(batch)), batch)


def test_what_is_split_off_keeps_no_hold_on_the_batch():
    batch = several()
    single = split(batch)[0]
    assert single.images.untyped_storage().nbytes() == batch.images[0].numel() * 4
    assert single.pyramid.maps[0].untyped_storage().nbytes() == batch.pyramid.maps[0][0].numel() * 4


def test_a_pyramid_moves_and_changes_precision_with_its_batch():
    batch = several()
    assert all(m.is_meta for m in batch.to("meta").pyramid.maps)
    assert all(m.dtype == torch.float16 for m in batch.pyramid.to(torch.float16).maps)


def test_native_images_stay_on_the_cpu_as_they_are():
    batch = several()
    assert all(a is b for a, b in zip(batch.to("meta").native, batch.native, strict=True))


def test_some_regions_of_each_image():
    regions = several().regions
    assert_same(regions.between(0, 3), regions)
    for field in dataclasses.fields(regions):
        assert torch.equal(getattr(regions.between(1, 2), field.name), getattr(regions, field.name)[:, 1:2])
