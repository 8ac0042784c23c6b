"""Gradient descent on networks with s until s is revealed, then on the clean entries only.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

import math
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple, get_args

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
    interpolate,
    kriged,
    regression,
    with_recurrence,
)
from dop_lightning.engine.steps.clean_entries.easy import are_few, is_easy
from dop_lightning.engine.steps.clean_entries.errors import mean_errors, trimmed_error
from dop_lightning.engine.steps.clean_entries.initial import initial, initial_support
from dop_lightning.engine.steps.clean_entries.joint import Per
from dop_lightning.engine.steps.clean_entries.regions import easy_tile
from dop_lightning.engine.steps.clean_entries.support import FirstSupport
from dop_lightning.engine.steps.clean_entries.undamaged import with_undamaged, without_undamaged
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE
from dop_lightning.engine.steps.network_loop import NetworkLoop, loop_of
from dop_lightning.foundation.checks import at_least, fraction, one_of, positive
from dop_lightning.model.corruption import PixelCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.operators import EntryMask, Identity, Masked
from dop_lightning.model.signals.capabilities import Guided
from dop_lightning.problems.problem import Problem, scale
from dop_lightning.problems.randomness import stream

CALMER, LIVELIER = 0.8, 1.6
"""Factors by which the perturbation of the input changes between two estimates of w."""

KEPT_PROBABILITY = 0.99
"""Probability of being clean above which an entry is kept bit for bit."""

DENSE = 0.03
"""Standard deviation of dense noise, relative to the scale of the observation, above which it is removed."""

MAX_SPARSE_FRACTION = 1e-3
"""Fraction of outliers below which dense noise is kept, since almost all entries are clean."""

MAX_REGRESSION_ERROR = 0.7
"""A regression with a larger held-out error than this, relative to that of the mean value, is not used."""

MAX_INFORMATIVE_ERROR = 0.9
"""If the held-out error, relative to that of the mean value, exceeds this, the output contains no information on the
image, and the observation is returned for now. The network continues with the entries that it considers clean: if it
were fitted to all entries, it would fit the outliers, and could not detect them later."""

NONE = 0.02
"""If a smaller fraction of the entries would be clean, the output is not good enough yet, and w is estimated again at
the next check."""

OUTPUT, KRIGED, INTERPOLATED = 0, 1, 2
"""The best prediction: the output of the network, the output with its residuals kriged, or the interpolation."""

BETTER, AS_WELL = 0.9, 1.05
"""The first support and its interpolation replace the result of the network if their error, relative to that of the
network, is less than the first value, or less than the second value if interpolation predicts best anyway."""

PROGRESS = 0.98
"""A held-out error below this, relative to the error at the last progress, is progress. A problem ends after
``patience`` iterations without progress."""

Dense = Literal["auto", "keep", "remove"]
"""Handling of dense noise in clean entries."""

MAX_RECOVERABLE_ERROR = 0.99
"""If no entry would be clean and the held-out error, relative to that of the mean value, exceeds this, the observation
is returned until the network has learnt more."""

REJECTED = 0.05
"""If the output rejects more than this fraction of the clean entries of the first support, it is compared with the
interpolation."""

TRIMMED_FRACTION = 0.95
"""Fraction of the clean entries whose errors are used in that comparison."""

SMALL = 0.05
"""Errors below this, relative to the scale of the observation, are accepted: in a flat image, the mean predicts as well
as any output."""

FEW_CLEAN, GUESSED_OF_FEW, SMALL_OF_FEW = 0.4, 0.5, 0.02
"""If the fraction of clean entries is below the first value, and the other entries have arbitrary values, the others
replace :data:`MAX_INFORMATIVE_ERROR` and :data:`SMALL`."""

NUM_IMPULSE_VALUES = 4
"""If half of the entries that are not clean have one of this many values, they are outliers and not noise."""

MAX_ITERATION = 1e15
"""More iterations than any run: the upper bound if the learning rate is too small to reveal s."""


class Refinement(StepRule):
    r"""Gradient descent on θ, g and h (Eq. 10) until s is revealed; then on θ alone, fitted to the clean entries.

    The paper's s absorbs part of the signal wherever the network has been wrong for a long time, and further iterations
    do not remove this bias. Here, s only keeps the outliers out while the network is still coarse. Then the probability
    w that an entry is clean is estimated, s is dropped, and gradient descent on ``ℓ(w∘(A(φ(θ)) − y))`` continues from
    the current θ. w is re-estimated as the output becomes more accurate.

    *Dropping s.* Under a constant residual r, an entry of g grows by the factor ``e^{4wₗατ·r}`` per iteration (``wₗ``
    is the weight of the squared loss, 1/N for the mean), from its initial scale γ. Corruptions of size t are revealed
    after

        ``T(t) = log(√t/γ) / (4wₗατ·t)``

    iterations, larger ones earlier. The descent with s ends at ``T(revealed·scale)``, with the scale of the
    observation.

    *Clean entries.* See :func:`~dop_lightning.engine.steps.clean_entries.clean_probability`. No assumptions are made on
    the fraction of corrupted entries or the values of the outliers. A fraction of the entries is held out of all steps,
    to measure the error of the output.

    A first look precedes all iterations (:func:`~dop_lightning.engine.steps.clean_entries.first_look`). It is final if
    most entries that stand out belong to the picture, as in line art, pages of text and undamaged pictures, and in
    noise-limited frames. A network that has not yet learnt a line would call it an outlier, and never learn it.

    *Start.* A network that starts from noise spends its first hundreds of iterations, and on a large image most of its
    parameters, on learning what the neighbours of an entry give immediately. An interpolation x̃ is therefore part of
    its input from the first iteration (:func:`~dop_lightning.engine.steps.clean_entries.interpolate`). It leaves out
    the entry that it predicts, so that the network cannot learn to copy, and all held-out entries, so that their error
    stays unbiased: the network could reconstruct an entry from the interpolation at its neighbours.

    *Perturbation.* The perturbation of its input prevents a network from fitting fine structure: noise and details.
    After s is dropped, the perturbation is multiplied at each estimate of w by :data:`CALMER` if the held-out error has
    a new minimum, else by :data:`LIVELIER`, within ``[(1 − mean w)², 1]`` of its initial value.

    *Stopping.* An image without damage ends after one iteration. So does an image with so few outliers that the
    interpolation restores it without visible errors (:mod:`~dop_lightning.engine.steps.clean_entries.easy`). For other
    images, the held-out entries show when the output begins to fit dense noise: a problem is ``stable`` if their error,
    ``Σ w|y − A(X̂)| / Σ w``, has not decreased by 2 % for ``patience`` iterations.

    *Result.* X̄ is the running average of the output, or the average at the minimum error if the error has increased
    since. If entries of y are entries of X (A is the identity, with or without a mask), clean entries are kept:

        ``X̂ = w∘y + (1 − w)∘X̄``,   ``ŝ = y − X̂ = (1 − w)∘(y − X̄)``,

    the posterior mean, with ``X̂ = y`` bit for bit where ``w > 0.99`` (:data:`KEPT_PROBABILITY`). With dense noise,
    clean entries are noisy and X̄ is not; in this case, and with any other operator, ``X̂ = X̄``. In noise-limited
    frames, flat regions are filled with their mean (:func:`~dop_lightning.engine.steps.clean_entries.filled`).

    *Kriging.* Residuals of the output are correlated between neighbouring pixels and channels. For images, residuals of
    corrupted entries are predicted from those of clean entries around them
    (:func:`~dop_lightning.engine.steps.clean_entries.krige`), and added to X̄, if this reduces the held-out error. If
    the interpolation has the smallest error, it replaces X̄.

    *Border.* Border lines with a single value, unlike the adjacent picture, are detected and returned exactly
    (:func:`~dop_lightning.engine.steps.clean_entries.flat_border`), unless ``damage`` is ``points``.

    *Without the network.* After few iterations, a network represents a checkerboard, a lawn or a drawing less
    accurately than a local mean. The first support and its interpolation (those of the first look if many outliers have
    random values) replace w and X̄ if that interpolation predicts held-out entries better by a tenth than the output at
    its minimum error. The first support also replaces w if w rejects more than 5 % of its clean entries and the output
    predicts held-out entries worse than the interpolation. Otherwise, the network would be fitted to fewer and fewer
    entries, and reject even more of them.

    *Probability.* The probability that an entry is corrupted, reported in addition to ŝ, is calibrated at the end
    (:func:`~dop_lightning.engine.steps.clean_entries.corruption_probability`); w itself does not change.

    Args:
        revealed: t relative to the scale of the observation, above 0.
        every: iterations between two estimates of w, at least 1.
        held_out: fraction of the observed entries that are held out of all steps, above 0 and below 1. Whole pixels are
            held out if pixels are corrupted as a whole.
        average: decay of the running average, at least 0 and below 1.
        patience: iterations without progress before a problem ends, at least ``every``; ``None`` disables stopping.
        guide: whether the input of image networks includes an interpolation of the observation, if entries of y are
            entries of X and the signal supports it (:attr:`~dop_lightning.model.signals.base.Signal.guided`); and
            whether the interpolation replaces the output if it is better.
        kriging: whether the residuals of images are kriged
            (:func:`~dop_lightning.engine.steps.clean_entries.krige`), if entries of y are entries of X. Without it, the
            interpolation is a kernel regression.
        dense: ``keep`` clean entries unchanged; ``remove`` dense noise from them; ``auto`` removes it if its estimated
            standard deviation exceeds :data:`DENSE` times the scale and there are outliers as well, but never from
            measured values.
        damage: damage to detect in addition to isolated entries, see
            :func:`~dop_lightning.engine.steps.clean_entries.structured_damage`: ``points``, none; ``auto`` and
            ``lines``, dead rows and columns; ``scratches``, ``rectangles``, ``dust`` and ``text``, those as well; join
            several as in ``scratches+dust``. Detected damage is treated as missing.
        sign: sign of the outliers: ``both``, ``positive`` (cosmic rays, hot pixels) or ``negative``; ``auto`` detects
            it in noise-limited frames, and is ``both`` for other images.
        per: ``entry`` if the channels of a pixel are corrupted independently, ``pixel`` if pixels are corrupted as a
            whole; ``auto`` estimates it with the first support. A pixel corruption implies ``pixel``.

    Raises:
        ValueError: an argument is out of range.
    """

    ends_as: ClassVar[Status] = "stable"
    added_memory: ClassVar[frozenset[str]] = frozenset({"distance"})
    uses_undamaged: ClassVar[bool] = True

    def __init__(
        self,
        revealed: float = REVEALED,
        every: int = 25,
        held_out: float = 0.05,
        average: float = 0.95,
        patience: int | None = 150,
        dense: Dense = "auto",
        guide: bool = True,
        kriging: bool = True,
        damage: str = "auto",
        sign: Sign = "auto",
        per: Per = "auto",
    ) -> None:
        self.revealed = positive("revealed", revealed)
        self.every = at_least("every", every, 1)
        self.held_out = positive("held_out", fraction("held_out", held_out))
        self.average = fraction("average", average)
        self.patience = None if patience is None else at_least("patience", patience, self.every)
        one_of("dense", dense, get_args(Dense))
        self.dense = dense
        self.guide = guide
        self.kriging = kriging
        self.damage = check_damage(damage)
        one_of("sign", sign, get_args(Sign))
        self.sign = sign
        one_of("per", per, get_args(Per))
        self.per: Per = per
        self.grid, self.first = self.every, 1

    @property
    def weights(self) -> EntryWeights:
        """The rule itself, which weights the entries."""
        return self

    def loop(self, state: BatchState) -> Loop:
        """Return the loop of networks, which can replay CUDA graphs."""
        return NetworkLoop.of(state)

    def check(self, state: BatchState) -> None:
        """Require a network with a corruption and a squared loss."""
        if state.signal.closed_form or state.automatic:
            raise ValueError(f"Refinement requires a network and a numeric tau, got {type(state.signal).__name__}")
        if not state.has_corruption or not isinstance(state.loss, SquaredLoss):
            raise ValueError("Refinement requires a corruption and a SquaredLoss, got a method without one of them")

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """Return the averages, w, the held-out entries, when s is dropped, and the minimum error with its iteration.

        Values that the host reads are on the CPU, even if Lightning sets another default device.
        """
        size, host = len(state), torch.device("cpu")
        calm = torch.ones(size, dtype=torch.float32, device=host)
        if state.signal.perturbed is not None:
            state.signal.perturbed.scale_perturbation(calm)  # the array itself, so that restoring it takes effect
        guide = torch.zeros_like(state.problems.observation)
        if guided := self._guided_signal(state):
            guided.guide_by(guide)  # the array itself, as above
        return {
            "calm": calm,
            "average": RunningAverage.start(state),
            "best": RunningAverage.start(state),
            "clean": torch.ones_like(guide),
            "held_out": self._draw_held_out(state),
            "joint": torch.full((size,), self._per(state) == "pixel", device=host),
            "structure": torch.zeros(size, dtype=torch.bool, device=host),
            "distance": torch.full((size,), FAR_DISTANCE, dtype=torch.float64, device=host),
            "hopeless": torch.zeros(size, dtype=torch.bool, device=host),
            **({"guide": guide} if guided else {}),
            "easy": torch.zeros(size, dtype=torch.bool, device=host),
            "few_values": torch.zeros(size, dtype=torch.bool, device=host),
            "look": torch.ones_like(guide),
            "regression": torch.zeros_like(guide),
            "most_dense": torch.full((size,), math.inf, dtype=torch.float32, device=host),
            "regression_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "network_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "by": torch.zeros(size, dtype=torch.int64, device=host),
            "damaged": torch.zeros_like(guide, dtype=torch.bool),
            "flat": torch.zeros_like(guide, dtype=torch.bool),
            "border": torch.zeros_like(guide),
            "dense": torch.zeros(size, dtype=torch.float32, device=host),
            "refined_from": torch.tensor([self.reveal(state, k) for k in range(size)], device=host),
            "least_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "least_at": torch.zeros(size, dtype=torch.int64, device=host),
            "progress_error": torch.full((size,), math.inf, dtype=torch.float64, device=host),
            "progress_at": torch.zeros(size, dtype=torch.int64, device=host),
        }

    def _per(self, state: BatchState) -> Per:
        """Return whether the channels of a pixel are corrupted together, as far as the settings specify it."""
        return "pixel" if isinstance(state.corruption, PixelCorruption) else self.per

    def _guided_signal(self, state: BatchState) -> Guided | None:
        """Return the signal as :class:`Guided` if it supports a guide and ``guide`` is true."""
        images = _has_same_entries(state) and state.problems.observation.dim() == 4
        return state.signal.guided if self.guide and images else None

    def _take_first_look(self, state: BatchState) -> None:
        """Take the first look at images: detect structured damage, decide whether the look fixes w, set the guide."""
        problems, memory = state.problems, state.memory
        if not _has_same_entries(state):
            return
        for k, problem in enumerate(problems):
            y, size, per = problems.observation[k], scale(problem), self._per(state)
            state.poll()
            if self._accept_easy_tile(state, k):
                continue
            found = initial(problem, self.damage, per == "pixel", self.sign, y)
            look, clean = found.look, found.look.clean
            memory["damaged"][k], memory["flat"][k] = found.damaged, found.flat  # these entries are not used
            memory["border"][k] = found.border.nan_to_num(0)
            memory["structure"][k] = look.decides
            memory["distance"][k] = look.distance
            memory["clean"][k] = clean if look.decides else ~found.damaged
            memory["look"][k] = clean
            if not self.guide or y.dim() != 3:
                continue
            support = initial_support(found, y, size, per, self.sign, state.poll)
            state.poll()
            if support.joint and not memory["joint"][k]:
                memory["joint"][k] = True
                memory["held_out"][k] = memory["held_out"][k, :1].clone()  # whole pixels
            if not look.by_noise:
                self._check_regression(state, k, clean, support)
            if "guide" in memory and not memory["easy"][k]:
                estimate = memory["regression"][k]
                if look.by_noise or support.is_uncertain:
                    estimate = self._interpolate_clean(y, support.clean.masked_fill(memory["held_out"][k], 0))
                memory["guide"][k] = estimate

    def _accept_easy_tile(self, state: BatchState, k: int) -> bool:
        """Use support and interpolation of the region of problem k if it is an easy tile, and return whether it is."""
        memory, problem, y = state.memory, state.problems[k], state.problems.observation[k]
        if not (self.guide and self.kriging) or self.dense == "remove" or y.dim() != 3:
            return False
        found = easy_tile(problem, y, KEPT_PROBABILITY, self.damage, self._per(state), self.sign, state.poll)
        if found is None or not self._keeps_noise(problem, found.dense):
            return False
        if not found.error < max(MAX_REGRESSION_ERROR * found.guessed, SMALL * scale(problem)):
            return False
        memory["look"][k], memory["regression"][k] = found.clean, found.estimate
        memory["easy"][k] = memory["few_values"][k] = True
        memory["joint"][k] |= found.joint
        memory["regression_error"][k], memory["most_dense"][k] = found.error, found.dense
        return True

    def _check_regression(self, state: BatchState, k: int, look: Tensor, support: FirstSupport) -> None:
        """Predict the held-out entries of problem k without the network, and decide whether the result is usable."""
        memory, problem, y = state.memory, state.problems[k], state.problems.observation[k]
        held_out, size, kind = memory["held_out"][k], scale(problem), memory["structure"][k]
        clean = look if support.is_uncertain else support.clean
        memory["look"][k] = clean
        memory["few_values"][k] = not (kind or support.is_uncertain)
        known = clean.masked_fill(held_out, 0)
        observed = problem.mask is None and not bool(memory["damaged"][k].any())
        few = bool(memory["few_values"][k]) and observed and are_few(clean)
        estimate = self._interpolate_clean(
            y, known, held_out | (clean <= KEPT_PROBABILITY) if few else None, support.estimate
        )
        dense = float(dense_noise(y, estimate, clean, held_out)) / size
        memory["easy"][k] = few and self._keeps_noise(problem, dense) and is_easy(y, clean, estimate, held_out, size)
        if few and not memory["easy"][k]:
            estimate = self._interpolate_clean(y, known, first=support.estimate)  # the guide needs all entries
        error, guessed = mean_errors(y, estimate, clean * held_out)
        most = max(
            MAX_REGRESSION_ERROR * guessed, SMALL * size if memory["easy"][k] else 0
        )  # the mean predicts a flat image
        memory["regression_error"][k] = error if error < most else math.inf
        memory["regression"][k] = estimate
        memory["most_dense"][k] = dense

    def _keeps_noise(self, problem: Problem, dense: float) -> bool:
        """Return whether dense noise of a standard deviation, relative to the scale, is kept."""
        return self.dense == "keep" or (self.dense == "auto" and (dense <= DENSE or problem.measured))

    def _interpolate_clean(
        self, y: Tensor, clean: Tensor, at: Tensor | None = None, first: Tensor | None = None
    ) -> Tensor:
        """Interpolate the entries ``at``, by default all of them; without kriging, use only kernel regression."""
        return interpolate(y, clean, at, first) if self.kriging else regression(y, clean)

    def reveal(self, state: BatchState, k: int) -> int:
        """Return ``T(revealed·scale)`` of problem k, rounded up to a multiple of ``every``."""
        _, rates = state.rates()
        rate = float(rates.flatten()[k]) if isinstance(rates, Tensor) else rates
        size = self.revealed * scale(state.problems[k])
        iterations = reveal_time(state.loss, rate, size, state.corruption, state.problems, k)
        return self.every * math.ceil(min(iterations, MAX_ITERATION) / self.every)

    def _draw_held_out(self, state: BatchState) -> Tensor:
        y = state.problems.observation
        shape = (1, *y.shape[2:]) if self._per(state) == "pixel" else y.shape[1:]
        streams = [stream(problem.seed, "held_out") for problem in state.problems]
        drawn = [torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") for generator in streams]
        return (torch.stack(drawn) < self.held_out).expand(y.shape).contiguous().to(y.device)

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """Take weighted steps of gradient descent."""
        return loop_of(state).descend(state, iterations, self.average, partial(self._look, state), self.weigh_)

    def weigh_(self, state: BatchState, residual: Tensor) -> Tensor:
        """Multiply the residual by w in place, and by 0 for held-out entries."""
        return residual.mul_(state.memory["clean"]).masked_fill_(state.memory["held_out"], 0)

    def _look(self, state: BatchState, iteration: int) -> bool:
        """Estimate w if it is due, and return whether all problems are settled by the first look."""
        self._update_clean(state, iteration)
        return iteration == 0 and bool(self._is_settled(state).all())

    def _update_clean(self, state: BatchState, iteration: int) -> None:
        """Estimate w of the problems whose corruption is revealed, and drop their s.

        Problems that have diverged within the block keep their w. The divergence is detected at the end of the block.
        """
        if iteration % self.every:
            return
        if iteration == 0:
            self._take_first_look(state)
        problems, memory = state.problems, state.memory
        due = [k for k, begin in enumerate(memory["refined_from"].tolist()) if iteration >= begin]
        if not due:
            return
        expected, best = _predicted_observation(state, memory["average"]), _predicted_observation(state, memory["best"])
        for k in due:
            if not bool(expected[k].isfinite().all()):
                continue
            y, held_out = problems.observation[k], memory["held_out"][k]
            if not memory["structure"][k]:
                found = self._estimate_clean(state, k, expected[k])
                if found is None:
                    if math.isinf(float(memory["least_error"][k])):  # s is not dropped yet
                        memory["refined_from"][k] = iteration + self.every
                    continue
                memory["clean"][k] = found
            clean, known = memory["clean"][k], math.isfinite(float(memory["least_error"][k]))
            alone = self._predict_by_interpolation(state, k)
            now = self._best_prediction(state, k, expected[k], alone)
            dense = dense_noise(y, now.values, clean, held_out) / scale(problems[k])
            memory["dense"][k] = min(float(dense), float(memory["most_dense"][k]))
            if not memory["structure"][k]:  # may change later: the network is fitted to the clean entries anyway
                number = float((clean * held_out).sum())
                memory["hopeless"][k] = now.error > most_error(y, clean, now.guessed, scale(problems[k]), number)
            if known:  # compare on the same entries, since w has changed
                before = self._best_prediction(state, k, best[k], alone)
                memory["least_error"][k], memory["by"][k] = before.error, before.by
            calm, lost = float(memory["calm"][k]), 1 - float(clean.mean())
            if now.error < float(memory["least_error"][k]) or not known:
                memory["least_error"][k] = (
                    math.inf if math.isnan(now.error) else now.error
                )  # nan: no held-out entry is clean
                memory["least_at"][k] = iteration
                memory["best"][k] = memory["average"][k]
                memory["by"][k] = now.by
                both = memory["look"][k] * clean * held_out  # the first look may be wrong too
                memory["network_error"][k] = mean_errors(y, now.values, both)[0]
                if bool(memory["regression_error"][k].isfinite()):
                    memory["regression_error"][k] = mean_errors(y, memory["regression"][k], both)[0]
                memory["calm"][k] = max(CALMER * calm, lost**2)
            else:
                memory["calm"][k] = min(1.0, max(LIVELIER * calm, lost**2))
            if float(memory["least_error"][k]) < PROGRESS * float(memory["progress_error"][k]):
                memory["progress_error"][k], memory["progress_at"][k] = memory["least_error"][k], iteration
            state.corruption.zero_problem_(k)

    def _predict_by_interpolation(self, state: BatchState, k: int) -> Tensor | None:
        """Predict the held-out entries of problem k by interpolating the others; ``None`` if it is not an image.

        Pixels are classified by the edges in the first interpolation, because another one takes time.
        """
        y, held_out, first = state.problems.observation[k], state.memory["held_out"][k], state.memory["regression"][k]
        if not self.kriging or y.dim() != 3 or not _has_same_entries(state):
            return None
        clean = state.memory["clean"][k].masked_fill(held_out, 0)
        return interpolate(y, clean, held_out, first if bool(first.any()) else None)

    def _best_prediction(self, state: BatchState, k: int, expected: Tensor, alone: Tensor | None) -> "_Prediction":
        """Return the prediction of the held-out entries of problem k with the smallest error.

        Args:
            state: the batch.
            k: position of the problem.
            expected: the output of the network.
            alone: the interpolation, if the problem is an image.
        """
        y, clean, held_out = state.problems.observation[k], state.memory["clean"][k], state.memory["held_out"][k]
        tried = [expected]
        if alone is not None:
            tried += [kriged(y, expected, clean.masked_fill(held_out, 0), held_out), alone]
        found = [_Prediction(values, by, *mean_errors(y, values, clean * held_out)) for by, values in enumerate(tried)]
        # in an image of noise, entries that are not called outliers are near the mean, so that an interpolation seems
        # to predict them
        usable = [each for each in found if each.by != INTERPOLATED or each.error < MAX_REGRESSION_ERROR * each.guessed]
        return min(usable, key=lambda prediction: prediction.error)

    def _estimate_clean(self, state: BatchState, k: int, expected: Tensor) -> Tensor | None:
        """Estimate w of problem k; ``None`` if the output is not good enough yet."""
        y, held_out = state.problems.observation[k], state.memory["held_out"][k]
        mask = _observed(state.problems.mask, state.memory["damaged"], k)
        size, pixels = scale(state.problems[k]), bool(state.memory["joint"][k])
        found = clean_probability(
            y, expected, held_out, size, mask, pixels, self.sign, calibrated=True, distance=self._distance(state, k)
        )
        found = with_undamaged(with_recurrence(y, found, mask, pixels), state.problems[k])
        if self._is_worse_than_interpolation(state, k, expected, found):
            return state.memory["look"][k].clone()
        everything = torch.ones_like(y) if mask is None else mask.to(y.dtype)
        if float(found.sum()) >= NONE * float(everything.sum()):
            return found
        if bool(state.memory["regression_error"][k].isfinite()):
            return state.memory["look"][k].clone()  # the regression is good, and was made with this w
        if math.isinf(float(state.memory["least_error"][k])):  # w has not been estimated before
            error, guessed = mean_errors(y, expected, everything * held_out)
            state.memory["hopeless"][k] = error > MAX_RECOVERABLE_ERROR * guessed
        return None

    def _distance(self, state: BatchState, k: int) -> float:
        """Return the distance beyond which entries of problem k are far from their estimate, in scales."""
        return float(state.memory["distance"][k])

    def _is_worse_than_interpolation(self, state: BatchState, k: int, expected: Tensor, found: Tensor) -> bool:
        """Return whether the output is worse than the interpolation and rejects clean entries of the first support.

        Used only for outliers of few values: for random values, the first support is not better than the network.
        """
        memory = state.memory
        look, at, rejected = memory["look"][k], memory["held_out"][k], memory["look"][k] * (1 - found)
        if not memory["few_values"][k] or not float(rejected.sum()) > REJECTED * float(look.sum()):
            return False
        observed = _observed(state.problems.mask, memory["damaged"], k)
        at = at if observed is None else at & observed
        y, share = state.problems.observation[k], TRIMMED_FRACTION * float(look[at].mean()) if bool(at.any()) else 0.0
        return trimmed_error(y, memory["regression"][k], at, share) < trimmed_error(y, expected, at, share)

    def recovered(self, state: BatchState, evaluation: Evaluation) -> Evaluation:
        """Return the result described by :class:`Refinement`, for the problems whose s has been dropped."""
        memory, device = state.memory, evaluation.signal.device
        dropped = _is_dropped(state, state.iteration).to(device)
        average = self._best_average(state, state.iteration)
        y, clean = state.problems.observation, memory["clean"]
        regressed = self._is_interpolated(state)
        if bool(regressed.any()):
            clean = torch.where(over(regressed.to(device), clean), memory["look"], clean)
        keeps = self._keeps_clean(state)
        for k, problem in enumerate(state.problems):
            if not dropped[k]:
                continue
            at = clean[k] <= KEPT_PROBABILITY if keeps[k] else None
            if regressed[k] and memory["easy"][k]:
                average[k] = memory["regression"][k]
            elif regressed[k]:
                average[k] = self._interpolate_clean(y[k], clean[k], at)
            elif problem.noise is not None and memory["structure"][k]:
                average[k] = filled(y[k], average[k], clean[k] > KEPT_PROBABILITY, problem.noise)
            else:
                average[k] = _estimate_by(int(memory["by"][k]), y[k], average[k], clean[k], at)
        left_over = (y - state.operator(average)) * (1 - clean)
        kept = (dropped.cpu() & keeps).to(device)
        if bool(kept.any()):
            certain = over(kept, y) & (clean > KEPT_PROBABILITY)
            left_over = torch.where(certain, 0, left_over)
            observed = over(kept, y) & (clean > 0)  # not unobserved entries
            average = torch.where(observed, torch.where(certain, y, y - left_over), average)
        hopeless = memory["hopeless"].to(device)
        if bool(hopeless.any()):
            left_over = torch.where(over(hopeless, y), 0, left_over)
            if _has_same_entries(state):
                seen = ~memory["damaged"] if state.problems.mask is None else state.problems.mask & ~memory["damaged"]
                average = torch.where(over(hopeless, y) & seen, y, average)
        flat = memory["flat"]
        if bool(flat.any()):
            average = torch.where(flat, memory["border"], average)
            left_over = torch.where(flat, y - memory["border"], left_over)
        replaced = dropped | hopeless
        return replace(
            evaluation,
            signal=torch.where(over(replaced, average), average, evaluation.signal),
            corruption=torch.where(over(replaced, left_over), left_over, evaluation.corruption),
            average=None,
        )

    def _best_average(self, state: BatchState, iteration: int) -> Tensor:
        """Return the average, or the average at the minimum error if the error has increased since."""
        memory = state.memory
        looked = (iteration - 1) // self.every * self.every
        worse = (memory["least_error"].isfinite() & (memory["least_at"] < looked)).to(memory["average"].device)
        return torch.where(over(worse, memory["best"]), memory["best"], memory["average"])

    def corruption_probability(self, state: BatchState, k: int, iteration: int) -> Tensor | None:
        """Return the calibrated probability that each entry is corrupted; ``None`` before s is dropped.

        It is ``1 − w`` if the first look decides, and 0 if the output contains no information on the image. Structured
        damage has probability 1. Flat border lines have 1 where y differs from them, else 0. See
        :mod:`dop_lightning.engine.steps.clean_entries.calibration`.
        """
        if not bool(_is_dropped(state, iteration)[k]):
            return None
        memory, mask = state.memory, state.problems.mask
        found = self._probability(state, k, iteration)
        if found is None:
            return None
        y, border, flat, damaged = (
            tensor.cpu()
            for tensor in (state.problems.observation[k], *(memory[name][k] for name in ("border", "flat", "damaged")))
        )
        found = torch.where(flat, (y != border).to(found.dtype), found.masked_fill(damaged, 1))
        found = without_undamaged(found, state.problems[k])
        return found if mask is None else found * mask[k].cpu()

    def _probability(self, state: BatchState, k: int, iteration: int) -> Tensor | None:
        """Return the probability without structured damage and border, ``(*m)`` on the CPU."""
        problems, memory = state.problems, state.memory
        regressed = bool(self._is_interpolated(state)[k])
        if not regressed and bool(memory["hopeless"][k]):
            return torch.zeros_like(memory["clean"][k], device="cpu", dtype=torch.float32)
        clean = memory["look" if regressed else "clean"][k]
        if regressed or bool(memory["structure"][k]):
            return (1 - clean).cpu().float()
        expected = _predicted_observation(state, self._best_average(state, iteration))[k]
        if not bool(expected.isfinite().all()):
            return None
        y = problems.observation[k]
        expected = _estimate_by(int(memory["by"][k]), y, expected, clean)
        mask, held_out = _observed(problems.mask, memory["damaged"], k), memory["held_out"][k]
        size, pixels = scale(problems[k]), bool(memory["joint"][k])
        distance = self._distance(state, k)
        return corruption_probability(y, expected, clean, held_out, size, mask, pixels, distance=distance).cpu()

    def _keeps_clean(self, state: BatchState) -> Tensor:
        """Return for each problem whether its clean entries are kept: bool ``(K,)`` on the CPU."""
        if not _has_same_entries(state):
            return torch.zeros(len(state), dtype=torch.bool, device="cpu")
        if self.dense != "auto":
            return torch.full((len(state),), self.dense == "keep", device="cpu")
        corrupted = 1 - state.memory["clean"].flatten(1).mean(1).cpu()
        measured = torch.tensor([problem.measured for problem in state.problems], device="cpu")
        by_look = state.memory["structure"] | self._is_interpolated(state)
        return (state.memory["dense"] <= DENSE) | (corrupted < MAX_SPARSE_FRACTION) | by_look | measured

    def _is_interpolated(self, state: BatchState) -> Tensor:
        """Return for each problem whether the interpolation predicts better than the network: bool ``(K,)``, CPU."""
        most = torch.where(state.memory["by"] == INTERPOLATED, AS_WELL, BETTER)
        return state.memory["regression_error"] < most * state.memory["network_error"]

    def finished(self, state: BatchState) -> list[int]:
        """Return the problems that are finished, after the first iteration and at multiples of ``every``.

        These are problems without damage, problems that the interpolation restores without visible errors
        (:mod:`~dop_lightning.engine.steps.clean_entries.easy`), and problems without progress for ``patience``
        iterations.
        """
        if state.iteration != self.first and (state.iteration == 0 or state.iteration % self.every):
            return []
        memory = state.memory
        done = self._is_settled(state)
        if self.patience is not None:
            since = state.iteration - memory["progress_at"]
            done = done | (memory["least_error"].isfinite() & (since >= self.patience))
        return torch.nonzero(done).flatten().tolist()

    def _is_settled(self, state: BatchState) -> Tensor:
        """Return for each problem whether it needs no network, as the first look shows: bool ``(K,)`` on the CPU."""
        undamaged = state.memory["structure"] & self._is_clean(state) & _has_same_entries(state)
        return undamaged | (state.memory["easy"] & self._is_interpolated(state))

    def _is_clean(self, state: BatchState) -> Tensor:
        """Return for each problem whether every entry was observed and is kept: bool ``(K,)`` on the CPU."""
        return (state.memory["clean"] > KEPT_PROBABILITY).flatten(1).all(1).cpu()


def most_error(y: Tensor, clean: Tensor, guessed: float, size: float, number: float) -> float:
    """Return the held-out error above which the output contains no information on the image.

    In an image of noise, entries that are near the output by chance are called clean, and their error is small. The
    bound is therefore smaller if few entries are clean and the others have arbitrary values, by one standard error of
    the mean error (about 1/√n of it for n entries) in addition.

    Args:
        y: the observation.
        clean: w.
        guessed: held-out error of the mean value.
        size: scale of the observation.
        number: Σ w over the held-out entries.
    """
    values = y[clean < 0.5]
    if float(clean.mean()) < FEW_CLEAN and values.numel() > 0:
        counts = values.unique(return_counts=True)[1].sort(descending=True).values
        if float(counts[:NUM_IMPULSE_VALUES].sum()) < 0.5 * values.numel():
            return max(GUESSED_OF_FEW * guessed, SMALL_OF_FEW * size) / (1 + 1 / math.sqrt(max(number, 1.0)))
    return max(MAX_INFORMATIVE_ERROR * guessed, SMALL * size)


class _Prediction(NamedTuple):
    """Estimates of held-out entries.

    Attributes:
        values: ``(*m)``.
        by: :data:`OUTPUT`, :data:`KRIGED` or :data:`INTERPOLATED`.
        error: their mean error.
        guessed: mean error of the mean value.
    """

    values: Tensor
    by: int
    error: float
    guessed: float


def _estimate_by(by: int, y: Tensor, output: Tensor, clean: Tensor, at: Tensor | None = None) -> Tensor:
    """Return the estimate by :data:`OUTPUT`, :data:`KRIGED` or :data:`INTERPOLATED`.

    Args:
        by: one of them.
        y: the observation, ``(*m)``.
        output: output of the network.
        clean: w.
        at: bool, entries to estimate; ``None`` for all.
    """
    if by == KRIGED:
        return kriged(y, output, clean, at)
    return interpolate(y, clean, at) if by == INTERPOLATED else output


def _predicted_observation(state: BatchState, average: Tensor) -> Tensor:
    """Return ``A(X̂)`` without the mask: a hole in the mask must not look like an edge of the image."""
    operator = state.operator
    if isinstance(operator, EntryMask):
        return average
    return operator.operator(average) if isinstance(operator, Masked) else operator(average)


def _observed(mask: Tensor | None, damaged: Tensor, k: int) -> Tensor | None:
    """Return the observed entries of problem k without structured damage; ``None`` if these are all entries."""
    if mask is None:
        return ~damaged[k] if bool(damaged[k].any()) else None
    return mask[k] & ~damaged[k]


def _is_dropped(state: BatchState, iteration: int) -> Tensor:
    """Return for each problem whether s has been dropped: bool ``(K,)`` on the CPU."""
    known = state.memory["structure"] | (state.memory["easy"] & state.memory["network_error"].isinf())
    return (state.memory["refined_from"] < iteration) | (known & (iteration > 0))


def _has_same_entries(state: BatchState) -> bool:
    """Return whether entries of y are entries of X."""
    return isinstance(state.operator, Identity | EntryMask)
