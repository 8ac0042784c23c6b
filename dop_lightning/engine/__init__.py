"""Model fitting: methods, states, the run loop, optimizers and step rules. Plain PyTorch."""

from dop_lightning.foundation.lazy import lazy_names

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from dop_lightning.engine.descent import BatchState, StepRule
    from dop_lightning.engine.method import Method
    from dop_lightning.engine.run import Listener, Run
    from dop_lightning.engine.runners import run_to_end
    from dop_lightning.engine.state import Evaluation, OutOfMemoryError, State

PUBLIC = {
    "BatchState": "dop_lightning.engine.descent",
    "Evaluation": "dop_lightning.engine.state",
    "Listener": "dop_lightning.engine.run",
    "Method": "dop_lightning.engine.method",
    "OutOfMemoryError": "dop_lightning.engine.state",
    "Run": "dop_lightning.engine.run",
    "State": "dop_lightning.engine.state",
    "StepRule": "dop_lightning.engine.descent",
    "run_to_end": "dop_lightning.engine.runners",
}

__all__ = [
    "BatchState",
    "Evaluation",
    "Listener",
    "Method",
    "OutOfMemoryError",
    "Run",
    "State",
    "StepRule",
    "run_to_end",
]

if not TYPE_CHECKING:  # otherwise a type checker would accept any name
    __getattr__ = lazy_names(__name__, PUBLIC)
