"""Gradient descent on networks that goes on, once s has been revealed, with the clean entries alone.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

import math
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from dop_lightning.engine.alpha import REVEALED, reveal_time
from dop_lightning.engine.descent import BatchState, EntryWeights, Loop, StepRule
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.state import Evaluation
from dop_lightning.engine.steps.averaging import RunningAverage
from dop_lightning.engine.steps.base import over
from dop_lightning.engine.steps.clean_entries import (
    Sign,
    check_damage,
    clean_probability,
    corruption_probability,
    dense_noise,
    filled,
    first_look,
    first_support,
    regression,
)
from dop_lightning.engine.steps.clean_entries.damage import damage_of
from dop_lightning.engine.steps.network_loop import NetworkLoop, loop_of
from dop_lightning.foundation.checks import at_least, fraction, one_of, positive
from dop_lightning.model.corruption import PixelCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import EntryMask, Identity, Masked
from dop_lightning.model.signals.abilities import Guided
from dop_lightning.problems.problem import scale
from dop_lightning.problems.randomness import stream

CALMER, LIVELIER = 0.8, 1.6
"""Factors of the perturbation of the input from one estimate of w to the next."""

CERTAIN = 0.99
"""The probability of being clean above which an entry is kept to the bit."""

DENSE = 0.03
"""The standard deviation of dense noise, in scales of the observation, above which it is removed."""

FEW = 1e-3
"""Share of outliers below which dense noise is left alone: nothing was asked for but what they have destroyed."""

FORETOLD = 0.7
"""A regression with a larger held-out error, in shares of that of the mean value, knows nothing of the image."""

GUESSED = 0.9
"""Where the held-out error is larger than this share of that of the mean value, nothing is known of the image, and
the observation is the answer for now. The network goes on with what it takes for clean: fitted to everything, it would
come to fit the outliers, and never tell them again."""

NONE = 0.02
"""Where fewer entries than this share would be clean, the output is not good enough to tell them: the next look may."""

Dense = Literal["auto", "keep", "remove"]
"""What becomes of dense noise in clean entries."""

HOPELESS = 0.99
"""Where none would be clean, and the held-out error is larger than this share of that of the mean value, nothing is
known, and the observation is the answer until the network has learnt more."""

SMALL = 0.05
"""An error below this, in scales of the observation, is that of a plain: its mean value foretells it as well."""

NEVER = 1e15
"""Iterations that no run does: a rate may be so small that none would be enough."""


class Refinement(StepRule):
    r"""Gradient descent on θ, g and h (Eq. 10); then, with s revealed and dropped, on θ with the clean entries alone.

    The paper's s takes up a part of the signal, wherever the network has been wrong for long: a bias that no iteration
    removes. Here the corruption variables do what they are good at, which is to keep the outliers out while the
    network is still coarse. Then each entry gets the probability w that it is clean, the corruption is dropped,
    and θ goes on to descend ``ℓ(w∘(A(φ(θ)) − y))`` from where it is; w is estimated anew as the output becomes finer.

    *When.* An entry of g under a steady residual r grows by the factor ``e^{4wₗατ·r}`` an iteration (``wₗ`` the weight
    of the squared loss, 1/N for the mean), from the scale γ of its start. Corruptions of size t are revealed after

        ``T(t) = log(√t/γ) / (4wₗατ·t)``

    iterations, larger ones before. The descent with s ends at ``T(revealed·scale)``, with the scale of the observation.

    *Which.* See :func:`~dop_lightning.engine.steps.clean_entries.clean_probability`: nothing is assumed of the share of
    the corruption or of the outliers' values. A share of the entries is held out of all steps, to know the error of the
    output.

    A first look comes before all iterations (:func:`~dop_lightning.engine.steps.clean_entries.first_look`): where most
    of what stands out is the picture itself, as in line art, on a page of text and in a picture without damage, and in
    a frame that noise limits, it decides alone. A network that has not yet learnt a line would call it an outlier, and
    never learn it.

    *From what.* A network that starts from noise spends its first hundreds of iterations, and on a large image most of
    its parameters, on what a mean of the clean entries around each place knows at once. So a kernel regression x̃ stands
    in its input from the first iteration on. It leaves out the entry that it predicts, lest the network learn to copy,
    and all held-out entries, lest their error lie: an entry can be read back from its neighbours' estimates. See
    :mod:`dop_lightning.engine.steps.clean_entries.kernel_regression`.

    *How smoothly.* The perturbation of its input keeps a network from what is fine: from noise, and from details. With
    s dropped it becomes :data:`CALMER` times as large at each estimate at which that error is the least so far, else
    :data:`LIVELIER` times, within ``[(1 − mean w)², 1]`` of what it was at the start.

    *How long.* The held-out entries tell when the output begins to follow dense noise: a problem is ``stable`` where
    their error, ``Σ w|y − A(X̂)| / Σ w``, has not become smaller for ``patience`` iterations.

    *What is recovered.* X̄ is the running average of the output, that of the least error where it has become worse
    since. Where entries of y are entries of X (A is the identity, with a mask or without), what is clean is kept:

        ``X̂ = w∘y + (1 − w)∘X̄``,   ``ŝ = y − X̂ = (1 − w)∘(y − X̄)``,

    the posterior mean, with ``X̂ = y`` to the bit where ``w > certain``. Under dense noise a clean entry carries noise
    that X̄ does not: there, and under any other operator, ``X̂ = X̄``. In a frame that noise limits, a plain is
    filled by its mean (:func:`~dop_lightning.engine.steps.clean_entries.filled`).

    *Where a network is no use.* A network of few iterations knows a checkerboard, a lawn or a drawing less well than
    their neighbours do. Where the kernel regression of what the first look calls clean foretells held-out entries
    better than the output at its least error, that regression takes the place of X̄, and that look the place of w.

    *How certain.* The probability that an entry is corrupted, which is given beside ŝ, is calibrated at the end
    (:func:`~dop_lightning.engine.steps.clean_entries.corruption_probability`); w itself stays as it is.

    Args:
        revealed: t in scales of the observation, above 0.
        every: iterations between two estimates of w, at least 1.
        held_out: share of the observed entries that no step sees, above 0 and below 1; of whole pixels where those are
            corrupted as a whole.
        average: decay of the running average, at least 0 and below 1.
        patience: iterations, at least ``every``; ``None`` goes on as long as a run allows.
        guide: whether an image network is given a kernel regression of the observation in its input, where entries of y
            are entries of X and the signal can take it (:attr:`~dop_lightning.model.signals.base.Signal.guided`); and
            whether that regression takes the place of the output where it is better.
        dense: ``keep`` clean entries as they are; ``remove`` dense noise from them; ``auto`` removes it where its
            standard deviation, as estimated, is above :data:`DENSE` of the scale and there are outliers besides, but
            not where the problem is of measured values.
        damage: what is damaged besides isolated entries, see
            :func:`~dop_lightning.engine.steps.clean_entries.structured_damage`: ``points``, nothing; ``auto`` and
            ``lines``, dead rows and columns; ``scratches``, ``rectangles``, ``dust`` or ``text``, these as well; join
            several of them as in ``scratches+dust``. What is found counts as missing.
        sign: of the outliers: ``both``, ``positive`` (cosmic rays, hot pixels) or ``negative``; ``auto`` finds it in
            frames that noise limits, and is both elsewhere.

    Raises:
        ValueError: an argument is out of range.
    """

    ends_as: ClassVar[Status] = "stable"

    def __init__(
        self,
        revealed: float = REVEALED,
        every: int = 25,
        held_out: float = 0.05,
        average: float = 0.98,
        patience: int | None = 250,
        dense: Dense = "auto",
        guide: bool = True,
        damage: str = "auto",
        sign: Sign = "auto",
    ) -> None:
        self.revealed = positive("revealed", revealed)
        self.every = at_least("every", every, 1)
        self.held_out = positive("held_out", fraction("held_out", held_out))
        self.average = fraction("average", average)
        self.patience = None if patience is None else at_least("patience", patience, self.every)
        one_of("dense", dense, get_args(Dense))
        self.dense = dense
        self.guide = guide
        self.damage = check_damage(damage)
        one_of("sign", sign, get_args(Sign))
        self.sign = sign
        self.grid = self.every

    @property
    def weights(self) -> EntryWeights:
        """Itself."""
        return self

    def loop(self, state: BatchState) -> Loop:
        """Networks have a loop that replays CUDA graphs."""
        return NetworkLoop.of(state)

    def check(self, state: BatchState) -> None:
        """Networks with a corruption and a squared loss."""
        if state.signal.closed_form or state.automatic:
            raise ValueError(f"Refinement is for networks at a given tau, got {type(state.signal).__name__}")
        if not state.has_corruption or not isinstance(state.loss, SquaredLoss):
            raise ValueError("Refinement needs a corruption and a SquaredLoss, got a method without one of them")

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """The averages, w, which entries are held out, when s is dropped, and the least error with its iteration.

        What the host decides by is on the CPU, also where Lightning makes a device the default one.
        """
        size, host = len(state), torch.device("cpu")
        calm = torch.ones(size, dtype=torch.float32, device=host)
        if state.signal.perturbed is not None:
            state.signal.perturbed.calm_by(calm)  # the array itself: what is restored in it counts as well
        guide = torch.zeros_like(state.problems.observation)
        if guided := self._guided(state):
            guided.guide_by(guide)  # the array itself, again
        return {
            "calm": calm,
            "average": RunningAverage.start(state),
            "best": RunningAverage.start(state),
            "clean": torch.ones_like(guide),
            "held_out": self._draw_held_out(state),
            "structure": torch.zeros(size, dtype=torch.bool, device=host),
            "hopeless": torch.zeros(size, dtype=torch.bool, device=host),
            **({"guide": guide} if guided else {}),
            "look": torch.ones_like(guide),
            "most_dense": torch.full((size,), math.inf, dtype=torch.float32, device=host),
            "regression_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "network_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "damaged": torch.zeros_like(guide, dtype=torch.bool),
            "dense": torch.zeros(size, dtype=torch.float32, device=host),
            "refined_from": torch.tensor([self.reveal(state, k) for k in range(size)], device=host),
            "least_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "least_at": torch.zeros(size, dtype=torch.int64, device=host),
        }

    def _guided(self, state: BatchState) -> Guided | None:
        """The signal as one that takes a guide, if it is to have one."""
        images = _same_entries(state) and state.problems.observation.dim() == 4
        return state.signal.guided if self.guide and images else None

    def _begin(self, state: BatchState) -> None:
        """What is told of images before the first iteration: whether w is known already, and the guide."""
        problems, memory = state.problems, state.memory
        if not _same_entries(state):
            return
        for k, problem in enumerate(problems):
            y, size, pixels = problems.observation[k], scale(problem), _per_pixel(state)
            memory["damaged"][k] = damage_of(problem, self.damage).to(y.device)  # nothing that it holds is looked at
            mask = _observed(problems.mask, memory["damaged"], k)
            look = first_look(y, size, mask, pixels, problem.noise, self.sign)
            memory["structure"][k] = look.decides
            if look.decides:
                memory["clean"][k] = look.clean
            memory["clean"][k].masked_fill_(memory["damaged"][k], 0)
            memory["look"][k] = look.clean.masked_fill(memory["damaged"][k], 0)
            if not self.guide or y.dim() != 3:
                continue
            held_out = memory["held_out"][k]
            seen = ~held_out if mask is None else mask & ~held_out
            estimate = regression(y, memory["look"][k] * seen)
            if not look.by_noise:
                error, guessed = _errors(y, estimate, memory["look"][k] * held_out)
                memory["regression_error"][k] = error if error < FORETOLD * guessed else math.inf
                memory["most_dense"][k] = dense_noise(y, estimate, memory["look"][k], held_out) / size
            if "guide" in memory:
                if not look.decides:
                    estimate = regression(y, first_support(y, size, seen, pixels, self.sign))
                memory["guide"][k] = estimate

    def reveal(self, state: BatchState, k: int) -> int:
        """``T(revealed·scale)`` of problem k, rounded up to a multiple of ``every``."""
        _, rates = state.rates()
        rate = float(rates.flatten()[k]) if isinstance(rates, Tensor) else rates
        size = self.revealed * scale(state.problems[k])
        iterations = reveal_time(state.loss, rate, size, state.corruption, state.problems, k)
        return self.every * math.ceil(min(iterations, NEVER) / self.every)

    def _draw_held_out(self, state: BatchState) -> Tensor:
        y = state.problems.observation
        shape = (1, *y.shape[2:]) if _per_pixel(state) else y.shape[1:]
        streams = [stream(problem.seed, "held_out") for problem in state.problems]
        drawn = [torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for generator in streams]
        return (torch.stack(drawn) < self.held_out).expand(y.shape).contiguous().to(y.device)

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """The steps of gradient descent, each entry with its weight."""
        return loop_of(state).descend(state, iterations, self.average, partial(self._look, state), self.weigh_)

    def weigh_(self, state: BatchState, residual: Tensor) -> Tensor:
        """Entries count as far as they are clean, and not where they are held out."""
        return residual.mul_(state.memory["clean"]).masked_fill_(state.memory["held_out"], 0)

    def _look(self, state: BatchState, iteration: int) -> None:
        """Estimate the weights of the problems whose corruption is revealed, and drop their s.

        What has diverged within a block, and is found out at its end, keeps the weights that it has.
        """
        if iteration % self.every:
            return
        if iteration == 0:
            self._begin(state)
        problems, memory = state.problems, state.memory
        due = [k for k, begin in enumerate(memory["refined_from"].tolist()) if iteration >= begin]
        if not due:
            return
        expected = _expected(state, memory["average"])
        for k in due:
            if not bool(expected[k].isfinite().all()):
                continue
            y, held_out = problems.observation[k], memory["held_out"][k]
            if not memory["structure"][k]:
                found = self._told_clean(state, k, expected[k])
                if found is None:
                    if math.isinf(float(memory["least_error"][k])):  # s is there still
                        memory["refined_from"][k] = iteration + self.every
                    continue
                memory["clean"][k] = found
            clean = memory["clean"][k]
            dense = dense_noise(y, expected[k], clean, held_out) / scale(problems[k])
            memory["dense"][k] = min(float(dense), float(memory["most_dense"][k]))
            error, guessed = _errors(y, expected[k], clean * held_out)
            if not memory["structure"][k]:  # for now: the network is fitted to what is clean in any case
                memory["hopeless"][k] = error > max(GUESSED * guessed, SMALL * scale(problems[k]))
            calm, lost = float(memory["calm"][k]), 1 - float(clean.mean())
            if error < float(memory["least_error"][k]):
                memory["least_error"][k] = error  # not where it is nan: nothing held out is clean
                memory["least_at"][k] = iteration
                memory["best"][k] = memory["average"][k]
                memory["network_error"][k] = _errors(y, expected[k], memory["look"][k] * held_out)[0]
                memory["calm"][k] = max(CALMER * calm, lost**2)
            else:
                memory["calm"][k] = min(1.0, max(LIVELIER * calm, lost**2))
            state.corruption.drop_(k)

    def _told_clean(self, state: BatchState, k: int, expected: Tensor) -> Tensor | None:
        """Estimate w of problem k; ``None`` if the output is not yet good enough."""
        y, held_out = state.problems.observation[k], state.memory["held_out"][k]
        mask = _observed(state.problems.mask, state.memory["damaged"], k)
        size, pixels = scale(state.problems[k]), _per_pixel(state)
        found = clean_probability(y, expected, held_out, size, mask, pixels, self.sign, calibrated=True)
        everything = torch.ones_like(y) if mask is None else mask.to(y.dtype)
        if float(found.sum()) >= NONE * float(everything.sum()):
            return found
        if bool(state.memory["regression_error"][k].isfinite()):
            return state.memory["look"][k].clone()  # a regression knows the image, and this is what it was made with
        if math.isinf(float(state.memory["least_error"][k])):  # nothing has been told before
            error, guessed = _errors(y, expected, everything * held_out)
            state.memory["hopeless"][k] = error > HOPELESS * guessed
        return None

    def recovered(self, state: BatchState, evaluation: Evaluation) -> Evaluation:
        """The average and what it leaves over, where s has been dropped; that of the least error if it was since."""
        memory, device = state.memory, evaluation.signal.device
        dropped = _is_dropped(state, state.iteration).to(device)
        average = self._best_average(state, state.iteration)
        y, clean = state.problems.observation, memory["clean"]
        regressed = self._is_regressed(state)
        if bool(regressed.any()):
            clean = torch.where(over(regressed.to(device), clean), memory["look"], clean)
        for k, problem in enumerate(state.problems):
            if regressed[k]:
                average[k] = regression(y[k], clean[k])
            elif problem.noise is not None and memory["structure"][k]:
                average[k] = filled(y[k], average[k], clean[k] > CERTAIN, problem.noise)
        left_over = (y - state.operator(average)) * (1 - clean)
        kept = (dropped.cpu() & self._keeps(state)).to(device)
        if bool(kept.any()):
            certain = over(kept, y) & (clean > CERTAIN)
            left_over = torch.where(certain, 0, left_over)
            observed = over(kept, y) & (clean > 0)  # not where nothing was observed
            average = torch.where(observed, torch.where(certain, y, y - left_over), average)
        hopeless = memory["hopeless"].to(device)
        if bool(hopeless.any()):
            left_over = torch.where(over(hopeless, y), 0, left_over)
            if _same_entries(state):
                seen = ~memory["damaged"] if state.problems.mask is None else state.problems.mask & ~memory["damaged"]
                average = torch.where(over(hopeless, y) & seen, y, average)
        told = dropped | hopeless
        return replace(
            evaluation,
            signal=torch.where(over(told, average), average, evaluation.signal),
            corruption=torch.where(over(told, left_over), left_over, evaluation.corruption),
            average=None,
        )

    def _best_average(self, state: BatchState, iteration: int) -> Tensor:
        """The average, or that of the least error where it has become worse since."""
        memory = state.memory
        looked = (iteration - 1) // self.every * self.every
        worse = (memory["least_error"].isfinite() & (memory["least_at"] < looked)).to(memory["average"].device)
        return torch.where(over(worse, memory["best"]), memory["best"], memory["average"])

    def corruption_probability(self, state: BatchState, k: int, iteration: int) -> Tensor | None:
        """Return the calibrated probability of each entry, from w and what is recovered; ``None`` before s is dropped.

        Where the first look decides, it is ``1 − w``; structured damage has 1. See
        :mod:`dop_lightning.engine.steps.clean_entries.calibration`.
        """
        if not bool(_is_dropped(state, iteration)[k]):
            return None
        problems, clean, held_out = state.problems, state.memory["clean"][k], state.memory["held_out"][k]
        observed = None if problems.mask is None else problems.mask[k]
        regressed = bool(self._is_regressed(state)[k])
        if regressed:
            clean = state.memory["look"][k]
        elif bool(state.memory["hopeless"][k]):
            return torch.zeros_like(clean, device="cpu").float()
        if regressed or bool(state.memory["structure"][k]):
            return (1 - clean if observed is None else (1 - clean) * observed).cpu().float()
        expected = _expected(state, self._best_average(state, iteration))[k]
        if not bool(expected.isfinite().all()):
            return None
        y, size, damaged = problems.observation[k], scale(problems[k]), state.memory["damaged"][k]
        mask = _observed(problems.mask, state.memory["damaged"], k)
        found = corruption_probability(y, expected, clean, held_out, size, mask, _per_pixel(state))
        return found.masked_fill_((damaged if observed is None else damaged & observed).to(found.device), 1)

    def _keeps(self, state: BatchState) -> Tensor:
        """Of each problem, whether its clean entries are kept: bool ``(K,)`` on the CPU."""
        if not _same_entries(state):
            return torch.zeros(len(state), dtype=torch.bool, device="cpu")
        if self.dense != "auto":
            return torch.full((len(state),), self.dense == "keep", device="cpu")
        corrupted = 1 - state.memory["clean"].flatten(1).mean(1).cpu()
        measured = torch.tensor([problem.measured for problem in state.problems], device="cpu")
        by_look = state.memory["structure"] | self._is_regressed(state)
        return (state.memory["dense"] <= DENSE) | (corrupted < FEW) | by_look | measured

    def _is_regressed(self, state: BatchState) -> Tensor:
        """Of each problem, whether a kernel regression foretells better than the network: bool ``(K,)`` on the CPU."""
        return state.memory["regression_error"] < state.memory["network_error"]

    def finished(self, state: BatchState) -> list[int]:
        """Problems whose held-out error has stopped falling, told where it is looked at, whatever the blocks."""
        if self.patience is None or state.iteration % self.every:
            return []
        since = state.iteration - state.memory["least_at"]
        refined = state.memory["least_error"].isfinite()
        return torch.nonzero(refined & (since >= self.patience)).flatten().tolist()


def _errors(y: Tensor, expected: Tensor, weights: Tensor) -> tuple[float, float]:
    """The mean error of an estimate, and that of whoever knows nothing but the mean; nan where nothing counts."""
    at = weights > 0
    values, errors, counted = (tensor[at].cpu().double() for tensor in (y, (y - expected).abs(), weights))
    total = float(counted.sum())  # not on the device: Apple's have no float64
    if total == 0:
        return math.nan, math.nan
    apart = (values - (counted * values).sum() / total).abs()
    return float((counted * errors).sum() / total), float((counted * apart).sum() / total)


def _expected(state: BatchState, average: Tensor) -> Tensor:
    """``A(X̂)`` where nothing was observed too: a hole of the mask is no edge of the image."""
    operator = state.operator
    if isinstance(operator, EntryMask):
        return average
    return operator.operator(average) if isinstance(operator, Masked) else operator(average)


def _observed(mask: Tensor | None, damaged: Tensor, k: int) -> Tensor | None:
    """What was observed of problem k and is no structured damage; ``None`` where that is all."""
    if mask is None:
        return ~damaged[k] if bool(damaged[k].any()) else None
    return mask[k] & ~damaged[k]


def _is_dropped(state: BatchState, iteration: int) -> Tensor:
    """Whether s is out of the way, for each problem: bool ``(K,)`` on the CPU."""
    return (state.memory["refined_from"] < iteration) | (state.memory["structure"] & (iteration > 0))


def _same_entries(state: BatchState) -> bool:
    """Whether entries of y are entries of X."""
    return isinstance(state.operator, Identity | EntryMask)


def _per_pixel(state: BatchState) -> bool:
    """Whether the channels of a pixel are corrupted together."""
    return isinstance(state.corruption, PixelCorruption)
