"""Apply ``Trainer(precision=…)``: as the type of all computations, or as the precision inside networks.

Matrices are never autocast, because a residual with eight bits cannot represent small outliers. Lightning's plugins,
which would run whole training steps under autocast or another default type, are therefore replaced by a plugin that
only keeps their name.
"""

import inspect
from dataclasses import replace
from functools import partial

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import Precision

from dop_lightning.engine.method import Method
from dop_lightning.engine.state import Procedure

DOUBLE = "64-true"
SINGLE = "32-true"
MIXED = "bf16-mixed"


class NamedPrecision(Precision):
    """Precision plugin without effect, which keeps the value of ``trainer.precision``.

    Args:
        replaced: plugin that it replaces.
    """

    def __init__(self, replaced: Precision) -> None:
        super().__init__()
        self.replaced = replaced
        self.precision = replaced.precision


def apply_precision(trainer: pl.Trainer, method: Procedure) -> tuple[Procedure, torch.dtype | None]:
    """Return the method with the precision of a trainer, and the type of all computations.

    Args:
        trainer: the trainer; its plugin is replaced until :func:`restore_precision` is called.
        method: recovery method.

    Returns:
        The method, with bf16 inside its networks for ``bf16-mixed``; and float64 for ``64-true``, otherwise ``None``,
        the type of the observations.

    Raises:
        ValueError: the precision is not supported, or ``bf16-mixed`` is used without a network.
    """
    given = str(trainer.precision)
    if given not in (SINGLE, DOUBLE, MIXED):
        raise ValueError(
            f"trainer.precision must be {SINGLE}, {DOUBLE}, or {MIXED} (inside networks only), got {given!r}"
        )
    if given == MIXED:
        method = _with_bf16(method)
    plugin = trainer.strategy.precision_plugin
    if given != SINGLE and not isinstance(plugin, NamedPrecision):
        trainer.strategy.precision_plugin = NamedPrecision(plugin)
    return method, torch.float64 if given == DOUBLE else None


def restore_precision(trainer: pl.Trainer) -> None:
    """Restore the plugin of the trainer, for another module."""
    plugin = trainer.strategy.precision_plugin
    if isinstance(plugin, NamedPrecision):
        trainer.strategy.precision_plugin = plugin.replaced


def _with_bf16(method: Procedure) -> Procedure:
    made = getattr(method, "signal", None)
    inner = made.args[-1] if isinstance(made, partial) and made.args else getattr(made, "func", made)
    takes = inner is not None and "precision" in inspect.signature(inner).parameters
    if not isinstance(method, Method) or made is None or not takes:
        name = getattr(inner, "__name__", type(method).__name__)
        raise ValueError(
            f"trainer.precision must be {SINGLE} or {DOUBLE} with {name}, got {MIXED!r}; bf16 requires a network with "
            "an argument precision, and matrices are never autocast"
        )
    return replace(method, signal=partial(made, precision="bf16"))
