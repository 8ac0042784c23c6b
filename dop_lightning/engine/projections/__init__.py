"""Robust PCA of unknown rank by alternating projections, a non-convex alternative to double over-parameterization."""

from dop_lightning.engine.projections.certificate import Certificate, certify
from dop_lightning.engine.projections.low_rank import LowRank
from dop_lightning.engine.projections.method import ProjectionsMethod
from dop_lightning.engine.projections.solver import AlternatingProjections, Recovery
from dop_lightning.engine.projections.state import ProjectionsState

__all__ = [
    "AlternatingProjections",
    "Certificate",
    "LowRank",
    "ProjectionsMethod",
    "ProjectionsState",
    "Recovery",
    "certify",
]
