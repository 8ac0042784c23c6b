"""How fast an optimizer lets a network become fine, for the default α of images.

See :mod:`dop_lightning.engine.alpha` for what the numbers mean, and docs/alpha.md for how they were measured.
"""

from functools import singledispatch

from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RAdam

GRADIENT_DESCENT = 1330.0
"""T*·τ of gradient descent."""

ADAM = 1.5
"""T*·rate of Adam and its kin, whose steps are as long as their rate."""


@singledispatch
def pace(optimizer: Optimizer) -> float:
    """Return T*·rate of an optimizer: iterations until a network begins to follow outliers, times its learning rate.

    Register the value of your own optimizer with ``pace.register(MyOptimizer, lambda optimizer: 2.0)``.

    Raises:
        ValueError: the pace of this kind of optimizer was not measured.
    """
    raise ValueError(
        f"alpha has no default for the theta_optimizer {type(optimizer).__name__}, whose pace is not known; "
        "specify alpha, or register the pace (dop_lightning.engine.optim.pace)"
    )


@pace.register(Adam)
@pace.register(AdamW)
@pace.register(NAdam)
@pace.register(RAdam)
def _of_adam(optimizer: Optimizer) -> float:  # noqa: ARG001
    return ADAM


@pace.register(SGD)
def _of_sgd(optimizer: Optimizer) -> float:  # noqa: ARG001
    return GRADIENT_DESCENT
