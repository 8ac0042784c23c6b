"""Gradient descent with discrepant learning rates (Eqs. 6 and 10): constant, decaying or automatic steps.

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

    Steps are constant by default, ``τ_k = τ``. With ``tau: auto``, τ is estimated from the data of each problem, and
    halved if its loss increases (see :mod:`dop_lightning.engine.automatic`). Small steps follow the same path in the
    time ``t = Σ τ_k`` of the gradient flow (12)–(13). ``horizon`` therefore makes runs with different τ comparable: a
    problem ends at that time, and its last step is shortened to end there exactly.

    Args:
        decay: ``τ_k = τ·decay^k``, above 0 and at most 1. Use a value below 1 for the subgradients of an ℓ1 loss,
            which do not become small.
        horizon: time of the flow at which a problem is done, above 0; ``None`` for no limit.
        average: decay of a running average of the outputs of a network,
            ``X̄ ← average·X̄ + (1 − average)·φ(θ)``, at least 0 and below 1. It is scored as ``psnr_average``. ``None``
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
        """Require a signal in closed form for all but constant steps, and a network for ``average``."""
        for what, is_set in (
            ("decay", self.decay != 1),
            ("horizon", self.horizon is not None),
            ("tau 'auto'", state.automatic),
        ):
            if is_set:
                require_closed_form(state, what)
        if self.average is not None and state.signal.closed_form:
            raise ValueError(f"average requires a network, got {type(state.signal).__name__}")

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """Return the time of the flow, the memory of an automatic τ, and the average, if used."""
        memory = Monitor.start(state) if state.automatic else {}
        if self.horizon is not None:
            memory["time"] = torch.zeros_like(state.tau_tensor())
        if self.average is not None:
            memory["average"] = RunningAverage.start(state)
        return memory

    def loop(self, state: BatchState) -> Loop | None:
        """Return the loop of networks, which can replay CUDA graphs."""
        return None if state.closed_form else NetworkLoop.of(state)

    def finished(self, state: BatchState) -> list[int]:
        """Return the problems that have reached the horizon."""
        if self.horizon is None:
            return []
        return torch.nonzero(state.memory["time"] >= self.horizon).flatten().tolist()

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """Take steps of gradient descent. Rates that are not constant are computed at every iteration."""
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
    """Update θ, g and h in place from the same residual, with rates ``(K,)``. The residual is overwritten."""
    signal = next(state.signal.parameters())
    theta, corruption = theta.to(signal.dtype), corruption.to(residual.dtype)
    _closed_form_step(state, residual, over(theta, signal), over(corruption, residual))


def _closed_form_step(state: BatchState, residual: Tensor, theta: Rate, corruption: Rate) -> None:
    factor = state.loss.derivative_(residual)
    state.signal.descend_(state.operator.adjoint(residual), theta * factor)
    state.corruption.descend_(residual, corruption * factor)
