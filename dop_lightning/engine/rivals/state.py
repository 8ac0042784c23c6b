"""State of a batch under a filter, see :class:`~dop_lightning.engine.state.State`.

Shapes: K images ``(K, C, H, W)``.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dop_lightning.engine.outcome import Status
from dop_lightning.engine.rivals.base import ImageFilter, RestorationInterrupted, Restored
from dop_lightning.engine.state import Evaluation, RatelessState
from dop_lightning.foundation.checks import at_least
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.problems.problem import Attribute, Problem, ProblemBatch, refuse_undamaged


class FilterState(RatelessState):
    """K images that a filter restores one by one on the CPU, in the first iteration. Later iterations do nothing.

    Args:
        image_filter: restores one image.
        problems: batch of images, on any device.

    Attributes:
        iteration: iterations done.
        restoring_in: identifier of the thread in which the filter is running; ``None`` if it is not running.

    Raises:
        ValueError: the problems are not images of known range, or are measured by a sensing operator.
    """

    def __init__(self, image_filter: ImageFilter, problems: ProblemBatch) -> None:
        first = problems[0]
        if len(problems.signal_shape) != 3 or first.data_range is None:
            raise ValueError(
                f"{first.name}: {type(image_filter).__name__} requires images (C, H, W) of known range, got a signal "
                f"of shape {problems.signal_shape}"
            )
        if problems.sensing is not None:
            raise ValueError(
                f"{first.name}: {type(image_filter).__name__} requires the image itself, got a measurement of it "
                f"({problems.sensing})"
            )
        if not image_filter.uses_undamaged:
            refuse_undamaged(problems, type(image_filter).__name__)
        super().__init__(problems)
        self.filter = image_filter
        self._signal = problems.observation  # replaced as a whole, never modified in place
        self._is_done = [False] * len(problems)
        self._probability: dict[int, Tensor] = {}
        self.restoring_in: int | None = None
        self.max_concurrent_pixels = image_filter.max_concurrent_pixels

    def resume(self) -> None:
        """Clear an earlier interruption of the filter."""
        self.filter.is_interrupted = False

    def interrupt(self) -> None:
        """Interrupt the filter if it is running. Signal handlers call this in the main thread.

        Raises:
            RestorationInterrupted: the filter is running in this thread.
        """
        if self.restoring_in == threading.get_ident():
            raise RestorationInterrupted
        self.filter.is_interrupted = self.filter.is_interrupted or self.restoring_in is not None

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Return X̂, ``ŝ = y − X̂`` at observed entries, and a quarter of the squared residual, which is 0."""
        s = self.problems.observation - self._signal
        if self.problems.mask is not None:
            s = s * self.problems.mask
        loss = SquaredLoss().value(torch.zeros_like(s))
        return Evaluation(self.iteration, self._signal, s, loss)

    @torch.no_grad()
    def advance(self, iterations: int) -> list[int]:
        """Restore the images that are not restored yet, if ``iterations`` is positive.

        If the filter raises :class:`RestorationInterrupted`, no iteration is counted.

        Args:
            iterations: number of iterations, at least 0.

        Returns:
            Positions of the problems with a non-finite result; they keep their observation.
        """
        failed: list[int] = []
        if at_least("iterations", iterations, 0):
            signal = self._signal.clone()
            for k, problem in enumerate(self.problems):
                if not self._is_done[k]:
                    restored = self._restore(problem)
                    if restored is None:
                        return failed
                    if torch.isfinite(restored.signal).all():
                        signal[k], self._is_done[k] = restored.signal.to(signal), True
                        if restored.probability is not None:
                            self._probability[k] = restored.probability.cpu()
                    else:
                        failed.append(k)
            self._signal = signal
        self.iteration += iterations
        return failed

    def _restore(self, problem: Problem) -> Restored | None:
        """Return the result of the filter, or ``None`` if it was interrupted."""
        try:
            try:
                self.restoring_in = threading.get_ident()
                return self.filter.restored(problem)
            finally:
                self.restoring_in = None
        except RestorationInterrupted:  # may also be raised inside the finally clause
            self.restoring_in = None
            return None

    def corruption_probability(self, k: int, iteration: int) -> Tensor | None:
        """Return the probability that each entry of problem k is corrupted, or ``None`` if it is not estimated."""
        probability = self._probability.get(k)
        mask = self.problems.mask
        return probability if probability is None or mask is None else probability * mask[k].cpu()

    def finished(self) -> dict[int, Status]:
        """Return the positions of the problems that are restored."""
        return {k: "done" for k, done in enumerate(self._is_done) if done}

    def settings(self, k: int) -> dict[str, Attribute]:
        """Return the name of the filter."""
        return {"filter": self.filter.name}

    def problem_state(self, k: int) -> dict[str, Any]:
        """Return X̂ of problem k, and whether it is restored."""
        tensors = {
            "signal": self._signal[k].detach().cpu().clone(),
            "done": torch.tensor(self._is_done[k], device="cpu"),
        }
        if k in self._probability:
            tensors["probability"] = self._probability[k].clone()
        return {"filter": self.filter.name, "tensors": tensors}

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        """Load the state of problem k, as returned by :meth:`problem_state`. The caller sets the iteration.

        Raises:
            ValueError: the state is of another method or shape.
        """
        name = self.problems[k].name
        if state.get("filter") != self.filter.name:
            raise ValueError(f"{name}: state must be of {self.filter.name}, got a state of {state.get('filter')!r}")
        given = state["tensors"]["signal"]
        if given.shape != self._signal.shape[1:]:
            raise ValueError(
                f"{name}: state must have the shape {tuple(self._signal.shape[1:])}, got {tuple(given.shape)}"
            )
        self._signal = self._signal.clone()
        self._signal[k] = given.to(self._signal)
        self._is_done[k] = bool(state["tensors"]["done"])
        if "probability" in state["tensors"]:
            self._probability[k] = state["tensors"]["probability"].clone()

    def select(self, keep: Sequence[int]) -> "FilterState":
        """Return the problems at the positions ``keep`` as a separate batch."""
        other = FilterState(self.filter, self.problems.select(keep))
        other.iteration = self.iteration
        other._signal = self._signal[list(keep)]
        other._is_done = [self._is_done[k] for k in keep]
        other._probability = {new: self._probability[k] for new, k in enumerate(keep) if k in self._probability}
        return other
