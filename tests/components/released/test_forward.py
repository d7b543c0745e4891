"""What no count of tensors can see: order of concatenation, activations, pools and sigmoids of the released networks.

Both are computed a second time, from the published facts, in functional calls on the tensors by their released names; only the
encoder's levels are taken from the scorer. Statistics, gammas and weights are random, so a wrong order anywhere changes the score.
"""

import pytest
import torch
import torch.nn.functional as F

from components.released import mobile_iqa, teacher_iqa
from components.scorers.base import SCORERS
from configs.schema import load_model

GRID, OPINIONS, LEVELS, GAIN = 12, 2, 5, 1.5
TINY = {
    "mobile_iqa": {"width": 16, "grid": GRID, "opinions": OPINIONS},
    "teacher_iqa": {
        "vision_encoder": {**SCORERS.get("teacher_iqa").tiny()["vision_encoder"], "model_args": {"channels": [16, 32, 64, 128]}}
    },
}


def build(plugin, **changes):
    """A small network in eval mode, in double precision, with nothing left at zero, one or any other neutral value."""
    torch.manual_seed(1)
    scorer = SCORERS.build({"plugin": plugin, **SCORERS.get(plugin).tiny(), **TINY[plugin], **changes}).double().eval()
    with torch.no_grad():
        for name, x in scorer.state_dict().items():
            if name.endswith("gamma"):
                x.fill_(0.37)
            elif name.endswith(("running_mean", "bias")):
                x.uniform_(-0.3, 0.3)
            elif name.endswith("running_var"):
                x.uniform_(0.5, 2)
            elif x.ndim > 1:
                x.mul_(GAIN)  # else a dozen layers leave nothing of the difference between two pictures
    return scorer


def released(scorer, names):
    return {names.to_released(name): x for name, x in scorer.state_dict().items()}


def conv(p, name, x, **options):
    return F.conv2d(x, p[f"{name}.weight"], p[f"{name}.bias"], **options)


def linear(p, name, x):
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def norm_relu(p, name, x):
    return F.relu(F.batch_norm(x, *(p[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))))


def self_attention(p, name, x):
    """SAGAN's, without a scale: positions look at positions, and what they see is added with gamma."""
    q, k, v = (conv(p, f"{name}.{part}Conv", x).flatten(2) for part in "qkv")
    seen = torch.einsum("ncp,ncs->nps", q, k).softmax(2)  # over the positions that are looked at
    return x + p[f"{name}.gamma"] * torch.einsum("nps,ncs->ncp", seen, v).reshape(x.shape)


def token_attention(p, name, x):
    """One head over tokens; its result (T, D) is turned to (D, T) and read as if it were (T, D)."""
    q, k, v = (linear(p, f"{name}.c_{part}", x) for part in "qkv")
    seen = (torch.einsum("ntd,nsd->nts", q, k) / x.shape[2] ** 0.5).softmax(2)
    return x + torch.einsum("nts,nsd->ndt", seen, v).reshape(x.shape)


def views(p, name, maps):
    """A list of n maps -> one: each attends to itself, then both attentions over the stack, then the mean over n."""
    count, channels = len(maps), maps[0].shape[1]
    stack = torch.cat([self_attention(p, f"{name}.attention_module.{i}", x) for i, x in enumerate(maps)], 1).flatten(2)
    by_row = token_attention(p, f"{name}.feature_attention", stack.reshape(len(stack), channels, -1)).reshape(stack.shape)
    by_place = token_attention(p, f"{name}.channel_attention", stack.transpose(1, 2)).transpose(1, 2)
    mean = ((by_row + by_place) / 2).reshape(len(stack), count, channels, -1).mean(1)
    return mean.reshape(maps[0].shape)


def mobile(p, maps, projector, pool, bounded):
    levels = []
    for i, x in enumerate(maps, 1):
        wide = F.gelu(conv(p, f"{projector}{i}.cnn1", x))
        levels.append(conv(p, f"{projector}{i}.cnn2", F.adaptive_avg_pool2d(wide, GRID)))
    fused = views(p, "fusion_mal", [views(p, f"MALs.{m}", levels) for m in range(OPINIONS)])
    x = F.avg_pool2d(F.relu(conv(p, "cnn.0", fused)), pool)
    x = F.relu(conv(p, "cnn.3", x)).mean((2, 3))
    score = linear(p, "fc_score.3", F.relu(linear(p, "fc_score.0", x)))[:, 0]
    return torch.sigmoid(score) if bounded else score


def inception_conv(p, name, x):
    one = conv(p, f"{name}.inception.0.p1.0", x)
    two = norm_relu(p, f"{name}.inception.0.p2.1", conv(p, f"{name}.inception.0.p2.0", x))
    two = conv(p, f"{name}.inception.0.p2.3", two, padding=2, groups=two.shape[1])
    three = norm_relu(p, f"{name}.inception.0.p3.1", conv(p, f"{name}.inception.0.p3.0", x))
    three = norm_relu(p, f"{name}.inception.0.p3.4", conv(p, f"{name}.inception.0.p3.3", three, padding=1, groups=three.shape[1]))
    three = conv(p, f"{name}.inception.0.p3.6", three)
    four = conv(p, f"{name}.inception.0.p4.1", F.max_pool2d(x, 3, 1, 1))
    x = norm_relu(p, f"{name}.inception.1", torch.cat([one, two, three, four], 1))
    half = x.shape[1] // 2
    for number in (0, 3):
        x = conv(p, f"{name}.tripleConv.0.TripleConv.{number}", x, padding=1, groups=half)
        x = norm_relu(p, f"{name}.tripleConv.0.TripleConv.{number + 1}", x)
    return norm_relu(p, f"{name}.tripleConv.1", conv(p, f"{name}.tripleConv.0.TripleConv.6", x, padding=1, groups=half))


def up(p, number, x):
    return F.conv_transpose2d(x, p[f"tn.up{number}.weight"], p[f"tn.up{number}.bias"], stride=2)


def restoring(p, maps):
    """The restored picture, the deepest map, and the three joined levels."""
    deepest = x = inception_conv(p, "tn.bottom", maps[4])
    joined = []
    for number, skip in enumerate((maps[3], maps[2], maps[1], maps[0]), 1):
        x = inception_conv(p, f"tn.upMC{number}.MCConv", torch.cat([up(p, number, x), skip], 1))
        joined.append(x)
    return torch.sigmoid(conv(p, "tn.out", up(p, 5, x))), deepest, joined[:3]


def teacher(p, maps):
    _, x, joined = restoring(p, maps)
    for number in (0, 2, 4):
        x = F.relu(conv(p, f"bottomConv.{number}", x))
    for number, (level, pool) in enumerate(zip(joined, (2, 4, 8), strict=True), 1):
        new = F.avg_pool2d(F.relu(conv(p, f"upMC{number}Conv.0", level)), pool)
        x = self_attention(p, f"enc{number}.KI", torch.cat([x, new], 1))
    for number in (0, 2, 4, 6):
        x = F.relu(conv(p, f"iqaScore.{number}", x))
    return conv(p, "iqaScore.8", x).flatten()


@pytest.mark.parametrize(("whose", "pool", "bounded"), [("teacher", 4, False), ("student", 2, True)])
@torch.no_grad()
def test_mobile_iqa_is_what_the_published_facts_compute(whose, pool, bounded):
    scorer = build("mobile_iqa", pool=pool, bounded=bounded)
    crops = torch.rand(2, 3, 64, 64, dtype=torch.float64) * torch.tensor([0.2, 2.0])[:, None, None, None]
    p = released(scorer, mobile_iqa.names(whose, LEVELS, OPINIONS))
    expected = mobile(p, scorer.vision_encoder(crops).maps, {"teacher": "LGF", "student": "LDA"}[whose], pool, bounded)
    assert float(expected.std()) > 1e-5  # else a constant would do
    torch.testing.assert_close(scorer.rate(crops), expected, atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_teacher_iqa_is_what_the_published_facts_compute():
    scorer = build("teacher_iqa")
    crops = torch.rand(2, 3, 64, 64, dtype=torch.float64) * torch.tensor([0.2, 2.0])[:, None, None, None]
    p = released(scorer, teacher_iqa.names())
    maps = scorer.vision_encoder(crops).maps
    expected = teacher(p, maps)
    assert float(expected.std()) > 1e-5
    torch.testing.assert_close(scorer.rate(crops), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(scorer.restore(crops), restoring(p, maps)[0], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("whose", "pool", "bounded", "dropout"),
    [("teacher", 4, False, 0.1), ("student", 2, True, 0.1)],
)
def test_presets_have_the_published_heads(whose, pool, bounded, dropout):
    with torch.device("meta"):
        scorer = SCORERS.build(load_model(mobile_iqa.PRESETS[whose]))
    pools = [m.kernel_size for m in scorer.head.modules() if isinstance(m, torch.nn.AvgPool2d)]
    assert (pools, scorer.head.bounded, scorer.fusion.corrected, scorer.fusion.rows.dropout.p) == ([pool], bounded, False, dropout)
