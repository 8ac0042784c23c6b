"""How a model is fitted: methods, states, the run loop, optimizers and step rules. Plain PyTorch."""

from dop_lightning.foundation.lazy import lazy_names

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from dop_lightning.engine.state import (
        BatchState,
        CorruptionFactory,
        Evaluation,
        Method,
        OperatorFactory,
        OutOfMemoryError,
        SignalFactory,
        ThetaOptimizer,
        advance,
    )

__all__ = [
    "BatchState",
    "CorruptionFactory",
    "Evaluation",
    "Method",
    "OperatorFactory",
    "OutOfMemoryError",
    "SignalFactory",
    "ThetaOptimizer",
    "advance",
]

PUBLIC = dict.fromkeys(__all__, "dop_lightning.engine.state")

if not TYPE_CHECKING:  # else a type checker would accept any name
    __getattr__ = lazy_names(__name__, PUBLIC)
