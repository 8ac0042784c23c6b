"""Gradient flow of (U, g, h), Eqs. 12 and 13: gradient descent with infinitesimal steps, integrated numerically.

Shapes: K problems, n rows, r columns of U, ``*m`` the shape of an observation, T times.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dop_lightning.foundation.checks import positive
from dop_lightning.model.operators import Operator


@dataclass(frozen=True)
class Flow:
    """Flow at T times.

    Attributes:
        times: ``(T,)``.
        U: ``(T, K, n, r)``.
        g: ``(T, K, *m)``.
        h: ``(T, K, *m)``.
        xi: ``(T, K, *m)``, ``ξ_t = −∫ r`` from 0 to t.
    """

    times: Tensor
    U: Tensor
    g: Tensor
    h: Tensor
    xi: Tensor

    @property
    def signal(self) -> Tensor:
        """``X_t = UUᵀ``, ``(T, K, n, n)``."""
        return self.U @ self.U.mT

    @property
    def corruption(self) -> Tensor:
        """``s_t = g∘g − h∘h``, ``(T, K, *m)``."""
        return self.g.square() - self.h.square()


@torch.no_grad()
def gradient_flow(
    operator: Operator,
    observation: Tensor,
    U: Tensor,
    g: Tensor,
    h: Tensor,
    alpha: float | Tensor,
    times: Tensor,
    tolerance: float = 1e-9,
) -> Flow:
    """Integrate ``U̇ = −A*(r)U``, ``ġ = −α·r∘g``, ``ḣ = α·r∘h``, ``ξ̇ = −r`` with ``r = A(UUᵀ) + g∘g − h∘h − y``.

    A may be any operator; if ``A*(r)`` is not symmetric, its symmetric part is used, as in gradient descent. Time
    refers to the quarter squared loss: k iterations of Eq. 6 with a small rate τ follow the flow to ``t = kτ``.

    Args:
        operator: A of the batch.
        observation: y, ``(K, *m)``.
        U: initial value, ``(K, n, r)``; γI in Eq. 11.
        g: initial value, ``(K, *m)``; γ1 in Eq. 11.
        h: initial value, ``(K, *m)``; γ1 in Eq. 11.
        alpha: ratio of the learning rates, above 0; one number, or one per problem, ``(K,)``.
        times: ``(T,)``, increasing, at least 0.
        tolerance: maximum error of a step, relative to each entry (and to the smallest initial scale, for entries that
            vanish).

    Returns:
        The flow at ``times``, in float64. Steps are common to the batch, and small enough for each of its problems.

    Raises:
        ValueError: times do not increase, or alpha or the tolerance is not above 0.
        ImportError: torchdiffeq is not installed.
    """
    odeint = _odeint()
    positive("tolerance", tolerance)
    times = torch.as_tensor(times, dtype=torch.float64)
    if times.dim() != 1 or len(times) == 0 or bool(times[0] < 0) or not bool((times.diff() > 0).all()):
        raise ValueError(f"times must increase and start at 0 or later, got {times.tolist()}")
    y = observation.double()
    K = len(y)
    rates = torch.as_tensor(alpha, dtype=torch.float64, device=y.device).expand(K).view(K, *[1] * (y.dim() - 1))
    if not bool((torch.isfinite(rates) & (rates > 0)).all()):
        raise ValueError(f"alpha must be a finite number above 0, got {alpha}")
    start = [U.double(), g.double(), h.double(), torch.zeros_like(y)]
    sizes = [part[0].numel() for part in start]

    def parts(state: Tensor) -> list[Tensor]:
        """Split ``(…, K, all)`` into U, g, h and ξ."""
        pieces = state.split(sizes, dim=-1)
        return [piece.unflatten(-1, p.shape[1:]) for piece, p in zip(pieces, start, strict=True)]

    def velocity(_: Tensor, state: Tensor) -> Tensor:
        U, g, h, _xi = parts(state)
        r = operator(U @ U.mT) + g.square() - h.square() - y
        D = operator.adjoint(r)
        dU = -0.5 * (D + D.mT) @ U
        dg, dh = -rates * r * g, rates * r * h
        return torch.cat([d.flatten(1) for d in (dU, dg, dh, -r)], dim=1)

    least = min(float(p.square().mean().sqrt()) for p in start[:3])
    from_zero = times if times[0] == 0 else torch.cat([times.new_zeros(1), times])
    states = odeint(
        velocity,
        torch.cat([p.flatten(1) for p in start], dim=1),
        from_zero.to(y.device),
        rtol=tolerance,
        atol=tolerance * least,
        method="dopri5",
        # the maximum error instead of the mean, so that each problem is as accurate as if it were integrated alone
        options={"norm": lambda error: error.abs().max()},
    )
    return Flow(times, *parts(states[-len(times) :]))


def _odeint() -> Any:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError('gradient_flow requires torchdiffeq: pip install "dop_lightning[theory]"') from error
    return odeint
