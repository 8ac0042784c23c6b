"""How far the recovery of a matrix is from the optimum of Eq. 8, in ``metrics.csv``."""

from typing import cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.look import Look
from dop_lightning.engine.state import State
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.module import DoubleOverparameterization, recovery_module
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.model.corruption import Corruption, HadamardCorruption, NoCorruption
from dop_lightning.model.signals import Signal
from dop_lightning.model.signals.abilities import Factors
from dop_lightning.paper.theory.certificate import (
    KKTResiduals,
    balance,
    dual_certificate,
    dual_variable,
    kkt_residuals,
)


class DualCertificate(RecoveryCallback):
    """Builds the dual certificate ν of Theorem 1 at each evaluation, and writes the residuals of Lemma 1 as curves.

    The tags are ``kkt_feasibility``, ``kkt_dual``, ``kkt_slackness``, ``kkt_sign`` and ``kkt_product``, see
    :class:`~dop_lightning.paper.theory.certificate.KKTResiduals`. All of them small says that (X̂, ŝ) nearly solves Eq.
    8, for whatever A, and whether or not that is the truth. They end at about 1/log(1/γ), γ the scale of the start,
    rather than at 0. An evaluation takes the eigenvalues of a matrix more, or its singular values, and draws the start
    anew.

    Of a start that is not γI and γ·1, γ² is the mean eigenvalue of UUᵀ and γ_s the geometric mean of |g| and |h|; where
    they differ, the λ of Eq. 8 is that of :func:`~dop_lightning.paper.theory.certificate.balance`.

    For ``UUᵀ`` or ``UVᵀ`` with ``g∘g − h∘h``; to be asked for: ``trainer.callbacks: [{class_path:
    dop_lightning.paper.certificate_callback.DualCertificate}]``.

    Raises:
        ValueError: another signal or corruption, or a start that is not small.
    """

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Refuse what has no certificate before the work is done."""
        for state in recovery_module(module).states:
            _check(_descent(state))

    def on_evaluation(self, trainer: pl.Trainer, module: DoubleOverparameterization, look: Look) -> None:
        """Append a row a problem and residual."""
        values = {tag: value.tolist() for tag, value in _residuals(look).by_name().items()}
        rows = [
            [name, look.iteration, f"kkt_{tag}", f"{of_problems[k]:.7g}"]
            for k, name in enumerate(look.problems.names)
            for tag, of_problems in values.items()
        ]
        RecoveryMetrics.append(trainer, module, rows)


def _descent(state: State) -> BatchState:
    """The state as one of gradient descent."""
    if state.signal is None:
        raise ValueError("DualCertificate follows gradient descent, got a convex solver; leave the callback out")
    return cast(BatchState, state)


def _hadamard(corruption: Corruption) -> HadamardCorruption:
    if not isinstance(corruption, HadamardCorruption):
        raise ValueError(f"DualCertificate needs the corruption HadamardCorruption, got {type(corruption).__name__}")
    return corruption


def _factors(signal: Signal) -> Factors:
    if signal.factors is None:
        raise ValueError(f"DualCertificate needs the signal SymmetricFactor or Factor, got {type(signal).__name__}")
    return signal.factors


def _check(state: BatchState) -> None:
    _hadamard(state.corruption)
    _factors(state.signal)
    for kind, scale in zip(("signal", "corruption"), _Start(state).scales, strict=True):
        if not bool((scale < 1).all()):
            raise ValueError(
                f"DualCertificate needs a start below 1, got a {kind} of the scale {float(scale.max()):.3g}"
            )


class _Start:
    """Where a batch began, made anew from its seeds, whatever iteration it is at."""

    def __init__(self, state: BatchState) -> None:
        make = state.method.corruption or NoCorruption
        corruption = _hadamard(make(state.problems).to(state.problems.device))
        self.g, self.h = corruption.g.detach(), corruption.h.detach()
        growth = state.signal.growth
        self.length = None if growth is None else growth.length
        self.factors: list[nn.Parameter] = list(state.method.signal(state.problems).parameters())  # K n r each

    @property
    def scales(self) -> tuple[Tensor, Tensor]:
        """γ of the signal and γ_s of the corruption, ``(K,)`` each."""
        rows = sum(factor.shape[1] for factor in self.factors)
        squares = torch.stack([factor.detach().cpu().double().square().sum(dim=(1, 2)) for factor in self.factors])
        both = torch.stack([self.g, self.h], dim=1).cpu().double().abs().flatten(1)
        drawn = both > 0  # not where nothing was observed
        logs = torch.where(drawn, both, 1.0).log().sum(dim=1) / drawn.sum(dim=1)
        own = (squares.sum(dim=0) / (rows * len(self.factors))).sqrt()  # of U and V only (U + V)/√2 grows
        return own if self.length is None else torch.full_like(own, self.length), logs.exp()


@torch.no_grad()
def _residuals(look: Look) -> KKTResiduals:
    state = _descent(look.state)
    corruption = _hadamard(state.corruption)
    start = _Start(state)
    alpha = torch.tensor(state.alpha, dtype=torch.float64)
    gamma, gamma_corruption = start.scales
    xi = dual_variable(corruption.g, corruption.h, alpha, start.g, start.h)
    return kkt_residuals(
        state.operator,
        state.problems.observation,
        look.evaluation.signal,
        corruption.g,
        corruption.h,
        dual_certificate(xi, gamma),
        balance(alpha, gamma, gamma_corruption),
        semidefinite=_factors(state.signal).symmetric,
    )
