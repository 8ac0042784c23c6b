"""Gradient descent with discrepant rates (Eqs. 6 and 10): constant, decaying, or automatic steps.

Shapes: K problems.
"""

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState, Loop, StepRule
from dop_lightning.engine.steps.averaging import RunningAverage
from dop_lightning.engine.steps.base import alphas, grow_if_due, over, require_closed_form
from dop_lightning.engine.steps.monitor import Monitor
from dop_lightning.engine.steps.network_loop import NetworkLoop, loop_of
from dop_lightning.foundation.checks import fraction, positive
from dop_lightning.model.part import Rate


class GradientDescent(StepRule):
    r"""``θ ← θ − τ_k·∇_θ f``, ``(g, h) ← (g, h) − α·τ_k·∇ f`` (Eqs. 6 and 10).

    Steps are constant, ``τ_k = τ``, unless something else is asked for. With ``tau: auto`` each problem of a batch has
    a τ of its own, from its data, halved where the loss rises (see :mod:`dop_lightning.engine.automatic`). All
    small steps follow the same path in the time ``t = Σ τ_k`` of the gradient flow (12)–(13), so that ``horizon`` makes
    runs with different τ comparable: a problem ends at that time, its last step being as short as it takes.

    Args:
        decay: ``τ_k = τ·decay^k``, above 0 and at most 1; below 1 for the subgradients of an ℓ1 loss, which do not
            become small.
        horizon: time of the flow at which a problem is done, above 0; ``None`` for no such end.
        average: keep a running average of the outputs of a network beside them,
            ``X̄ ← average·X̄ + (1 − average)·φ(θ)``, at least 0 and below 1; it is scored as ``psnr_average``. ``None``
            for no average.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, decay: float = 1.0, horizon: float | None = None, average: float | None = None) -> None:
        if positive("decay", decay) > 1:
            raise ValueError(f"decay must be at most 1, got {decay!r}")
        self.decay = decay
        self.horizon = None if horizon is None else positive("horizon", horizon)
        self.average = None if average is None else fraction("average", average)

    def check(self, state: BatchState) -> None:
        """Networks have constant steps."""
        for what, asked in (
            ("decay", self.decay != 1),
            ("horizon", self.horizon is not None),
            ("tau 'auto'", state.automatic),
        ):
            if asked:
                require_closed_form(state, what)
        if self.average is not None and state.signal.closed_form:
            raise ValueError(f"average is for the outputs of networks, got {type(state.signal).__name__}")

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """The time of the flow, and what watches over an automatic τ."""
        memory = Monitor.start(state) if state.automatic else {}
        if self.horizon is not None:
            memory["time"] = torch.zeros_like(state.tau_tensor())
        if self.average is not None:
            memory["average"] = RunningAverage.start(state)
        return memory

    def loop(self, state: BatchState) -> Loop | None:
        """Networks have a loop that replays CUDA graphs."""
        return None if state.closed_form else NetworkLoop.of(state)

    def finished(self, state: BatchState) -> list[int]:
        """Problems at the horizon."""
        if self.horizon is None:
            return []
        return torch.nonzero(state.memory["time"] >= self.horizon).flatten().tolist()

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """Constant steps read their rates once; others work them out at every iteration."""
        if state.automatic or self.horizon is not None or self.decay != 1:
            return self._descend_paced(state, iterations)
        if state.closed_form:
            return _descend_closed_form(state, iterations)
        return loop_of(state).descend(state, iterations, self.average)

    def _descend_paced(self, state: BatchState, iterations: int) -> Tensor:
        residual = torch.empty_like(state.problems.observation)
        loss = residual.new_zeros(len(state))
        fixed, ratio = state.tau_tensor(), alphas(state)
        for i in range(state.iteration, state.iteration + iterations):
            grow_if_due(state, i)
            state.residual(residual, i)
            if state.automatic:
                Monitor.watch(state, residual, i)
            if i == state.iteration + iterations - 1:
                loss = state.loss.value(residual)
            tau = (state.memory["tau"] if state.automatic else fixed) * self.decay**i
            if self.horizon is not None:
                time = state.memory["time"]
                tau = torch.minimum(tau, self.horizon - time)
                time += tau
            closed_form_step(state, residual, tau * state.signal.rate_scale, tau * ratio)
        return loss


def _descend_closed_form(state: BatchState, iterations: int) -> Tensor:
    residual = torch.empty_like(state.problems.observation)
    loss = residual.new_zeros(len(state))
    theta, corruption = state.rates()
    for i in range(state.iteration, state.iteration + iterations):
        grow_if_due(state, i)
        state.residual(residual, i)
        if i == state.iteration + iterations - 1:
            loss = state.loss.value(residual)
        _closed_form_step(state, residual, theta, corruption)
    return loss


def closed_form_step(state: BatchState, residual: Tensor, theta: Tensor, corruption: Tensor) -> None:
    """θ, g and h in place, all from the same residual, at rates ``(K,)``; the residual is overwritten."""
    signal = next(state.signal.parameters())
    theta, corruption = theta.to(signal.dtype), corruption.to(residual.dtype)
    _closed_form_step(state, residual, over(theta, signal), over(corruption, residual))


def _closed_form_step(state: BatchState, residual: Tensor, theta: Rate, corruption: Rate) -> None:
    factor = state.loss.derivative_(residual)
    state.signal.descend_(state.operator.adjoint(residual), theta * factor)
    state.corruption.descend_(residual, corruption * factor)
