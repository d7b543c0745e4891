"""What is kept of a visit, and for how long: it goes when another picture is open or nobody used it, and work renews it."""

import copy
import time
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import pytest
from PIL import Image

from inference.page import layout
from inference.page.limits import Limits, Refusal
from inference.page.service import Service
from inference.quality_map import draw_map
from tests.inference.page.models import encoded, engine, photo

POINT = "Click a point"


@pytest.fixture(scope="module")
def service():
    return Service({"a": engine(0, "pooled_mlp")}, Limits())


@pytest.fixture
def page(service, tmp_path):
    with gr.Blocks() as blocks:
        made = layout.Page(service, {"first, damaged": photo(), "second": photo(60, 80)}, tmp_path)
    made.events = [event for event in blocks.fns.values() if made.visit in event.inputs]
    return made


class Chosen:
    """Stands for what Gradio says of a click."""

    def __init__(self, index):
        self.index = index


def opened(page, index=0, last=None):
    return page._example(last, Chosen(index))[0]


def test_every_event_of_work_renews_the_visit(page):
    """Gradio counts the hour of a state from the event that last gave it out."""
    visit = opened(page)
    work = [
        page._clicked(visit, POINT, Chosen((300, 200))),
        page._wholly(visit),
        page._undone(visit),
        page._chosen(visit, "Box"),
        page._clicked(visit, "Box", Chosen((30, 30))),
        page._mapped(visit),
        page._cleared(visit),
        page._returned(visit),
    ]
    assert all(values[0] is visit for values in work)
    follow = [event.name for event in page.events if page.visit not in event.outputs]
    assert set(follow) == {"_looked", "_files", "_map_files"}  # what comes by itself after an event


def test_a_map_is_shown_before_its_picture_is_drawn(page, monkeypatch):
    visit = opened(page)
    assert page._map_files(visit) == gr.skip()  # as of a picture that was opened while the last one's map was made
    monkeypatch.setattr(layout, "draw_map", lambda found: pytest.fail("the visitor waits for the file"))
    *_, panels, ranking, button = page._mapped(visit)
    assert panels.count("<figure") == 2
    assert "<table" in ranking
    assert (button["value"], button["interactive"]) == (None, False)
    monkeypatch.undo()
    button = page._map_files(visit)
    assert button["interactive"]
    with Image.open(button["value"]) as picture:
        assert picture.size[::-1] == draw_map(visit.maps[0]).shape[:2]


def test_files_that_a_further_click_made_old_are_not_offered(page, monkeypatch):
    visit = opened(page)
    page._wholly(visit)
    save = layout.draw.save
    monkeypatch.setattr(layout.draw, "save", lambda *file: page._wholly(visit) and save(*file))
    assert page._files(visit) == (gr.skip(), gr.skip())
    monkeypatch.undo()
    assert all(button["interactive"] for button in page._files(visit))


def test_files_of_one_visit_are_written_one_after_the_other(page, monkeypatch):
    """Two clicks that follow each other have the same files."""
    visit, writing, save = opened(page), [], layout.draw.save

    def slowly(*file):
        writing.append("begun")
        time.sleep(0.02)
        save(*file)
        writing.append("done")

    page._wholly(visit)
    monkeypatch.setattr(layout.draw, "save", slowly)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: page._files(visit), range(3)))
    assert writing == ["begun", "done"] * 3
    assert all(button["interactive"] for files in found for button in files)


def test_the_canvas_is_as_high_as_its_picture_needs():
    heights = [layout.canvas_height(size) for size in ((400, 600), (600, 600), (1000, 600), (6000, 600), (60, 6000))]
    assert heights == [486, 698, 762, 762, 262]


def test_another_picture_keeps_this_one_until_it_is_open(page, service, tmp_path):
    visit = opened(page)
    page._wholly(visit)
    page._files(visit)
    assert page._closed(visit)[0] is visit
    (tmp_path / "text.png").write_bytes(b"this is no image")
    with pytest.raises(Refusal, match="What was on the page is still there"):
        page._opened(str(tmp_path / "text.png"), visit)
    assert page._returned(visit)[0] is visit
    assert len(visit.regions) == 1
    assert (visit.key in service.looks, (tmp_path / visit.key).exists()) == (True, True)
    (tmp_path / "good.png").write_bytes(encoded(photo()))
    after = page._opened(str(tmp_path / "good.png"), visit)[0]
    assert after is not visit
    assert (visit.key in service.looks, (tmp_path / visit.key).exists()) == (False, False)


def test_only_who_had_a_picture_is_told_that_it_is_still_there(page, tmp_path):
    (tmp_path / "text.png").write_bytes(b"this is no image")
    with pytest.raises(Refusal) as first:
        page._opened(str(tmp_path / "text.png"), None)
    visit = opened(page)
    with pytest.raises(Refusal) as mask:
        page._masked(visit, str(tmp_path / "text.png"))
    assert ["still there" in str(told.value) for told in (first, mask)] == [False, True]


def test_the_corner_of_a_box_goes_before_a_region(page):
    visit = opened(page)
    page._wholly(visit)
    for removes, left in ((page._undone, 1), (page._cleared, 0)):
        _, _, _, hint, *_ = page._clicked(visit, "Box", Chosen((30, 30)))
        assert "opposite corner" in hint
        _, _, _, hint, *_ = removes(visit)
        assert "Click one corner" in hint
        assert (visit.corner, len(visit.regions)) == (None, left)
    page._wholly(visit)
    _, _, _, hint, *_ = page._undone(visit)
    assert (hint, visit.regions) == (gr.skip(), [])


def test_a_late_answer_does_not_bring_the_last_picture_back(page):
    visit = opened(page)
    after = opened(page, 1, visit)
    assert all(value == gr.skip() for value in page._wholly(visit))
    assert page._wholly(after)[0] is after


def test_nothing_is_kept_of_a_visitor_who_is_gone(page, service, tmp_path):
    visit = opened(page)
    page._wholly(visit)
    page._files(visit)
    page.visit.delete_callback(visit)
    page.visit.delete_callback(None)
    assert copy.deepcopy(page.visit.delete_callback) is page.visit.delete_callback  # Gradio copies it for every visitor
    assert (visit.key in service.looks, (tmp_path / visit.key).exists()) == (False, False)
    with pytest.raises(Refusal, match="please choose it again"):
        page._wholly(None)
