"""How the problems of a run are spread over processes: each has its own, and they exchange nothing on the way."""

from dop_lightning.lightning.strategies.problem_parallel import ProblemParallelStrategy

__all__ = ["ProblemParallelStrategy"]
