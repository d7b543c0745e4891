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
from components.mask_encoders.base import Prompt
from inference import draw
from inference.engine import load
from inference.page.door import Stored
from inference.quality_map import draw_map, quality_map
from inference.rows import Row
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
def engines(models):
    """What the page calls each model -> the same model, asked without the page."""
    return {model.name: load(model) for model in models}


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


def checked(page, engines, image):
    """The masks of the regions that are downloaded as JSON. Their answers, and those on their cards, are what the engines say of these."""
    told = json.loads(downloaded(page, "#roi-json").read_text())
    masks = [rle.decode(region["rle"]) for region in told["regions"]]
    cards = page.locator(".roi-card")
    for n, (region, mask) in enumerate(zip(told["regions"], masks, strict=True)):
        card = cards.nth(len(masks) - 1 - n)  # the newest first
        for place, (name, engine) in enumerate(engines.items()):
            (expected,) = engine.score(image, mask[None])
            for task in TASKS[:2]:
                assert region["answers"][name][task]["value"] == pytest.approx(expected[task].value, abs=1e-5)
                shown = card.locator(f"[data-task={task}] .roi-value").nth(place).inner_text()
                assert float(shown) == pytest.approx(expected[task].value, abs=0.0051)
            assert region["answers"][name]["distortion"]["text"] == expected["distortion"].text
    return masks


def test_a_click_is_answered_by_both_models_as_their_engines_do(page, picture, engines):
    opened(page, picture)
    click(page, 0.455, 0.305)  # of 120 x 90 pixels: (54, 27), in the bright square; (27, 54) is not
    card = regions(page, 1)
    assert [card.locator(f"[data-task={task}]").count() for task in TASKS] == [2, 2, 2]
    assert card.locator(".roi-model").all_inner_texts() == list(engines) == ["first", "second"]
    click(page, 0.9, 0.9)
    regions(page, 2)
    masks = checked(page, engines, photo())
    points = [Prompt(point=(54, 27)), Prompt(point=(108, 81))]
    assert np.array_equal(masks, [rle.decode(code) for code in engines["first"].segment(photo(), points)])
    page.locator("#roi-undo").click()
    assert "around 5" in regions(page, 1).inner_text()  # the first one is left
    assert np.array_equal(checked(page, engines, photo()), masks[:1])
    page.locator("#roi-clear").click()
    page.get_by_text("No region yet").wait_for()


def test_the_picture_that_is_downloaded_shows_the_answers(page, picture, engines):
    opened(page, picture)
    click(page, 0.455, 0.305)
    regions(page, 1)
    told = json.loads(downloaded(page, "#roi-json").read_text())
    assert (told["image"], told["width"], told["height"], told["models"]) == ("photo.png", 120, 90, list(engines))
    (region,) = told["regions"]
    first = engines["first"]
    (scores,) = first.score(photo(), rle.decode(region["rle"])[None])
    row = Row("photo.png", region["region"], region["kind"], tuple(region["box"]), region["area"], scores)
    assert same(downloaded(page, "#roi-overlay"), draw.draw(photo(), [region["rle"]], [row], first.tasks))


def same(file, expected):
    """Whether a picture is what is expected, to a rounding of its colours."""
    with PIL.Image.open(file) as opened:
        found = np.asarray(opened.convert("RGB"), np.int16)
    return found.shape == expected.shape and np.abs(found - expected).max() <= 2


def test_box_whole_image_and_mask_file(page, picture, tmp_path, engines):
    opened(page, picture)
    choose(page, "Box")
    page.get_by_text("Click one corner").wait_for()
    click(page, 0.25, 0.2)
    page.get_by_text("Now click the opposite corner").wait_for()
    page.locator("#roi-undo").click()
    page.get_by_text("Click one corner").wait_for()
    click(page, 0.25, 0.2)
    page.get_by_text("Now click the opposite corner").wait_for()
    click(page, 0.75, 0.8)
    assert "box 30, 18, 60, 54" in regions(page, 1).inner_text()
    page.locator("#roi-whole").click()
    assert "100.0% of the image" in regions(page, 2).inner_text()
    choose(page, "Mask file")
    box, whole, mask = np.zeros((90, 120), bool), np.ones((90, 120), bool), np.zeros((90, 120), bool)
    box[18:72, 30:90] = True
    mask[:45] = True
    mask[10:30, 60:70] = False
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "upper half.png")
    for count in (3, 4):  # the same file may be taken twice
        page.wait_for_selector("#roi-mask input[type=file]", state="attached")
        page.set_input_files("#roi-mask input[type=file]", tmp_path / "upper half.png")
        assert "mask upper half.png" in regions(page, count).inner_text()
    assert np.array_equal(checked(page, engines, photo()), [box, whole, mask, mask])


def shown(page):
    """Where the canvas shows the picture, which is dark on white: left, top, width, height in pixels of the canvas."""
    canvas = page.locator("#roi-canvas canvas").first
    found = np.asarray(PIL.Image.open(io.BytesIO(canvas.screenshot())).convert("L")) < 210
    columns = np.flatnonzero(found.mean(axis=0) > 0.4)
    rows = np.flatnonzero(found[:, columns[0] : columns[-1]].mean(axis=1) > 0.6)
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def paint(page, place, *shares):
    """A stroke through places of the picture, as shares of its width and height; `place` is where the canvas shows it."""
    left, top, width, height = place
    canvas = page.locator("#roi-canvas canvas").first.bounding_box()  # the page may have been scrolled meanwhile
    at = [(canvas["x"] + left + width * x, canvas["y"] + top + height * y) for x, y in shares]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place)
    page.mouse.up()


def drawn(page):
    """Waits until the editor has drawn its picture, of which it says nothing."""
    before = None
    for _ in range(PATIENCE // 200):
        page.wait_for_timeout(200)
        try:
            now = shown(page)
        except IndexError:  # nothing yet
            continue
        if now == before:
            return now
        before = now
    pytest.fail("the editor draws no picture")


def stroke(size, start, end, brush):
    """The pixels (height, width) of a stroke between two places, given as shares of width and height, of a round brush."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    (left, top), (right, bottom) = ((share[0] * width, share[1] * height) for share in (start, end))
    along = np.clip(((x - left) * (right - left) + (y - top) * (bottom - top)) / ((right - left) ** 2 + (bottom - top) ** 2), 0, 1)
    return np.hypot(x - left - along * (right - left), y - top - along * (bottom - top)) <= brush / 2


STROKES = [((0.3, 0.25), (0.6, 0.5)), ((0.8, 0.5), (0.7, 0.85))]


@pytest.mark.parametrize(
    ("height", "width", "large", "strokes"),
    [(360, 480, (600, 450), STROKES), (480, 288, (400, 680), STROKES[1:])],
    ids=["landscape", "portrait"],
)
def test_painting_makes_a_region_of_what_was_painted(page, tmp_path, engines, height, width, large, strokes):
    """Each time of what was painted since the last."""
    PIL.Image.fromarray(photo(height, width)).save(tmp_path / "photo.png")
    opened(page, tmp_path / "photo.png")
    choose(page, "Paint")
    page.locator("#roi-canvas canvas").first.wait_for()
    *_, across, down = drawn(page)
    assert across / down == pytest.approx(width / height, rel=0.05)
    assert across >= large[0]
    assert down >= large[1]
    page.locator("#roi-paint").click()
    refused(page, "Nothing is painted yet")
    for count, (start, end) in enumerate(strokes, 1):
        paint(page, drawn(page), *np.linspace(start, end, 3))  # at each place the browser paints for a second
        page.locator("#roi-paint").click()
        assert "painted" in regions(page, count).inner_text()
    brush = 2 * 40 * max(height, width) / 720  # its breadth in pixels of the image, which is painted on with a longer side of 720
    for mask, ends in zip(checked(page, engines, photo(height, width)), strokes, strict=True):
        expected = stroke((height, width), *ends, brush)
        assert (mask & expected).sum() / (mask | expected).sum() > 0.85
        middles = [np.argwhere(found).mean(axis=0) for found in (mask, expected)]
        assert np.abs(middles[0] - middles[1]).max() < 3  # pixels


def test_another_file_can_be_chosen_after_one_that_was_refused(page, picture, tmp_path):
    (tmp_path / "text.png").write_bytes(b"this is no image")
    mask = np.zeros(photo().shape[:2], np.uint8)
    mask[10:40, 20:60] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    for name, good in (("upload", picture), ("mask", tmp_path / "mask.png")):
        upload = f"#roi-{name} input[type=file]"
        page.wait_for_selector(upload, state="attached")
        page.set_input_files(upload, tmp_path / "text.png")
        refused(page, "not an image that can be read")
        page.wait_for_selector(upload, state="attached")
        page.set_input_files(upload, good)
        if name == "upload":
            page.wait_for_selector("#roi-stage img")
            choose(page, "Mask file")
    regions(page, 1)


def test_who_finds_the_queue_or_the_disk_full_is_told(page, picture, served, monkeypatch):
    opened(page, picture)
    monkeypatch.setattr(served.blocks._queue, "max_size", 0)
    page.locator("#roi-whole").click()
    refused(page, "currently busy. Please try again")
    assert page.locator("#roi-work .error:visible").count() == 0  # it is said once
    monkeypatch.undo()
    monkeypatch.setattr(Stored, "bytes", lambda _: 10**12)
    page.locator("#roi-whole").click()
    refused(page, "keeps as much as it may")
    monkeypatch.undo()
    page.locator("#roi-whole").click()
    regions(page, 1)  # nothing was lost


def test_an_example_and_the_map_of_another_picture(page, picture, engines):
    page.locator("#roi-examples button").first.click()
    page.wait_for_selector("#roi-stage img")
    page.locator("#roi-other").click()
    page.locator("#roi-back").wait_for()
    opened(page, picture)
    page.locator("#roi-back").wait_for(state="hidden")
    page.get_by_role("tab", name="Map").click()
    page.locator("#roi-map").click()
    page.wait_for_selector(".roi-ranking")
    expected = [quality_map(engine, photo()) for engine in engines.values()]
    lines = [min(8, len(found.codes)) for found in expected]
    assert page.locator("[data-map=quality] img").count() == 2
    assert page.locator("[data-map=importance] img").count() == 2
    assert [page.locator(".roi-ranking").nth(n).locator("tbody tr").count() for n in range(2)] == lines
    for n, found in enumerate(expected):
        worst = page.locator(".roi-ranking").nth(n).locator("tbody tr").first.inner_text()
        assert f"{found.scores[found.worst()[0]]['quality'].value:.2f}" in worst
    pictures = [draw_map(found) for found in expected]
    assert len({picture.shape for picture in pictures}) == 1
    assert same(downloaded(page, "#roi-map-file"), np.concatenate(pictures))
    page.set_viewport_size({"width": 700, "height": 1000})
    for title in page.locator(".roi-maps figcaption b").all():
        title.evaluate("title => { title.textContent = 'a_model_whose_name_is_rather_long · Importance' }")
        name, scores = title.bounding_box(), title.locator("xpath=following-sibling::*").bounding_box()
        assert name["x"] + name["width"] < scores["x"]
    page.locator("#roi-whole").click()
    assert regions(page, 1).is_visible()  # its answer, not the map


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
        ("wide.png", "1200 x 900 = 1,080,000 pixels; the page takes 1,000,000"),
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


def test_visitors_do_not_see_each_other(page, browser, served, picture, engines):
    opened(page, picture)
    click(page, 0.35, 0.35)
    regions(page, 1)
    other = browser.new_page(accept_downloads=True)
    other.goto(served.url)
    other.wait_for_selector("#roi-upload input[type=file]", state="attached")
    opened(other, picture)
    other.locator("#roi-whole").click()
    regions(other, 1)
    click(page, 0.9, 0.9)
    regions(page, 2)
    mine, whole = checked(page, engines, photo()), checked(other, engines, photo())
    assert [(mask[30, 40], mask[81, 108]) for mask in mine] == [(True, False), (False, True)]
    assert np.array_equal(whole, [np.ones((90, 120), bool)])
    other.close()
