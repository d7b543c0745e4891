"""The page, driven in a real headless browser: whatever a visitor does, all answers come, and what is bad loses nothing."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import app
from components import rle
from inference.engine import load
from tests.inference.page.models import photo, saved
from tests.test_app import free_port

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE = 60_000  # ms
TASKS = ("quality", "importance", "distortion")


@pytest.fixture(scope="module")
def browser():
    """Any Chromium that is installed, or the one that playwright fetched. ROI_IQA_BROWSER names another, or says that one must be there."""
    asked = os.environ.get("ROI_IQA_BROWSER", "")
    missing = "no browser: install chromium (apt-get install chromium, or playwright install chromium) to test the page in one"
    try:
        from playwright.sync_api import Error, sync_playwright
    except ModuleNotFoundError:
        if asked:
            raise
        pytest.skip("no playwright: pip install 'roi-iqa[test]' to test the page in a browser")
    found = asked if asked not in ("", "required") else next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            if asked:
                pytest.fail(f"{missing}; ROI_IQA_BROWSER={asked}: {error}")
            pytest.skip(missing)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return saved(folder / "first", 0), saved(folder / "second", 1)


@pytest.fixture(scope="module")
def served(models):
    arguments = [*map(str, models), "--port", str(free_port()), "--max-mb", "1", "--max-pixels", "1000000"]
    with app.Served(arguments) as found:
        yield found


@pytest.fixture
def page(browser, served):
    """A visitor's own window on the page; nothing may be fetched from elsewhere."""
    context = browser.new_context(viewport={"width": 1360, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    elsewhere = []
    context.on("request", lambda r: None if r.url.startswith((served.url, "data:", "blob:")) else elsewhere.append(r.url))
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#roi-upload input[type=file]", state="attached")
    yield page
    context.close()
    assert elsewhere == []


@pytest.fixture
def picture(tmp_path):
    PIL.Image.fromarray(photo()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def upload(page, path):
    page.set_input_files("#roi-upload input[type=file]", path)


def opened(page, path):
    upload(page, path)
    page.wait_for_selector("#roi-stage img")
    return page


def choose(page, tool):
    page.locator("#roi-tool label", has_text=tool).click()


def click(page, x, y):
    """At shares of the picture's width and height."""
    box = page.locator("#roi-stage img").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def regions(page, count):
    """Waits for as many cards, and says what the newest holds."""
    page.wait_for_function("n => document.querySelectorAll('.roi-card').length === n", arg=count)
    return page.locator(".roi-card").first


def downloaded(page, button):
    page.wait_for_function(
        "id => { const b = document.querySelector(id); return b && !b.disabled && !b.classList.contains('disabled') }", arg=button
    )
    with page.expect_download() as waiting:
        page.locator(button).click()
    return Path(waiting.value.path())


def refused(page, text):
    page.get_by_text(text).first.wait_for()


def test_a_click_is_answered_by_both_models_as_their_engines_do(page, picture, models):
    opened(page, picture)
    click(page, 0.35, 0.35)
    card = regions(page, 1)
    assert [card.locator(f"[data-task={task}]").count() for task in TASKS] == [2, 2, 2]
    assert card.locator(".roi-model").all_inner_texts() == ["first", "second"]
    click(page, 0.9, 0.9)
    regions(page, 2)
    told = json.loads(downloaded(page, "#roi-json").read_text())
    assert (told["image"], len(told["regions"])) == ("photo.png", 2)
    for region in told["regions"]:
        mask = rle.decode(region["rle"])
        for model in models:
            (expected,) = load(model).score(photo(), mask[None])
            for task in TASKS[:2]:
                assert region["answers"][model.name][task]["value"] == pytest.approx(expected[task].value, abs=1e-5)
            assert region["answers"][model.name]["distortion"]["text"] == expected["distortion"].text
    assert rle.decode(told["regions"][0]["rle"])[31, 42]
    with PIL.Image.open(downloaded(page, "#roi-overlay")) as overlay:
        assert overlay.size[0] >= 640
    page.locator("#roi-undo").click()
    regions(page, 1)
    page.locator("#roi-clear").click()
    page.get_by_text("No region yet").wait_for()


def test_box_whole_image_and_mask_file(page, picture, tmp_path):
    opened(page, picture)
    choose(page, "Box")
    page.get_by_text("Click one corner").wait_for()
    click(page, 0.25, 0.2)
    page.get_by_text("Now click the opposite corner").wait_for()
    click(page, 0.75, 0.8)
    assert "box 30, 18, 60, 54" in regions(page, 1).inner_text()
    page.locator("#roi-whole").click()
    assert "100.0% of the image" in regions(page, 2).inner_text()
    choose(page, "Mask file")
    mask = np.zeros((90, 120), np.uint8)
    mask[:45] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "upper half.png")
    page.wait_for_selector("#roi-mask input[type=file]", state="attached")
    page.set_input_files("#roi-mask input[type=file]", tmp_path / "upper half.png")
    assert "50.0% of the image" in regions(page, 3).inner_text()
    page.wait_for_selector("#roi-mask input[type=file]", state="attached")
    page.set_input_files("#roi-mask input[type=file]", picture.with_name("upper half.png"))
    regions(page, 4)


def shown(page):
    """Where the canvas shows the picture, which is dark on white: left, top, width, height on the page."""
    canvas = page.locator("#roi-canvas canvas").first
    box, found = canvas.bounding_box(), np.asarray(PIL.Image.open(io.BytesIO(canvas.screenshot())).convert("L")) < 210
    columns = np.flatnonzero(found.mean(axis=0) > 0.4)
    rows = np.flatnonzero(found[:, columns[0] : columns[-1]].mean(axis=1) > 0.6)
    return box["x"] + columns[0], box["y"] + rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def paint(page, *shares):
    """A stroke through places of the picture, as shares of its width and height; its size on the page."""
    left, top, width, height = shown(page)
    at = [(left + width * x, top + height * y) for x, y in shares]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    return width, height


@pytest.mark.parametrize(("height", "width", "large"), [(90, 120, (600, 450)), (120, 72, (400, 680))], ids=["landscape", "portrait"])
def test_painting_makes_a_region_of_what_was_painted(page, tmp_path, height, width, large):
    PIL.Image.fromarray(photo(height, width)).save(tmp_path / "photo.png")
    opened(page, tmp_path / "photo.png")
    choose(page, "Paint")
    page.locator("#roi-canvas canvas").first.wait_for()
    page.wait_for_timeout(2000)  # the editor draws its background, and says nothing when it has
    page.locator("#roi-paint").click()
    refused(page, "Nothing is painted yet")
    on_screen = paint(page, *((x, 0.3) for x in np.linspace(0.3, 0.6, 8)))
    assert on_screen[0] / on_screen[1] == pytest.approx(width / height, rel=0.05)
    assert on_screen[0] >= large[0]
    assert on_screen[1] >= large[1]
    page.locator("#roi-paint").click()
    card = regions(page, 1)
    assert "painted" in card.inner_text()
    assert card.locator("[data-task=distortion]").count() == 2
    (region,) = json.loads(downloaded(page, "#roi-json").read_text())["regions"]
    left, top, wide, tall = region["box"]
    brush = 2 * 40 * max(height, width) / 720  # its breadth in pixels of the image, which is painted on with a longer side of 720
    assert (left + wide / 2, top + tall / 2) == pytest.approx((0.45 * width, 0.3 * height), abs=2)
    assert (wide, tall) == pytest.approx((0.3 * width + brush, brush), abs=3)
    assert region["area"] * height * width == pytest.approx(0.3 * width * brush + np.pi * (brush / 2) ** 2, rel=0.2)
    assert rle.area(region["rle"]) == pytest.approx(region["area"] * height * width)


def test_another_file_can_be_chosen_after_one_that_was_refused(page, picture, tmp_path):
    (tmp_path / "text.png").write_bytes(b"this is no image")
    for name in ("upload", "mask"):
        upload = f"#roi-{name} input[type=file]"
        page.wait_for_selector(upload, state="attached")
        page.set_input_files(upload, tmp_path / "text.png")
        refused(page, "not an image that can be read")
        page.wait_for_selector(upload, state="attached")
        page.set_input_files(upload, picture)
        if name == "upload":
            page.wait_for_selector("#roi-stage img")
            choose(page, "Mask file")
    regions(page, 1)


def test_who_finds_the_queue_full_is_told(page, picture, served, monkeypatch):
    opened(page, picture)
    monkeypatch.setattr(served.blocks._queue, "max_size", 0)
    page.locator("#roi-whole").click()
    refused(page, "currently busy. Please try again")
    assert page.locator("#roi-work .error:visible").count() == 0  # it is said once
    monkeypatch.undo()
    page.locator("#roi-whole").click()
    regions(page, 1)  # nothing was lost


def test_the_map_of_the_whole_image(page):
    page.locator("#roi-examples button").first.click()
    page.wait_for_selector("#roi-stage img")
    page.get_by_role("tab", name="Map").click()
    page.locator("#roi-map").click()
    page.wait_for_selector(".roi-ranking")
    assert page.locator("[data-map=quality] img").count() == 2
    assert page.locator("[data-map=importance] img").count() == 2
    assert page.locator(".roi-ranking tbody tr").count() == 2 * 8
    with PIL.Image.open(downloaded(page, "#roi-map-file")) as drawn:
        assert min(drawn.size) > 300


def test_bad_uploads_are_explained_and_lose_nothing(page, picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(picture.read_bytes()[:-900])
    (tmp_path / "text.png").write_bytes(b"this is no image")
    (tmp_path / "heavy.png").write_bytes(bytes(1_500_000))
    PIL.Image.new("L", (1200, 900)).save(tmp_path / "wide.png")
    opened(page, picture)
    click(page, 0.35, 0.35)
    regions(page, 1)
    for name, said in (
        ("broken.png", "damaged or cut short"),
        ("text.png", "not an image that can be read"),
        ("wide.png", "1.1 million pixels; the page takes 1 million"),
        ("heavy.png", "maximum allowed size"),
    ):
        page.locator("#roi-other").click()
        page.locator("#roi-back").wait_for()
        upload(page, tmp_path / name)
        refused(page, said)
        page.locator("#roi-back").click()
        page.wait_for_selector("#roi-stage img")
        regions(page, 1)  # what was answered is still there
    click(page, 0.9, 0.9)
    regions(page, 2)
    choose(page, "Mask file")
    page.wait_for_selector("#roi-mask input[type=file]", state="attached")
    page.set_input_files("#roi-mask input[type=file]", tmp_path / "broken.png")
    refused(page, "damaged or cut short")
    regions(page, 2)
    assert str(Path.cwd()) not in page.content()


def test_visitors_do_not_see_each_other(page, browser, served, picture):
    opened(page, picture)
    click(page, 0.35, 0.35)
    regions(page, 1)
    other = browser.new_page()
    other.goto(served.url)
    other.wait_for_selector("#roi-upload input[type=file]", state="attached")
    assert other.locator(".roi-card").count() == 0
    other.close()
