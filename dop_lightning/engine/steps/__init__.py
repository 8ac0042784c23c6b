"""Step rules: the updates of θ, g and h."""

from dop_lightning.engine.descent import StepRule
from dop_lightning.engine.steps.gradient import GradientDescent
from dop_lightning.engine.steps.nesterov import Nesterov
from dop_lightning.engine.steps.refinement import Dense, Refinement
from dop_lightning.engine.steps.semi_implicit import SemiImplicit

__all__ = ["Dense", "GradientDescent", "Nesterov", "Refinement", "SemiImplicit", "StepRule"]
