"""What is asked in training."""

import itertools
from collections import Counter

import pytest
import torch

from components.batch import Labels
from components.judgments import judgments
from components.prompts import DISTORTION_TYPES, SEVERITIES, TOKENIZER_CORPUS, Dialogue
from components.readouts.base import READOUTS, Label
from components.registry import ConfigError
from components.splice import pack
from components.teaching import Teaching, label_of
from components.tokenizer import project_tokenizer

TASKS = {"quality": "levels", "importance": "levels", "distortion": "text"}


def teaching(judged=0.0, conversation="brief", shares=None, **readouts):
    dialogue = Dialogue(project_tokenizer(TOKENIZER_CORPUS), conversation)
    parts = readouts or TASKS
    return Teaching(dialogue, {task: READOUTS.build({"plugin": name}, dialogue) for task, name in parts.items()}, judged, shares)


def labels(images=2, regions=40):
    known = tuple(tuple((("blur", "minor"),) if r % 2 else () for r in range(regions)) for _ in range(images))
    scores = torch.rand(images, regions, generator=torch.Generator().manual_seed(3))
    return Labels(scores, torch.full_like(scores, torch.nan), scores.flip(1), torch.full_like(scores, 0.1), known)


def test_branches_are_region_by_region_task_by_task():
    asked = teaching().branches(labels(regions=2), training=True)
    assert [(b.region, b.task, b.judgment) for b in asked[0]] == [(r, task, False) for r in range(2) for task in TASKS]


def test_what_is_not_known_is_not_asked():
    some = labels(images=1, regions=2)
    some.quality[0, 0] = torch.nan
    (asked,) = teaching(judged=1.0).branches(some, training=True)
    assert [(b.task, b.judgment) for b in asked if b.region == 0] == [(t, j) for t in ("importance", "distortion") for j in (False, True)]


def test_a_label_is_read_by_task():
    some = labels(images=1, regions=2)
    assert label_of(some, 0, 1, "distortion") == Label(distortions=(("blur", "minor"),))
    found = label_of(some, 0, 1, "importance")
    assert (found.value, found.std) == pytest.approx((some.importance[0, 1].item(), 0.1))


def test_judgments_are_drawn_as_often_as_asked_half_of_them_true():
    torch.manual_seed(0)
    lessons = teaching(judged=0.25)
    asked = [b for image in lessons.branches(labels(regions=400), training=True) for b in image]
    judged = [b for b in asked if b.judgment]
    assert len(judged) / (len(asked) - len(judged)) == pytest.approx(0.25, abs=0.03)
    said = [lessons.dialogue.decode(b.target.ids) for b in judged]
    assert sum(text.startswith("Yes. ") for text in said) / len(said) == pytest.approx(0.5, abs=0.06)
    assert all(text.startswith(("Yes. ", "No. ")) for text in said)


def test_judgments_follow_torchs_generator():
    lessons, some = teaching(judged=0.5), labels()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(lessons.branches(some, training=True))
    assert drawn[0] == drawn[1] != drawn[2]


def test_evaluation_asks_no_judgments_and_draws_nothing():
    state = torch.get_rng_state()
    assert teaching(judged=1.0).branches(labels(), training=False) == teaching().branches(labels(), training=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("conversation", ["brief", "seagull_v1", "chat"])
def test_a_judgment_shares_the_prefix_and_reads_as_it_was_written(conversation):
    lessons = teaching(judged=1.0, conversation=conversation)
    asked = [b for b in lessons.branches(labels(images=1, regions=1), training=True)[0] if b.judgment]
    assert [b.task for b in asked] == list(TASKS)
    for branch in asked:
        known = judgments(branch.task, label_of(labels(images=1, regions=1), 0, 0, branch.task))
        assert branch.question[0] == lessons.dialogue.questions[branch.task][0]
        words = lessons.dialogue.decode(branch.question[1:])
        (same,) = (j for j in known if (j.brief if conversation == "brief" else j.question) in words)
        assert lessons.dialogue.decode(branch.target.ids) == same.answer


@pytest.mark.parametrize("judged", [0.0, 0.01])
@pytest.mark.parametrize("types", [1, 2])
def test_the_longest_branches_are_the_longest(judged, types):
    """Against every answer there is, for one and two distortions."""
    lessons = teaching(judged=judged)
    singles = list(itertools.product(DISTORTION_TYPES, SEVERITIES))
    worlds = [(), *((pair,) for pair in singles)]
    worlds += [pair for pair in itertools.combinations(singles, 2) if pair[0][0] != pair[1][0]] if types == 2 else []
    for task in TASKS:
        candidates = [Label(i / 40, distortions=w) for i, w in enumerate(worlds)] + [Label(i / 40) for i in range(41)]
        longest = [max(b.tokens(2) for label in candidates for b in lessons._question(0, task, label))]
        if judged:
            longest.append(max(lessons._judgment(0, j).tokens(2) for label in candidates for j in judgments(task, label)))
        assert lessons.longest(task, 2, types) == longest


def test_a_row_is_never_longer_than_its_bound():
    torch.manual_seed(0)
    lessons = teaching(judged=1.0)
    images = lessons.branches(labels(), training=True)
    row = pack(lessons.dialogue.prefix, images, 16, 2).ids.shape[1]
    prefix = pack(lessons.dialogue.prefix, [[]], 16, 2).ids.shape[1]
    assert prefix < row <= prefix + 40 * sum(n for task in TASKS for n in lessons.longest(task, 2, 1))


def test_levels_are_known_by_the_readout():
    assert teaching().has_levels
    assert not teaching(quality="text").has_levels


def test_a_task_is_asked_as_often_as_its_share():
    torch.manual_seed(0)
    lessons = teaching(shares={"importance": 0.5, "distortion": 0.1})
    some = labels(images=2, regions=1000)
    counted = Counter(b.task for image in lessons.branches(some, training=True) for b in image)
    assert counted["quality"] == 2000
    assert counted["importance"] / 2000 == pytest.approx(0.5, abs=0.05)
    assert counted["distortion"] / 2000 == pytest.approx(0.1, abs=0.03)
    again = Counter((b.region, b.task) for image in lessons.branches(some, training=True) for b in image)
    assert again != Counter((b.region, b.task) for image in lessons.branches(some, training=True) for b in image)  # drawn anew
    all_asked = lessons.branches(some, training=False)
    assert Counter(b.task for image in all_asked for b in image) == dict.fromkeys(TASKS, 2000)


def test_shares_of_one_draw_nothing():
    torch.manual_seed(0)
    teaching(shares={"quality": 1.0}).branches(labels(), training=True)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert drawn == torch.rand(1)


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan")])
def test_a_share_is_above_zero_and_at_most_one(share):
    with pytest.raises(ConfigError, match=r"task_shares\.quality: got .*, expected a share above 0"):
        teaching(shares={"quality": share})


def test_shares_are_of_tasks_that_are_taught():
    with pytest.raises(ConfigError, match="unknown key 'beauty'"):
        teaching(shares={"beauty": 0.5})
