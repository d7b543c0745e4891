"""What every scorer promises; finds every scorer by itself."""

import pytest
import torch

from components.batch import Batch, Labels
from components.scorers.base import SCORERS, Look, Scorer
from components.tasks import TASKS
from tests.components.scorers.samples import SEVERAL, batch_of, labelled, picture


def build(name):
    torch.manual_seed(0)
    return SCORERS.build({"plugin": name, **SCORERS.get(name).tiny()})


@pytest.fixture(params=SCORERS.names())
def name(request):
    return request.param


def test_scores_every_region_and_task(name):
    scorer = build(name)
    image, masks = picture(1)
    scores = scorer.score(image, masks)
    assert len(scores) == len(masks)
    for row in scores:
        assert set(row) == set(scorer.tasks)
        for task, score in row.items():
            assert score.task == task
            if task == "distortion":
                assert score.value is None
            elif score.parsed:
                assert 0 <= score.value <= 1
                assert score.std is None or score.std >= 0
            else:
                assert score.value is None


def test_batched_equals_single(name):
    scorer = build(name).eval()
    together = scorer.score_batch(batch_of(scorer), scorer.tasks)
    assert [len(rows) for rows in together] == [SEVERAL, SEVERAL - 1]
    for seed, rows in zip((1, 2), together, strict=True):
        image, masks = picture(seed)
        for r, row in enumerate(rows):
            alone = scorer.score(image, masks[r : r + 1], scorer.tasks)[0]
            for task in scorer.tasks:
                assert alone[task].text == row[task].text
                if row[task].value is not None:
                    assert alone[task].value == pytest.approx(row[task].value, abs=1e-5)
                    assert alone[task].std == pytest.approx(row[task].std, abs=1e-5)


def test_one_task_gives_the_same_answer_as_all(name):
    scorer = build(name)
    image, masks = picture(3)
    everything = scorer.score(image, masks)
    for task in scorer.tasks:
        only = scorer.score(image, masks, [task])
        assert [row[task].text for row in only] == [row[task].text for row in everything]


def test_loss_is_a_finite_scalar_and_its_gradients_reach_what_is_trainable(name):
    scorer = build(name).train()
    losses = scorer.loss(labelled(scorer))
    assert losses["loss"].shape == ()
    assert all(torch.isfinite(v) for v in losses.values())
    losses["loss"].backward()
    for part, module in scorer.parts().items():
        trainable = [p for p in module.parameters() if p.requires_grad]
        assert not trainable or any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable), part


def test_loss_of_unknown_labels_is_zero_not_nan(name):
    scorer = build(name).train()
    batch = labelled(scorer)
    empty = torch.full_like(batch.labels.quality, torch.nan)
    unknown = Labels(empty, empty, empty, empty, tuple((None,) * len(d) for d in batch.labels.distortions))
    assert float(scorer.loss(Batch(batch.images, batch.regions, unknown))["loss"].detach()) == 0


def test_a_few_steps_lower_the_loss(name):
    scorer = build(name).train()
    batch = labelled(scorer)
    optimizer = torch.optim.AdamW([p for p in scorer.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = scorer.loss(batch)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-2:]) < losses[0]


def test_parts_cover_all_parameters_once(name):
    scorer = build(name)
    parts = [id(p) for module in scorer.parts().values() for p in module.parameters()]
    assert sorted(parts) == sorted(id(p) for p in scorer.parameters())


def test_state_dict_round_trip(name):
    one, other = build(name), SCORERS.build({"plugin": name, **SCORERS.get(name).tiny()})
    image, masks = picture(1)
    other.load_state_dict(one.state_dict())
    assert one.score(image, masks, TASKS[:1]) == other.score(image, masks, TASKS[:1])


def test_builds_on_the_meta_device(name):
    with torch.device("meta"):
        scorer = SCORERS.build({"plugin": name, **SCORERS.get(name).tiny()})
    assert all(p.is_meta for p in scorer.parameters())


def test_frozen_parts_stay_in_eval_mode(name):
    scorer = build(name)
    for module in scorer.parts().values():
        module.requires_grad_(False)
    scorer.train()
    assert all(not m.training for module in scorer.parts().values() for m in module.modules())


def test_scoring_leaves_the_mode_as_it_was(name):
    scorer = build(name)
    image, masks = picture(1)
    for mode in (True, False):
        scorer.train(mode).score(image, masks[:1])
        assert scorer.training is mode


def test_an_image_that_was_looked_at_is_asked_again(name):
    """In parts, in any order, without being encoded anew: the same scores, and the mode left as it was."""
    scorer = build(name)
    image, masks = picture(3)
    everything = scorer.eval().score(image, masks, scorer.tasks)
    scorer.train()
    look = Look(scorer, image)
    if type(scorer).look is not Scorer.look:  # else it does not look at the image, but at each region's crop
        scorer.parts()["vision_encoder"].register_forward_hook(lambda *_: pytest.fail("the image is encoded again"))
    for r in (1, 0, 1):
        (row,) = look.score(masks[r : r + 1], scorer.tasks)
        for task in scorer.tasks:
            assert row[task].text == everything[r][task].text
            if row[task].value is not None:
                assert row[task].value == pytest.approx(everything[r][task].value, abs=1e-5)
    assert scorer.training
    assert look.score(masks[:0], scorer.tasks) == []


def test_no_regions_no_scores(name):
    image, masks = picture(1)
    assert build(name).score(image, masks[:0]) == []


def test_unknown_task_is_refused(name):
    image, masks = picture(1)
    with pytest.raises(ValueError, match=r"task 'beauty': .* answers quality"):
        build(name).score(image, masks, ["beauty"])


def test_empty_regions_and_wrong_sizes_are_refused(name):
    image, masks = picture(1)
    scorer = build(name)
    with pytest.raises(ValueError, match="region 0 is empty"):
        scorer.score(image, torch.zeros_like(masks))
    with pytest.raises(ValueError, match=r"masks are \(70, 89\) but the image is \(70, 90\)"):
        scorer.score(image, masks[..., :-1])
