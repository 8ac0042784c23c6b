"""How fast a network learns details with an optimizer, for the default α of images.

:mod:`dop_lightning.engine.alpha` explains the numbers, and docs/alpha.md how they were measured.
"""

from functools import singledispatch

from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RAdam

GRADIENT_DESCENT = 1330.0
"""T*·τ of gradient descent."""

ADAM = 1.5
"""T*·rate of Adam and its variants, whose step length is about the learning rate."""


@singledispatch
def pace(optimizer: Optimizer) -> float:
    """Return T*·rate of an optimizer: iterations until a network begins to fit outliers, times the learning rate.

    Register the value of a custom optimizer with ``pace.register(MyOptimizer, lambda optimizer: 2.0)``.

    Raises:
        ValueError: no pace is registered for this class of optimizers.
    """
    raise ValueError(
        f"alpha has no default for the theta_optimizer {type(optimizer).__name__}, whose pace is unknown; "
        "specify alpha, or register the pace (dop_lightning.engine.optim.pace)"
    )


@pace.register(Adam)
@pace.register(AdamW)
@pace.register(NAdam)
@pace.register(RAdam)
def _adam_pace(optimizer: Optimizer) -> float:  # noqa: ARG001
    return ADAM


@pace.register(SGD)
def _sgd_pace(optimizer: Optimizer) -> float:  # noqa: ARG001
    return GRADIENT_DESCENT
