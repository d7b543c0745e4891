"""Rows of requests: whatever goes wrong with one image is said in its rows, and the others get the answers that they get alone."""

import os
import threading
import time
import weakref

import PIL.Image
import pytest
import torch

from components.mask_encoders.superpixel import Superpixel
from components.registry import ConfigError
from inference.engine import Engine
from inference.predict import Predictor, default_readers, shared_cores, shares
from inference.requests import Asked, Request
from tests.components.scorers.samples import scene
from tests.inference.test_engine import built, close

BAD = 3  # of the images


class Fails(Superpixel):
    """A segmenter that raises `error` for the image whose first pixel says that it is the bad one."""

    def __init__(self, error):
        super().__init__(segments=4)
        self.error = error

    def propose_codes(self, image):
        if image[0, 0, 0] == BAD:
            raise self.error
        return super().propose_codes(image)


@pytest.fixture(scope="module")
def scorer():
    return built("pooled_mlp")


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    folder, asked = tmp_path_factory.mktemp("images"), []
    for n in range(5):
        image = scene(n)[0].permute(1, 2, 0).numpy().copy()
        image[0, 0] = n
        PIL.Image.fromarray(image).save(folder / f"{n}.png")
        asked.append(Request(f"{n}.png", folder / f"{n}.png", (Asked("a", "box", (4, 5, 20, 30)), Asked("all", "proposed"))))
    return asked


@pytest.mark.parametrize("readers", [0, 2])
def test_an_error_that_nobody_foresaw_costs_its_region(scorer, requests, readers, caplog):
    found = list(Predictor(Engine(scorer, segmenter=Fails(RuntimeError("no kernel"))), scorer.tasks, readers=readers)(requests))
    assert [seen.request.name for seen in found] == [request.name for request in requests]
    for n, seen in enumerate(found):
        assert [row.error for row in seen.rows if row.error] == ["RuntimeError: no kernel"] * (n == BAD)
        assert len(seen.codes) == sum(not row.error for row in seen.rows) >= 1
        alone = Predictor(Engine(scorer, segmenter=Superpixel(segments=4)), scorer.tasks, readers=0).one(requests[n])
        close([row.scores for row in seen.rows if not row.error], [row.scores for row in alone.rows][: len(seen.codes)])
    assert "all of an image could not be scored" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("stage", ["_read", "_scored"])
@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 9 GiB"), torch.OutOfMemoryError("CUDA out of memory")])
def test_an_image_too_large_for_the_memory_costs_its_rows(scorer, requests, monkeypatch, stage, error, readers):
    real = getattr(Predictor, stage)

    def full(self, what, *more):
        if int((what if isinstance(what, str) else what.name)[0]) == BAD:
            raise error
        return real(self, what, *more)

    monkeypatch.setattr(Predictor, stage, full)
    found = list(Predictor(Engine(scorer), scorer.tasks, readers=readers)([*requests]))
    assert [all(row.error for row in seen.rows) for seen in found] == [n == BAD for n in range(5)]
    assert {row.error for row in found[BAD].rows} == {
        f"{type(error).__name__}: {error}; a smaller --memory asks about fewer regions at once"
    }


def test_what_was_answered_before_the_memory_ran_out_is_kept(scorer, requests, monkeypatch):
    """A group that fails costs itself and what comes after it, in rows and in pictures."""
    request = Request("0.png", requests[0].path, tuple(Asked(str(n), "box", (n, 5, 20, 30)) for n in (1, 2, 900, 3, 4, 5)))
    whole = Predictor(Engine(scorer), scorer.tasks, readers=0).one(request)
    engine = Engine(scorer, memory=scorer.answer_bytes((70, 90), 2) / 2**20)  # two regions at once
    groups, real = [], Engine.answer

    def full(self, looked, regions, tasks):
        groups.append(len(regions.valid))
        if len(groups) == 2:
            raise MemoryError("Unable to allocate 9 GiB")
        return real(self, looked, regions, tasks)

    monkeypatch.setattr(Engine, "answer", full)
    seen = Predictor(engine, scorer.tasks, readers=0).one(request)
    assert groups == [2, 2]
    assert [row.region for row in seen.rows] == ["1", "2", "900", "3", "4", "5"]
    close([row.scores for row in seen.rows[:2]], [row.scores for row in whole.rows[:2]])
    assert "lies outside" in seen.rows[2].error
    assert {row.error for row in seen.rows[3:]} == {
        "MemoryError: Unable to allocate 9 GiB; a smaller --memory asks about fewer regions at once"
    }
    assert [row.code for row in seen.rows if not row.error] == list(seen.codes) == list(whole.codes[:2])


@pytest.mark.parametrize("error", [ConfigError("no such checkpoint"), ImportError("no package"), torch.AcceleratorError("illegal address")])
def test_what_would_fail_for_every_image_ends_the_run(scorer, requests, error):
    with pytest.raises(type(error), match=str(error)):
        list(Predictor(Engine(scorer, segmenter=Fails(error)), scorer.tasks, readers=2)(requests))


def test_readers_are_a_number(scorer):
    with pytest.raises(ConfigError, match="readers: got -1, expected 0"):
        Predictor(Engine(scorer), scorer.tasks, readers=-1)


@pytest.mark.parametrize("readers", [0, 1, 2])
def test_an_image_is_read_while_the_one_before_is_answered(scorer, requests, monkeypatch, readers):
    """With readers the answer about each image waits until the next has been read: in turn that would never come."""
    read, happened = [threading.Event() for _ in requests], []
    real_read, real_answer = Predictor._read, Engine.answer

    def reading(self, request):
        out = real_read(self, request)
        n = int(request.name[0])
        happened.append(f"read {n}")
        read[n].set()
        return out

    def answering(self, looked, regions, tasks):
        n = int(looked.image[0, 0, 0])
        if readers and n + 1 < len(read):
            assert read[n + 1].wait(60)
        happened.append(f"answer {n}")
        return real_answer(self, looked, regions, tasks)

    monkeypatch.setattr(Predictor, "_read", reading)
    monkeypatch.setattr(Engine, "answer", answering)
    found = list(Predictor(Engine(scorer), scorer.tasks, readers=readers)(requests))
    assert [row.error for seen in found for row in seen.rows if row.error] == []
    ahead = [happened.index(f"read {n + 1}") < happened.index(f"answer {n}") for n in range(len(requests) - 1)]
    assert ahead == [readers > 0] * len(ahead)


@pytest.mark.parametrize(("cores", "threads", "readers"), [(2, 2, 0), (2, 1, 1), (16, 8, 2), (1, 4, 0)])
def test_readers_take_only_cores_that_the_model_leaves(monkeypatch, cores, threads, readers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert default_readers(torch.device("cpu")) == readers
    assert default_readers(torch.device("cuda")) == 2


@pytest.fixture
def eight_cores(monkeypatch):
    """A machine of eight, of which PyTorch takes all unasked; what it is told of threads is kept."""
    threads = [8]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    return threads


def test_the_cores_are_shared_where_nobody_said_how(eight_cores):
    def scored():
        with shared_cores(torch.device("cpu"), 2) as readers:
            assert (readers, eight_cores[-1]) == (3, 6)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scored()
    assert eight_cores == [8, 6, 8]


@pytest.mark.parametrize("case", ["a GPU", "one image", "readers", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "set_num_threads"])
def test_threads_stay_as_they_are_where_somebody_said_how(eight_cores, case, monkeypatch):
    if case.isupper():
        monkeypatch.setenv(case, "8")
    if case == "set_num_threads":
        eight_cores.append(7)
    before = list(eight_cores)
    device = torch.device("cuda" if case == "a GPU" else "cpu")
    with shared_cores(device, 1 if case == "one image" else 9, 5 if case == "readers" else None) as readers:
        assert readers == {"a GPU": 2, "readers": 5, "set_num_threads": 1}.get(case, 0)
    assert eight_cores == before


def test_shares_of_cores():
    assert {n: shares(n) for n in (1, 2, 3, 4, 8, 16, 64)} == {
        1: (1, 0),
        2: (1, 2),
        3: (2, 2),
        4: (3, 2),
        8: (6, 3),
        16: (12, 4),
        64: (48, 4),
    }


def test_groups_that_wait_are_within_the_budget(requests, monkeypatch):
    """What waits and what is asked about, together, whenever the model is asked; and the scores stay what they are."""
    scorer = built("mobile_iqa")
    asked, segmenter = requests[:4], Superpixel(segments=30, min_area=0)
    expected = list(Predictor(Engine(scorer, segmenter=segmenter), ("quality",), readers=0)(asked))
    budget = scorer.answer_bytes((70, 90), 8)
    engine = Engine(scorer, segmenter=segmenter, memory=budget / 2**20)
    alive, taken, real_regions, real_answer = [], [], Predictor._regions, Engine.answer

    def making(self, *args):
        regions = real_regions(self, *args)
        alive.append((weakref.ref(regions), regions.masks.nbytes + regions.crops.nbytes))
        return regions

    def answering(self, looked, regions, tasks):
        waiting = sum(size for kept, size in list(alive) if kept() is not None and kept() is not regions)
        taken.append(waiting + scorer.answer_bytes(looked.image.shape[:2], len(regions.valid)))
        time.sleep(0.01)  # readers are as far ahead as they come
        return real_answer(self, looked, regions, tasks)

    monkeypatch.setattr(Predictor, "_regions", making)
    monkeypatch.setattr(Engine, "answer", answering)
    found = list(Predictor(engine, ("quality",), readers=3)(asked))
    assert len(taken) > 2 * len(asked)
    assert max(taken) <= budget
    for seen, whole in zip(found, expected, strict=True):
        close([row.scores for row in seen.rows], [row.scores for row in whole.rows])


def test_who_listens_hears_how_many_regions_were_answered(scorer, requests):
    predictor = Predictor(Engine(scorer, segmenter=Superpixel(segments=9), memory=1), scorer.tasks, readers=0)
    heard = []
    predictor.answered = heard.append
    seen = predictor.one(requests[0])
    assert len(heard) > 1
    assert sum(heard) == len(seen.codes)
