"""What training minimises, term by term: pure functions of logits and targets.

Every term is a sum over answers. Who adds them divides by the number of answers (see "Loss per answer" in docs/decisions.md), so terms
of several batches add up to those of one large batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from components.registry import ConfigError, check_keys
from components.splice import Packed

_LEAST_VARIANCE = 1e-6  # of a score in [0, 1]; keeps two certain and equal scores comparable


@dataclass(frozen=True)
class Objective:
    """How much each term counts.

    Attributes:
        text: weight of the plain tokens of answers: the language loss.
        levels: weight of the level words, whose target is a distribution.
        head: weight of the scores that are regressed (`regression_loss`).
        rank: weight of the order of the regions within their image (`rank_loss`).
        judgments: share of the (region, question) pairs about which a yes-or-no question is asked too (`components.judgments`), in
            [0, 1]; its answer counts as much as any other.

    Raises:
        ConfigError: a weight below 0 or no number, or a share above 1.
    """

    text: float = 1.0
    levels: float = 1.0
    head: float = 1.0
    rank: float = 0.0
    judgments: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"objective.{name}: got {value}, expected a weight of at least 0 (0 leaves the term out)")
        if self.judgments > 1:
            raise ConfigError(f"objective.judgments: got {self.judgments}, expected the share of pairs that are judged too, in [0, 1]")

    @classmethod
    def of(cls, weights: Mapping[str, float] | None) -> Objective:
        """From the weights that are given; the others keep their defaults. Raises ConfigError for a term that does not exist."""
        weights = weights or {}
        check_keys(weights, [f.name for f in dataclasses.fields(cls)], "objective")
        return cls(**weights)

    def total(self, logits: Tensor, columns: Tensor, packed: Packed, regressed: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor]:
        """The "loss", and its terms by name before they are weighted, each per answer; "answers" is their number.

        Args:
            logits: (P, N, V) at the columns `columns` (N,), sorted.
            regressed: means and logarithms of variances, (N,) each, at `packed.score`; None where there are none.
        """
        plain, soft = language_loss(logits, columns, packed)
        judged = packed.judgment[packed.hard_answer]
        terms = {"text": (self.text, plain.masked_fill(judged, 0).sum()), "levels": (self.levels, soft.sum())}
        if regressed is not None:
            terms["head"] = (self.head, regression_loss(*regressed, *packed.score_values.unbind(1)).sum())
        if self.rank:
            ranked = rank_loss(level_probabilities(logits, columns, packed), packed.soft_probabilities, packed.topic[packed.soft_answer])
            terms["rank"] = (self.rank, ranked)
        if len(packed.judgment) > packed.answers:
            terms["judgment"] = (1.0, plain.masked_fill(~judged, 0).sum())
        count = max(1, packed.answers)
        each = {name: total / count for name, (_, total) in terms.items()}
        loss = torch.stack([weight * each[name] for name, (weight, _) in terms.items()]).sum()
        return {"loss": loss, **each, "answers": loss.new_full((), packed.answers)}  # filled where it is


def language_loss(logits: Tensor, columns: Tensor, packed: Packed) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the packed targets, in float32.

    Args:
        logits: (P, N, V) at the columns `columns` (N,), sorted.

    Returns:
        (M,) of the plain targets and (Q,) of the soft ones.
    """
    row, column, wanted = packed.hard.unbind(1)
    plain = F.cross_entropy(logits[row, _at(columns, column)].float(), wanted, reduction="none")
    if not len(packed.soft):
        return plain, plain.new_zeros(0)
    row, column = packed.soft.unbind(1)
    log_p = logits[row, _at(columns, column)].float().log_softmax(-1).gather(1, packed.soft_ids)  # (Q, L)
    return plain, -(packed.soft_probabilities * log_p).sum(-1)


def regression_loss(mean: Tensor, log_variance: Tensor, value: Tensor, std: Tensor) -> Tensor:
    """Expected negative log-likelihood, up to a constant, of a score that is Gaussian around `value`, under a Gaussian prediction; each
    weighted by its own standard deviation, held fixed, so that regions that are thought uncertain are not given up (beta-NLL with
    beta = 0.5, arXiv 2203.09168). All (N,)."""
    misses = (mean - value).square() + std.square()
    return log_variance.detach().mul(0.5).exp() * 0.5 * (log_variance + misses * torch.exp(-log_variance))


def level_probabilities(logits: Tensor, columns: Tensor, packed: Packed) -> Tensor:
    """(Q, L): the level words' distribution, as the readout reads it: a softmax over these words alone."""
    row, column = packed.soft.unbind(1)
    return logits[row, _at(columns, column)].float().gather(1, packed.soft_ids).softmax(-1)


def level_moments(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """(Q, L) over levels at 0, 1 / (L - 1), ... 1 -> mean and variance, (Q,) each."""
    values = torch.linspace(0, 1, probabilities.shape[-1], device=probabilities.device)
    mean = (probabilities * values).sum(-1)  # no matrix product: autocast would round it
    return mean, (probabilities * (values - mean[:, None]).square()).sum(-1)


def rank_loss(predicted: Tensor, wanted: Tensor, group: Tensor) -> Tensor:
    """How wrongly regions are ordered within their group: an image's regions, asked the same question.

    Of two scores with means m and variances v, the first is the higher with probability p = Phi((m_i - m_j) / sqrt(v_i + v_j))
    (Thurstone's model), for the prediction as for the label; the fidelity loss 1 - sqrt(p q) - sqrt((1 - p) (1 - q)) compares the two
    (LIQE, arXiv 2303.14968; DeQA-Score, arXiv 2501.11561). The label's moments are taken of the level distribution that is taught, not
    of the score itself: five levels cannot be surer than that, and a perfect prediction then costs nothing. Each score's loss is its mean
    over the others of its group, so a group weighs as much as it has scores.

    Args:
        predicted, wanted: (Q, L), the level words' probabilities.
        group: (Q,) long.

    Returns:
        The sum over all scores; 0 for one that is alone in its group.
    """
    if not len(group):
        return predicted.sum()
    first, second, weight = pairs(group)
    return (2 * weight * fidelity(_ahead(predicted, first, second), _ahead(wanted, first, second))).sum()


def pairs(group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(Q,) long -> the pairs of one group, (P,) indices each, every pair once, and 1 / (size of its group - 1)."""
    same = group[:, None] == group
    first, second = torch.nonzero(same.triu(1), as_tuple=True)
    return first, second, 1 / (same.sum(1)[first] - 1).to(torch.float32)


def fidelity(z: Tensor, z_wanted: Tensor) -> Tensor:
    """1 - sqrt(p q) - sqrt((1 - p) (1 - q)) of p = Phi(z) and q = Phi(z_wanted), in [0, 1].

    Written as half the squared distance of the square roots, which is the same, cancels nothing near p = q, and has no infinite slope at
    p = 0 or 1 when each root is half a logarithm.
    """
    total = torch.zeros_like(z)
    for sign in (1, -1):
        total = total + (_root(sign * z) - _root(sign * z_wanted)).square()
    return total / 2


def _root(z: Tensor) -> Tensor:
    """sqrt(Phi(z))."""
    return (torch.special.log_ndtr(z) / 2).exp()


def _ahead(probabilities: Tensor, first: Tensor, second: Tensor) -> Tensor:
    mean, variance = level_moments(probabilities)
    return (mean[first] - mean[second]) / (variance[first] + variance[second] + _LEAST_VARIANCE).sqrt()


def _at(columns: Tensor, column: Tensor) -> Tensor:
    return torch.searchsorted(columns, column.contiguous())
