"""Regression on a token: what is taught is what is read, its closed forms, and what is refused."""

import math

import pytest
import torch

from components.objectives import Objective, regression_loss
from components.prompts import SCORE, TOKENIZER_CORPUS, Dialogue
from components.readouts.base import Heard, Label, Say
from components.readouts.head import HeadReadout
from components.readouts.levels import LevelReadout
from components.registry import ConfigError
from components.scorers.base import SCORERS
from components.splice import supervised_columns
from components.tokenizer import project_tokenizer
from tests.components.scorers.samples import labelled

WIDTH = 8
HEADS = {"quality": {"plugin": "head"}, "importance": {"plugin": "head"}, "distortion": {"plugin": "text"}}


@pytest.fixture(scope="module")
def dialogue():
    return Dialogue(project_tokenizer(TOKENIZER_CORPUS))


@pytest.fixture
def readout(dialogue):
    return HeadReadout(dialogue, WIDTH, label_std=0.25)


def build(**changes):
    torch.manual_seed(0)
    return SCORERS.build({"plugin": "roi_vlm", **SCORERS.get("roi_vlm").tiny(), "readouts": HEADS, **changes})


def test_a_target_is_a_number_with_its_spread(readout):
    target = readout.target("quality", Label(0.6))
    assert (target.ids, target.value, target.std) == ((), 0.6, 0.25)
    assert readout.target("quality", Label(0.6, 0.1)).std == 0.1
    assert readout.target("quality", Label(math.nan)) is None


def test_an_answer_is_mean_and_deviation(readout):
    talk = readout.talk("quality")
    assert next(talk) == Say(state=True)
    torch.nn.init.zeros_(readout.mlp[-1].weight)
    readout.mlp[-1].bias.data = torch.tensor([math.log(3), math.log(1 / (1 / 0.04 - 1))])  # softplus(-x) = -log(0.04)
    with torch.no_grad(), pytest.raises(StopIteration) as end:
        talk.send(Heard(0, (), torch.randn(WIDTH)))
    assert end.value.value.value == pytest.approx(0.75)
    assert end.value.value.std == pytest.approx(0.2, rel=2e-3)
    assert end.value.value.text == "The quality is good."


def test_the_variance_is_bounded_and_always_has_a_gradient(readout):
    """A clamp would have none beyond its bounds, where a variance would then stay for ever."""
    torch.nn.init.zeros_(readout.mlp[-1].weight)
    for raw, low, high in ((-20.0, 0.0110, 0.0112), (-6.0, 0.049, 0.052), (1.0, 0.84, 0.87), (20.0, 0.999, 1.001)):
        readout.mlp[-1].bias.data[1] = raw
        _, log_variance = readout.regress(torch.randn(3, WIDTH))
        std = (log_variance / 2).exp()
        assert low <= std.min() <= std.max() <= high
        readout.zero_grad()
        log_variance.sum().backward()
        assert readout.mlp[-1].bias.grad[1] > 0, raw


@pytest.mark.parametrize("seed", range(10))
def test_the_variance_learns_from_the_first_step(dialogue, seed):
    """It begins inside of its bounds, whatever the seed, and comes near the spread of the labels around their mean."""
    torch.manual_seed(seed)
    readout = HeadReadout(dialogue, WIDTH)
    states, value, std = torch.randn(64, WIDTH), torch.full((64,), 0.5), torch.zeros(64)
    value[::2], value[1::2] = 0.4, 0.6
    _, log_variance = readout.regress(states)
    assert 0.1 < (log_variance / 2).exp().mean() < 0.4
    regression_loss(*readout.regress(states), value, std).mean().backward()
    assert readout.mlp[-1].weight.grad[1].abs().sum() > 0


def test_a_variance_is_taught_down_from_its_upper_bound(readout):
    readout.mlp[-1].bias.data[1] = 1.0
    optimizer = torch.optim.Adam(readout.parameters(), 1e-2)
    states, value = torch.randn(16, WIDTH), torch.full((16,), 0.5)
    for _ in range(150):
        optimizer.zero_grad()
        regression_loss(*readout.regress(states), value, torch.full((16,), 0.1)).mean().backward()
        optimizer.step()
    assert float((readout.regress(states)[1].detach() / 2).exp().mean()) == pytest.approx(0.1, abs=0.05)


def test_the_loss_is_least_where_mean_and_variance_are_the_labels():
    value, std = torch.full((9,), 0.4), torch.full((9,), 0.2)
    means = torch.linspace(0.1, 0.7, 9)
    log_variance = torch.full((9,), math.log(0.04))
    assert regression_loss(means, log_variance, value, std).argmin() == 4
    spread = torch.tensor(math.log(0.04), requires_grad=True)
    regression_loss(value[:1], spread, value[:1], std[:1]).sum().backward()
    assert spread.grad == pytest.approx(0, abs=1e-6)


def test_the_gradient_of_the_mean_is_that_of_beta_nll():
    mean, log_variance = torch.tensor([0.7], requires_grad=True), torch.tensor([math.log(0.09)])
    regression_loss(mean, log_variance, torch.tensor([0.5]), torch.tensor([0.3])).backward()
    assert mean.grad.item() == pytest.approx(0.2 / 0.09 * 0.3, rel=1e-5)


@pytest.mark.parametrize("changes", [{}, {"packing": "none"}], ids=["packed", "a row for each question"])
@torch.no_grad()
def test_what_is_taught_is_what_is_read(changes):
    """Means and deviations of training, of all regions in one row, are those that are scored through the cache."""
    scorer = build(**changes).eval()
    for readout in (scorer.readouts["quality"], scorer.readouts["importance"]):
        torch.nn.init.normal_(readout.token)
    batch = labelled(scorer)
    pyramid = scorer.vision_encoder(batch.images)
    tokens = scorer.region_extractor(scorer.region_extractor.prepare(pyramid), batch.regions)
    image_tokens = scorer.projector(pyramid)
    packed = scorer.pack(batch, image_tokens.shape[1])
    columns = supervised_columns(packed)
    _, states = scorer.llm.with_states(*scorer._row(packed, image_tokens, tokens, columns))
    mean, log_variance = scorer._regressed(states, columns, packed)
    read = [
        row[task] for image in scorer.score_batch(batch, ["quality", "importance"]) for row in image for task in ("quality", "importance")
    ]
    torch.testing.assert_close(mean, torch.tensor([score.value for score in read]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((log_variance / 2).exp(), torch.tensor([score.std for score in read]), atol=1e-5, rtol=1e-4)


def test_packed_training_is_that_of_single_rows():
    losses, gradients = [], []
    for packing in ("image", "none"):
        scorer = build(packing=packing).eval()
        loss = scorer.loss(labelled_once(scorer))
        loss["loss"].backward()
        losses.append(float(loss["head"].detach()))
        gradients.append({n: p.grad for n, p in scorer.named_parameters() if p.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert {"readouts.quality.token", "readouts.importance.mlp.1.weight"} <= set(gradients[0])
    for name, grad in gradients[0].items():
        torch.testing.assert_close(grad, gradients[1][name], atol=1e-5, rtol=1e-3)


def labelled_once(scorer):
    torch.manual_seed(3)
    return labelled(scorer)


def test_a_row_holds_one_token_more_for_each_score():
    scorer = build()
    (first, *_) = scorer.teaching.branches(labelled(scorer).labels, training=False)
    assert [branch.question[-1] == SCORE for branch in first if branch.region == 0] == [True, True, False]
    lengths = scorer.packed_lengths(labelled(scorer))
    assert lengths["quality"] == scorer.tokens + len(scorer.dialogue.questions["quality"])
    most = scorer.row_tokens(torch.tensor([3]).numpy(), 1)[0]
    assert lengths["row"] <= most


def test_its_weight_is_an_option():
    scorer = build(objective={"head": 0.0}).train()
    losses = {name: value.detach() for name, value in scorer.loss(labelled(scorer)).items()}
    assert losses["head"] != 0
    assert losses["loss"] == pytest.approx(float(losses["text"]), rel=1e-6)
    with pytest.raises(ConfigError, match=r"objective\.head: got -1"):
        Objective(head=-1)


def test_errors(dialogue, readout):
    with pytest.raises(ValueError, match="serves quality, importance, not distortion: use 'text'"):
        readout.check("distortion")
    with pytest.raises(ValueError, match="wired with their width; got 0"):
        HeadReadout(dialogue)
    with pytest.raises(ValueError, match=r"got -1 and 0\.0"):
        HeadReadout(dialogue, WIDTH, hidden=-1)
    with pytest.raises(ValueError, match=r"label_std a share of the scale; got 0 and 2"):
        HeadReadout(dialogue, WIDTH, label_std=2)
    with pytest.raises(ConfigError, match=r"objective\.rank"):
        build(objective={"rank": 1.0})
    with pytest.raises(NotImplementedError, match="LevelReadout answers in words"):
        LevelReadout(dialogue).regress(torch.zeros(1, WIDTH))
