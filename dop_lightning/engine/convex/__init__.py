"""Reference solvers for the convex program ``min ‖X‖_* + λ‖s‖₁`` subject to ``A(X) + s = y`` (Eq. 8)."""

from dop_lightning.engine.convex.apg import AcceleratedProximalGradient
from dop_lightning.engine.convex.ialm import InexactALM
from dop_lightning.engine.convex.method import ConvexMethod
from dop_lightning.engine.convex.proximal import eigenvalue_threshold, singular_value_threshold, soft_threshold
from dop_lightning.engine.convex.solve import solve
from dop_lightning.engine.convex.solver import ConvexSolver
from dop_lightning.engine.convex.state import ConvexState, SolverFactory

__all__ = [
    "AcceleratedProximalGradient",
    "ConvexMethod",
    "ConvexSolver",
    "ConvexState",
    "InexactALM",
    "SolverFactory",
    "eigenvalue_threshold",
    "singular_value_threshold",
    "soft_threshold",
    "solve",
]
