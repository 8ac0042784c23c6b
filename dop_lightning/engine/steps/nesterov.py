"""Gradient descent with Nesterov extrapolation of the dual variable, restarted for each problem separately.

Shapes: K problems, ``*m`` the shape of an observation.
"""

import torch
from torch import Tensor

from dop_lightning.engine.automatic import spectral_norms
from dop_lightning.engine.descent import BatchState, StepRule
from dop_lightning.engine.steps.base import alphas, grow_if_due, over, require_closed_form
from dop_lightning.model.losses import SquaredLoss

AUTOMATIC = 2.0 / 3.0
"""Factor of the automatic τ. Extrapolated steps are stable up to 4/3 of the inverse curvature, plain steps up to 2."""

LONGEST = 0.2
"""Bound on the relative change of U, g or h in one iteration, so that ``1 + x`` is close to ``exp(x)``."""


class Nesterov(StepRule):
    r"""Accelerated gradient descent in ξ [Nesterov, 1983], with restart [O'Donoghue and Candès, 2015].

    Along the flow, U, g and h are functions of a single variable, ``ξ = −∫ r`` (Lemma 2): U grows by ``A*(ξ)``, g and h
    by ``±α·ξ``. This determines the implicit bias of the flow. Extrapolating U, g and h themselves would change the
    growth rates of the directions, and lead to another solution. Therefore ξ is extrapolated, and the momentum v is a
    weighted sum of residuals:

        ``v ← β·v − τ·r``,   ``Δ = β₊·v − τ·r``,   ``U ← U + A*(Δ)U``,   ``g ← g + α·Δ∘g``,   ``h ← h − α·Δ∘h``

    with ``β = (t − 1)/t₊``, ``t₊ = (1 + √(1 + 4t²))/2``. If the loss of a problem increases, its momentum is reset. If
    Δ would change U, g or h by more than about a fifth, Δ is shortened. The solution is that of small steps (tested);
    the path is not.

    ``tau: auto`` uses 2/3 of the rate of :mod:`dop_lightning.engine.automatic`.
    """

    def check(self, state: BatchState) -> None:
        """Require a signal in closed form, a squared loss, and gradient descent on θ."""
        require_closed_form(state, "Nesterov")
        if not isinstance(state.loss, SquaredLoss):
            raise ValueError(f"Nesterov requires a squared loss, got {type(state.loss).__name__}; use GradientDescent")

    def automatic_tau(self, state: BatchState) -> list[float]:
        """Return 2/3 of the rate of gradient descent."""
        return [AUTOMATIC * tau for tau in super().automatic_tau(state)]

    def start(self, state: BatchState) -> dict[str, Tensor]:
        """Return the momentum, t, the last loss, and the spectral norm of A*(y) relative to ‖y‖ for each problem."""
        y = state.problems.observation
        ones = torch.ones(len(state), dtype=y.dtype, device=y.device)
        share = torch.zeros_like(ones)
        if len(state.problems.signal_shape) == 2:
            norms, _ = spectral_norms(state.operator.adjoint(y), state.problems)
            share = norms / torch.linalg.vector_norm(y.flatten(1), dim=1).clamp_min(1e-30)
        return {
            "momentum": torch.zeros_like(y),
            "t": ones,
            "last_loss": torch.full_like(ones, torch.inf),
            "share": share,
        }

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        """Take accelerated steps, with one residual per iteration, at the extrapolated point."""
        memory, y = state.memory, state.problems.observation
        residual, change = torch.empty_like(y), torch.empty_like(y)
        loss = memory["last_loss"]
        tau = state.tau_tensor().to(y.dtype)
        corruption_rate = over(alphas(state), y)
        factor = state.loss.derivative_(y[:1, ...].clone())
        for i in range(state.iteration, state.iteration + iterations):
            grow_if_due(state, i)
            state.residual(residual, i)
            loss = state.loss.value(residual)
            rose = loss > memory["last_loss"]
            t = torch.where(rose, torch.ones_like(loss), memory["t"])
            following = (1 + (1 + 4 * t.square()).sqrt()) / 2
            after = (1 + (1 + 4 * following.square()).sqrt()) / 2
            momentum = memory["momentum"]
            residual.mul_(over(-2 * factor * tau, residual))
            momentum.mul_(over(torch.where(rose, 0.0, (t - 1) / following), residual)).add_(residual)
            torch.addcmul(residual, momentum, over((following - 1) / after, residual), out=change)
            shorter = over(self._step_factor(change, memory["share"], corruption_rate, state), residual)
            momentum.mul_(shorter)
            change.mul_(shorter)
            memory["t"], memory["last_loss"] = following, loss
            state.signal.descend_(state.operator.adjoint(change), -0.5 * state.signal.rate_scale)
            state.corruption.descend_(change, -0.5 * corruption_rate)
        return loss

    @staticmethod
    def _step_factor(change: Tensor, share: Tensor, corruption_rate: Tensor, state: BatchState) -> Tensor:
        """Return the factor of Δ, at most 1, ``(K,)``."""
        flat = change.flatten(1)
        longest = share * torch.linalg.vector_norm(flat, dim=1)
        if state.has_corruption:
            longest = torch.maximum(longest, corruption_rate.flatten() * flat.abs().amax(dim=1))
        return (LONGEST / longest.clamp_min(1e-30)).clamp_max(1.0)
