"""Problems, random streams, noise, metrics and scores."""

from dop_lightning.foundation.lazy import lazy_names

TYPE_CHECKING = False  # as in dop_lightning/__init__.py
if TYPE_CHECKING:
    from dop_lightning.problems.problem import Problem, ProblemBatch

PUBLIC = dict.fromkeys(("Problem", "ProblemBatch"), "dop_lightning.problems.problem")

__all__ = ["Problem", "ProblemBatch"]

if not TYPE_CHECKING:  # otherwise type checkers would accept any name
    __getattr__ = lazy_names(__name__, PUBLIC)
