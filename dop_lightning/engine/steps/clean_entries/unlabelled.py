r"""Logistic regression from positive and unlabelled examples.

In positive-unlabelled learning [du Plessis, Niu and Sugiyama, 2015] with the logistic loss, the risk does not depend on
negative examples:

    ``J(β) = Σᵢ log(1 + e^{ηᵢ}) − Σₘ uₘηₘ + λ/2·|β|²,   η = η₀ + φᵀβ``,

where i runs over the unlabelled examples and m over the positive ones, and ``Σₘ uₘ`` is the number of positive examples
among the unlabelled. J is convex. At its minimum, apart from the ridge term, ``Σᵢ σ(ηᵢ)φᵢ = Σₘ uₘφₘ``: the sum of each
feature over the unlabelled examples, weighted by their probabilities, equals the weighted sum over the positive ones.
The features are hat functions over the range of each score, so the probabilities are calibrated along each score.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from dop_lightning.engine.steps.clean_entries.sorting import ascending

KNOTS = 8
"""Number of knots of a score at quantiles of the unlabelled examples, and again of the positive examples."""

MIN_KNOT_DISTANCE = 0.02
"""Minimum distance between knots, as a fraction of the range of a score."""

STEPS = 30
"""Maximum number of steps of Newton's method."""

NEWTON_TOLERANCE = 1e-6
"""Newton's method stops when a step lowers J by less than this per unlabelled example."""


class Examples(NamedTuple):
    """Set of r examples.

    Attributes:
        scores: ``(r, g, F)``, F scores of the g members of each example, whose hats are averaged; larger for positive
            examples.
        base: η₀, ``(r,)``.
        seen: bool ``(r, g)``, the members that count; at least one per example.
    """

    scores: Tensor
    base: Tensor
    seen: Tensor


class Logistic(NamedTuple):
    """A fitted regression.

    Attributes:
        knots: knots of each of the F scores, ascending.
        coefficients: β, float64.
    """

    knots: list[Tensor]
    coefficients: Tensor

    def probability(self, examples: Examples) -> Tensor:
        """Return σ(η), ``(r,)``, float64."""
        seen = examples.seen.double()
        eta, begin = examples.base.double() + self.coefficients[0], 1
        for f, knots in enumerate(self.knots):
            heights, begin = self.coefficients[begin : begin + len(knots)], begin + len(knots)
            eta += (_interpolate(examples.scores[..., f].double(), knots, heights) * seen).sum(1) / seen.sum(1)
        return torch.sigmoid(eta)


def fit_positive_unlabelled(unlabelled: Examples, positive: Examples, weights: Tensor, ridge: float) -> Logistic:
    """Minimise J by Newton's method with halved steps.

    Args:
        unlabelled: positive and negative examples.
        positive: positive examples.
        weights: u of each positive example, at least 0.
        ridge: λ, above 0.
    """
    pairs = zip(unlabelled.scores.flatten(0, 1).T, positive.scores.flatten(0, 1).T, strict=True)
    knots = [_distinct_knots(torch.cat([_quantile_knots(scores) for scores in pair])) for pair in pairs]
    features, base = _design_matrix(unlabelled, knots), unlabelled.base.double()
    target = weights.double() @ _design_matrix(positive, knots)

    def risk(beta: Tensor) -> Tensor:
        return softplus(base + features @ beta).sum() - target @ beta + ridge / 2 * beta @ beta

    beta = torch.zeros_like(target)
    least = risk(beta)
    penalty = ridge * torch.eye(len(beta), dtype=beta.dtype, device=beta.device)
    for _ in range(STEPS):
        probability = torch.sigmoid(base + features @ beta)
        gradient = features.T @ probability - target + ridge * beta
        curvature = (features * (probability * (1 - probability))[:, None]).T @ features + penalty
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-3 and risk(beta - size * step) > least:
            size /= 2
        beta = beta - size * step
        before, least = least, risk(beta)
        if before - least < NEWTON_TOLERANCE * len(base):
            break
    return Logistic(knots, beta)


def hats(scores: Tensor, knots: Tensor) -> Tensor:
    """Evaluate hat functions: piecewise linear, 1 at one knot and 0 at all others, constant beyond the outer knots.

    Args:
        scores: any shape.
        knots: ascending, at least 2.

    Returns:
        The same shape with one more dimension, along which the sum is 1.

    >>> hats(torch.tensor([0.25, 9.0]), torch.tensor([0.0, 1.0, 2.0])).tolist()
    [[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]]
    """
    below, share = (each[..., None] for each in _locate(scores, knots))
    result = scores.new_zeros(*scores.shape, len(knots))
    result.scatter_(-1, below, 1 - share)
    return result.scatter_(-1, below + 1, share)


def _locate(scores: Tensor, knots: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the knot below each score, and the relative position between this knot and the next."""
    scores = scores.clamp(knots[0], knots[-1])
    below = torch.bucketize(scores, knots[1:-1], right=True)
    return below, (scores - knots[below]) / (knots[below + 1] - knots[below])


def _interpolate(scores: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    """Interpolate linearly between the heights of the knots."""
    below, share = _locate(scores, knots)
    return torch.lerp(heights[below], heights[below + 1], share)


def _design_matrix(examples: Examples, knots: list[Tensor]) -> Tensor:
    """Return φ: 1 and the hats of each score, averaged over the members of an example that count; float64."""
    seen = examples.seen.double()[..., None]
    number = seen.sum(1)
    parts = [(hats(examples.scores[..., f].double(), knots[f]) * seen).sum(1) / number for f in range(len(knots))]
    return torch.cat([torch.ones_like(number), *parts], dim=1)


def _quantile_knots(scores: Tensor) -> Tensor:
    ordered = ascending(scores.double())
    return ordered[[k * (len(ordered) - 1) // (KNOTS - 1) for k in range(KNOTS)]]


def _distinct_knots(places: Tensor) -> Tensor:
    """Drop knots that are too close to each other."""
    ordered = places.sort().values
    least = MIN_KNOT_DISTANCE * float(ordered[-1] - ordered[0])
    kept = [float(ordered[0])]
    for place in ordered[1:].tolist():
        if place - kept[-1] > least:
            kept.append(place)
    if len(kept) == 1:
        kept.append(kept[0] + 1.0)
    return torch.tensor(kept, dtype=torch.float64, device=places.device)
