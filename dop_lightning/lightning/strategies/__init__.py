"""Distribute the problems of a run among processes, which work independently and do not communicate."""

from dop_lightning.lightning.strategies.problem_parallel import ProblemParallelStrategy

__all__ = ["ProblemParallelStrategy"]
