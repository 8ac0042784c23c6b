"""Log the distance of a matrix recovery from the optimum of Eq. 8 to ``metrics.csv``."""

from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.engine.state import State
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.model.corruption import Corruption, HadamardCorruption, NoCorruption
from dop_lightning.model.signals import Signal
from dop_lightning.model.signals.capabilities import Factors
from dop_lightning.paper.theory.certificate import (
    KKTResiduals,
    balance,
    dual_certificate,
    dual_variable,
    kkt_residuals,
)


class DualCertificate(RecoveryCallback):
    """Compute the dual certificate ν of Theorem 1 at each evaluation, and log the residuals of Lemma 1 as curves.

    The tags are ``kkt_feasibility``, ``kkt_dual``, ``kkt_slackness``, ``kkt_sign`` and ``kkt_product``, see
    :class:`~dop_lightning.paper.theory.certificate.KKTResiduals`. If all are small, (X̂, ŝ) nearly solves Eq. 8, for any
    A, and whether or not the solution is the truth. They approach about 1/log(1/γ) instead of 0, where γ is the
    initialization scale. Each evaluation additionally computes the eigenvalues or singular values of a matrix, and
    draws the initialization again.

    If the initialization is not γI and γ·1, γ² is the mean eigenvalue of UUᵀ and γ_s the geometric mean of |g| and |h|.
    If they differ, λ of Eq. 8 is given by :func:`~dop_lightning.paper.theory.certificate.balance`.

    Supports ``UUᵀ`` or ``UVᵀ`` with ``g∘g − h∘h``. Enable it by ``trainer.callbacks: [{class_path:
    dop_lightning.paper.certificate_callback.DualCertificate}]``.

    Raises:
        ValueError: the signal or the corruption is of another type, or the initialization is not small.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Raise an error before the fit if a state has no certificate."""
        for state in recovery_module(module).states:
            _check(_descent(state))

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, batch: EvaluatedBatch) -> None:
        """Append one row per problem and residual."""
        values = {tag: value.tolist() for tag, value in _residuals(batch).by_name().items()}
        rows = [
            [name, batch.iteration, f"kkt_{tag}", f"{of_problems[k]:.7g}"]
            for k, name in enumerate(batch.problems.names)
            for tag, of_problems in values.items()
        ]
        RecoveryMetrics.append(trainer, module, rows)


def _descent(state: State) -> BatchState:
    """Return the state if it is one of gradient descent.

    Raises:
        ValueError: the state is that of a convex solver.
    """
    if state.signal is None:
        raise ValueError("DualCertificate requires gradient descent, got a convex solver; remove the callback")
    return cast(BatchState, state)


def _hadamard(corruption: Corruption) -> HadamardCorruption:
    if not isinstance(corruption, HadamardCorruption):
        raise ValueError(f"DualCertificate requires HadamardCorruption as corruption, got {type(corruption).__name__}")
    return corruption


def _factors(signal: Signal) -> Factors:
    if signal.factors is None:
        raise ValueError(f"DualCertificate requires SymmetricFactor or Factor as signal, got {type(signal).__name__}")
    return signal.factors


def _check(state: BatchState) -> None:
    _hadamard(state.corruption)
    _factors(state.signal)
    for kind, scale in zip(("signal", "corruption"), _Start(state).scales, strict=True):
        if not bool((scale < 1).all()):
            raise ValueError(
                f"DualCertificate requires an initialization scale below 1, got {kind} scale {float(scale.max()):.3g}"
            )


class _Start:
    """Initialization of a batch, drawn again from its seeds, independent of its iteration."""

    def __init__(self, state: BatchState) -> None:
        make = state.method.corruption or NoCorruption
        corruption = _hadamard(make(state.problems).to(state.problems.device))
        self.g, self.h = corruption.g.detach(), corruption.h.detach()
        growth = state.signal.growth
        self.length = None if growth is None else growth.length
        self.factors: list[nn.Parameter] = list(state.method.signal(state.problems).parameters())  # K n r each

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """Return γ of the signal and γ_s of the corruption, ``(K,)`` each."""
        rows = sum(factor.shape[1] for factor in self.factors)
        squares = torch.stack([factor.detach().cpu().double().square().sum(dim=(1, 2)) for factor in self.factors])
        both = torch.stack([self.g, self.h], dim=1).cpu().double().abs().flatten(1)
        drawn = both > 0  # 0 at unobserved entries
        logs = torch.where(drawn, both, 1.0).log().sum(dim=1) / drawn.sum(dim=1)
        own = (squares.sum(dim=0) / (rows * len(self.factors))).sqrt()  # for U and V, only (U + V)/√2 grows
        return own if self.length is None else torch.full_like(own, self.length), logs.exp()


@torch.no_grad()
def _residuals(batch: EvaluatedBatch) -> KKTResiduals:
    state = _descent(batch.state)
    corruption = _hadamard(state.corruption)
    start = _Start(state)
    alpha = torch.tensor(state.alpha, dtype=torch.float64)
    gamma, gamma_corruption = start.scales
    xi = dual_variable(corruption.g, corruption.h, alpha, start.g, start.h)
    return kkt_residuals(
        state.operator,
        state.problems.observation,
        batch.evaluation.signal,
        corruption.g,
        corruption.h,
        dual_certificate(xi, gamma),
        balance(alpha, gamma, gamma_corruption),
        semidefinite=_factors(state.signal).symmetric,
    )
