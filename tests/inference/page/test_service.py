"""What the page does, without the page: regions however they are chosen get the answers that the engine gives."""

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from components import rle
from components.mask_encoders.base import MASK_ENCODERS, MaskEncoder, Prompt
from components.registry import ConfigError
from components.rle import RegionError
from inference.draw import shown_size
from inference.engine import Engine, Looked
from inference.page.limits import Limits, Refusal
from inference.page.service import Service
from inference.page.visit import Visit
from tests.inference.page.models import encoded, engine, photo, scorer


@pytest.fixture(scope="module")
def service():
    return Service({"a": engine(0), "b": engine(1, "pooled_mlp")}, Limits(regions=4, images=2))


@pytest.fixture
def visit():
    return Visit("photo.png", photo())


def test_an_upload_is_opened_under_its_own_name(service, tmp_path):
    (tmp_path / "my photo.png").write_bytes(encoded(photo()))
    opened = service.open(tmp_path / "my photo.png")
    assert opened.name == "my photo.png"
    assert np.array_equal(opened.image, photo())


def test_a_region_gets_the_answers_of_every_engine(service, visit):
    marked = service.point(visit, 40, 30)
    mask = rle.decode(marked.code)
    assert mask[30, 40]
    for row, one in zip(marked.rows, service.engines, strict=True):
        assert row.scores == one.score(photo(), mask[None])[0]
        assert row.area == pytest.approx(mask.mean())
    assert visit.regions == [marked]


def test_clicks_and_the_map_go_through_segment_anything(visit, monkeypatch):
    """The real network, tiny: a picture is embedded once, whatever is clicked on it, and the answers are about the mask that it found."""
    segment_anything = pytest.importorskip("segment_anything", reason="pip install 'roi-iqa[sam]'")
    embedded = []
    set_image = segment_anything.SamPredictor.set_image
    monkeypatch.setattr(segment_anything.SamPredictor, "set_image", lambda self, image: (embedded.append(1), set_image(self, image))[1])
    torch.manual_seed(0)
    sam = MASK_ENCODERS.build({"plugin": "sam", **MASK_ENCODERS.get("sam").tiny()})
    service = Service({"a": Engine(scorer(), segmenter=sam)}, Limits())
    for point in ((40, 30), (100, 80)):
        marked = service.point(visit, *point)
        mask = sam.forward(photo(), [Prompt(point=point)])[0]
        assert np.array_equal(rle.decode(marked.code), mask)
        assert marked.row.scores == service.engines[0].score(photo(), mask[None])[0]
    assert len(embedded) == 1
    (mapped,) = service.map(visit)
    assert len(mapped.scores) == len(sam.propose(photo()))


def test_two_clicks_are_a_box(service, visit):
    plain = service.picture(visit)
    assert service.corner(visit, 50, 60) is None
    assert visit.corner == (50, 60)
    assert not np.array_equal(service.picture(visit), plain)  # the corner is shown
    marked = service.corner(visit, 20, 30)
    assert (marked.row.box, visit.corner) == ((20, 30, 30, 30), None)
    service.corner(visit, 5, 5)
    with pytest.raises(Refusal, match="lie in one line"):
        service.corner(visit, 5, 40)
    assert len(visit.regions) == 1
    with pytest.raises(RegionError, match="outside the image"):
        service.point(visit, 500, 5)


def test_a_click_on_the_picture_means_the_pixel_that_is_shown_there(service, visit):
    tall, wide = shown_size(visit.size)
    assert (tall, wide) == service.picture(visit).shape[:2]
    assert service.place(visit, (0, 0)) == pytest.approx((0.5 * 120 / wide, 0.5 * 90 / tall))
    x, y = service.place(visit, (wide - 1, tall - 1))
    assert (int(x), int(y)) == (119, 89)
    assert service.place(visit, (wide + 50, -3)) == (119.5, 0.0)


def test_regions_are_bounded(service, visit):
    for _ in range(4):
        service.whole(visit)
    with pytest.raises(Refusal, match="There are 4 regions, as many as the page keeps"):
        service.whole(visit)
    assert len(visit.regions) == 4


def test_requests_at_once_give_the_answers_of_requests_in_turn(service):
    points = [(40, 30), (5, 5), (100, 80), (60, 70)]
    alone, together = Visit("photo.png", photo()), Visit("photo.png", photo())
    expected = {p: service.point(alone, *p) for p in points}
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(points, pool.map(lambda p: service.point(together, *p), points), strict=True))
    assert found == expected
    assert sorted(r.row.region for r in together.regions) == sorted(r.row.region for r in alone.regions)


def test_regions_are_bounded_for_requests_at_once(service, visit, monkeypatch):
    """Each sees how many there are and adds its own before the next one looks."""
    score = service.engines[0].score
    monkeypatch.setattr(service.engines[0], "score", lambda *asked: time.sleep(0.01) or score(*asked))

    def whole(_):
        try:
            return service.whole(visit)
        except Refusal:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [marked for marked in pool.map(whole, range(8)) if marked is not None]
    assert len(made) == len(visit.regions) == 4


def test_two_corners_that_come_at_once_are_a_box(service):
    class Slow(Visit):
        """Takes long to say where the corner is, so that another may come in between."""

        @property
        def corner(self):
            found = self.kept
            time.sleep(0.01)
            return found

        @corner.setter
        def corner(self, value):
            self.kept = value

    for _ in range(3):
        visit = Slow("photo.png", photo())
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda at, visit=visit: service.corner(visit, *at), [(20, 30), (50, 60)]))
        assert [marked.row.box for marked in found if marked is not None] == [(20, 30, 30, 30)]


def test_the_answers_as_json_hold_regions_and_all_models(service, visit):
    service.point(visit, 40, 30)
    told = json.loads(visit.as_json(service.models))
    (region,) = told["regions"]
    assert (told["width"], told["height"], told["models"]) == (120, 90, ["a", "b"])
    assert rle.decode(region["rle"])[30, 40]
    for model, row in zip("ab", visit.regions[0].rows, strict=True):
        assert set(region["answers"][model]) == set(row.scores)
        assert region["answers"][model]["quality"]["value"] == row.scores["quality"].value
    assert set(region["answers"]["a"]) == {"quality", "importance", "distortion"}


def test_the_overlay_is_the_picture_with_a_legend(service, visit):
    service.whole(visit)
    picture, overlay = service.picture(visit), service.overlay(visit)
    assert overlay.shape[0] > picture.shape[0]
    assert np.array_equal(overlay[: picture.shape[0], : picture.shape[1]], picture)


def test_the_map_scores_everything_by_every_model(service, visit):
    maps = service.map(visit)
    assert len(maps) == 2
    assert all(len(found.scores) == len(found.codes) > 1 for found in maps)
    assert not np.isnan(maps[0].map("quality")).any()  # superpixels leave nothing out


def test_how_much_a_region_is_reduced_is_told(service):
    """The first model looks at the image and at a crop of the region, both of 64 pixels, the second at the image alone."""
    visit = Visit("photo.png", photo(200, 320))
    assert service.whole(visit).reduced == (5, 5)
    service.corner(visit, 10, 10)
    assert service.corner(visit, 42, 26).reduced == (0.5, 5)
    first, second = service.map(visit)
    large = sum(max(rle.box(code)[2:]) > 4 * 64 for code in first.codes)
    told = service.notes((first, second))
    assert told[0].startswith(f"{large} region") if large else told[0] == ""
    assert told[1].startswith(f"{len(second.codes)} regions were reduced more than 4 times")


def test_the_map_asks_the_segmenter_once(service, visit, monkeypatch):
    asked, propose = [], service.engines[0].segmenter.propose_codes
    for one in service.engines:
        monkeypatch.setattr(one.segmenter, "propose_codes", lambda image: asked.append(1) or propose(image))
    first, second = service.map(visit)
    assert len(asked) == 1
    assert first.codes == second.codes


def test_a_model_whose_regions_change_each_other_is_refused():
    whole = engine()
    whole.scorer.region_extractor.coupled = True
    with pytest.raises(ConfigError, match=r"m: its regions change each other's scores.*predict\.py"):
        Service({"m": whole})


def test_clicks_and_a_map_at_once_share_one_segmenter():
    """SAM keeps what it knows of the last image: two that ask at once would get each other's masks."""

    class Remembering(MaskEncoder):
        can_propose = True

        def forward(self, image, prompts):
            self.last = image.shape
            time.sleep(0.001)
            return np.ones((len(prompts), *self.last[:2]), bool)

        def propose(self, image):
            return self.forward(image, [None])

        @classmethod
        def tiny(cls):
            return {}

    shared = Remembering()
    engines = [Engine(scorer(n, "pooled_mlp"), segmenter=shared) for n in range(2)]
    images = [photo(), photo(60, 50)]

    def ask(n):
        return [rle.size(engines[n].segment(images[n], [Prompt(point=(1, 1))])[0]) for _ in range(30)]

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ask, range(2))) == [[(90, 120)] * 30, [(60, 50)] * 30]


def test_visitors_in_turns_have_their_pictures_segmented_once_each(service, monkeypatch):
    looked, segmenter = [], service.engines[0].segmenter
    monkeypatch.setattr(segmenter.seen, "look", lambda image, look=segmenter.look: looked.append(1) or look(image))
    visits = [Visit("a.png", photo(80, 70)), Visit("b.png", photo(70, 80))]
    for x in (5, 30, 60):
        for visit in visits:
            service.point(visit, x, 40)
    service.map(visits[0])
    assert len(looked) == 2


def test_a_picture_is_read_once_to_be_known(service, monkeypatch):
    read, real = [], np.ascontiguousarray
    monkeypatch.setattr(
        "components.mask_encoders.base.np.ascontiguousarray", lambda image, **o: read.append(image.shape) or real(image, **o)
    )
    visit = Visit("a.png", photo(75, 75))
    for x in (5, 30, 60):
        service.point(visit, x, 40)
    assert read.count((75, 75, 3)) == 1
    with pytest.raises(ValueError, match="read-only"):
        visit.image[0, 0] = 0


def test_an_image_is_encoded_once_for_all_its_regions(service, monkeypatch):
    looked = []
    look = service.engines[0].look
    monkeypatch.setattr(service.engines[0], "look", lambda image: image if isinstance(image, Looked) else looked.append(1) or look(image))
    visit = Visit("photo.png", photo())
    service.look(visit)
    service.point(visit, 40, 30)
    service.whole(visit)
    assert len(looked) == 1


def test_regions_are_told_apart():
    """By fifty times what two ways to the same score may differ; else no test here would see that answers were mixed up."""
    scores = engine().score(photo(), [(30, 22, 30, 22), (0, 0, 30, 30), (60, 50, 50, 35)], ["quality"])
    values = sorted(answer["quality"].value for answer in scores)
    assert min(high - low for low, high in itertools.pairwise(values)) > 50 * 1e-5
