"""Linear operators A, which map a signal to an observation."""

from dop_lightning.model.operators.base import Identity, Operator
from dop_lightning.model.operators.blur import Blur, Blurring, BoxBlur, GaussianBlur, MotionBlur
from dop_lightning.model.operators.commuting_sensing import CommutingSensing
from dop_lightning.model.operators.convolution import Convolution
from dop_lightning.model.operators.downsampling import Downsampling
from dop_lightning.model.operators.entry_mask import EntryMask
from dop_lightning.model.operators.gaussian_sensing import GaussianSensing
from dop_lightning.model.operators.masked import Masked
from dop_lightning.model.operators.physics import Physics, PhysicsOperator
from dop_lightning.model.operators.sensing import CommutingMeasurements, GaussianMeasurements
from dop_lightning.problems.problem import ProblemBatch, Sensing

__all__ = [
    "Blur",
    "Blurring",
    "BoxBlur",
    "CommutingMeasurements",
    "CommutingSensing",
    "Convolution",
    "Downsampling",
    "EntryMask",
    "GaussianBlur",
    "GaussianMeasurements",
    "GaussianSensing",
    "Identity",
    "Masked",
    "MotionBlur",
    "Operator",
    "Physics",
    "PhysicsOperator",
    "Sensing",
    "operator_of",
]


def operator_of(problems: ProblemBatch) -> Operator:
    """Return the operator A of a batch: that of its ``sensing``, or the identity, combined with the mask, if any.

    Raises:
        TypeError: ``sensing.operator`` does not return an operator.
    """
    if problems.sensing is None:
        return Identity(problems) if problems.mask is None else EntryMask(problems)
    operator = problems.sensing.operator(problems)
    if not isinstance(operator, Operator):
        raise TypeError(f"{problems.sensing}.operator must return an Operator, got {type(operator).__name__}")
    return operator if problems.mask is None else Masked(problems, operator)
