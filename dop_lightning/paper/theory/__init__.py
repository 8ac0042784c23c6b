"""Numerical verification of the paper's theory: Theorem 1 and appendix A. See docs/theory.md."""

from dop_lightning.paper.theory.certificate import (
    KKTResiduals,
    advance_with_dual,
    balance,
    dual_certificate,
    dual_variable,
    kkt_residuals,
)
from dop_lightning.paper.theory.closed_form import CommutingLimit, closed_form, commuting_limit, in_basis
from dop_lightning.paper.theory.commuting import CommutingOptimum, commuting_optimum
from dop_lightning.paper.theory.flow import Flow, gradient_flow
from dop_lightning.paper.theory.least_norm import largest_rate, least_norm_solution

__all__ = [
    "CommutingLimit",
    "CommutingOptimum",
    "Flow",
    "KKTResiduals",
    "advance_with_dual",
    "balance",
    "closed_form",
    "commuting_limit",
    "commuting_optimum",
    "dual_certificate",
    "dual_variable",
    "gradient_flow",
    "in_basis",
    "kkt_residuals",
    "largest_rate",
    "least_norm_solution",
]
