"""How far the recovery of a matrix is from the optimum of Eq. 8, in ``metrics.csv``."""

from collections.abc import Mapping, Sequence

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from dop_lightning.engine.roster import State
from dop_lightning.engine.state import BatchState, Evaluation
from dop_lightning.lightning.callbacks.base import RecoveryCallback
from dop_lightning.lightning.callbacks.metrics import RecoveryMetrics
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.signals import Factor, SymmetricFactor
from dop_lightning.model.signals.growing import LowRank
from dop_lightning.paper.theory.certificate import (
    KKTResiduals,
    balance,
    dual_certificate,
    dual_variable,
    kkt_residuals,
)
from dop_lightning.problems.problem import ProblemBatch


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
        assert isinstance(module, DoubleOverparameterization)
        for state in module.states:
            _check(state)

    def on_evaluation(
        self,
        trainer: pl.Trainer,
        module: DoubleOverparameterization,
        problems: ProblemBatch,
        evaluation: Evaluation,
        scores: Sequence[Mapping[str, float]],
    ) -> None:
        """Append a row a problem and residual."""
        state = next(state for state in module.states if state.problems is problems)
        assert isinstance(state, BatchState)
        values = {tag: value.tolist() for tag, value in _residuals(state, evaluation).by_name().items()}
        rows = [
            [name, evaluation.iteration, f"kkt_{tag}", f"{of_problems[k]:.7g}"]
            for k, name in enumerate(problems.names)
            for tag, of_problems in values.items()
        ]
        RecoveryMetrics.append(trainer, module, rows)


def _check(state: State) -> None:
    if not isinstance(state, BatchState):
        raise ValueError("DualCertificate follows gradient descent, got a convex solver; leave the callback out")
    parts = (
        (state.corruption, "corruption", (HadamardCorruption,)),
        (state.signal, "signal", (SymmetricFactor, Factor)),
    )
    for part, kind, known in parts:
        if not isinstance(part, known):
            names = " or ".join(each.__name__ for each in known)
            raise ValueError(f"DualCertificate needs the {kind} {names}, got {type(part).__name__}")
    for kind, scale in zip(("signal", "corruption"), _Start(state).scales, strict=True):
        if not bool((scale < 1).all()):
            raise ValueError(
                f"DualCertificate needs a start below 1, got a {kind} of the scale {float(scale.max()):.3g}"
            )


class _Start:
    """Where a batch began, made anew from its seeds, whatever iteration it is at."""

    def __init__(self, state: BatchState) -> None:
        assert state.method.corruption is not None
        corruption = state.method.corruption(state.problems).to(state.problems.device)
        assert isinstance(corruption, HadamardCorruption)
        self.g, self.h = corruption.g.detach(), corruption.h.detach()
        signal = state.signal
        assert isinstance(signal, LowRank)
        self.length = signal.length if signal.growing else None
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
def _residuals(state: BatchState, evaluation: Evaluation) -> KKTResiduals:
    corruption = state.corruption
    assert isinstance(corruption, HadamardCorruption)
    start = _Start(state)
    alpha = torch.tensor(state.alpha, dtype=torch.float64)
    gamma, gamma_corruption = start.scales
    xi = dual_variable(corruption.g, corruption.h, alpha, start.g, start.h)
    return kkt_residuals(
        state.operator,
        state.problems.observation,
        evaluation.signal,
        corruption.g,
        corruption.h,
        dual_certificate(xi, gamma),
        balance(alpha, gamma, gamma_corruption),
        semidefinite=isinstance(state.signal, SymmetricFactor),
    )
