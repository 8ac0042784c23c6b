"""Gaussian measurements: ``yᵢ = ⟨Aᵢ, X⟩`` with independent normal entries.

Shapes: K problems, m measurements, X ``(K, *n)`` with N entries each, A ``(K, m, N)``; a chunk is c rows of one A.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import one_of
from dop_lightning.model.operators.base import Operator
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import ProblemBatch
from dop_lightning.problems.randomness import stream

Storage = Literal["auto", "dense", "seeds"]

CHUNK = 2**20
"""Entries of A that are drawn from one stream, at most (a row at least). Part of what A is: never change it."""

DENSE_LIMIT = 2**30
"""Bytes that «auto» keeps in memory, at most; more are drawn anew at every use."""


class GaussianSensing(Operator):
    """``A(X)ᵢ = ⟨Aᵢ, X⟩`` with entries of Aᵢ from N(0, 1/m), so that ``E A*A`` is the identity; X of any shape.

    Each problem has its own A, from the stream (seed, sensing): on the CPU and in float32, so that it is the same on
    every device and for both types.

    Args:
        problems: the batch, of observations ``(m,)``.
        symmetric: whether Aᵢ is replaced by ``½(Aᵢ + Aᵢᵀ)``. Symmetric X are measured as before, and ``E A*A`` is the
            projection to symmetric matrices.
        storage: ``dense`` keeps A, K·m·N numbers; ``seeds`` draws it anew at every use, a chunk at a time, which takes
            no memory but long; ``auto`` keeps it up to 1 GiB. A is the same bit for bit.

    Raises:
        ValueError: an observation is no vector, a signal is not a square matrix where ``symmetric``, or ``storage`` is
            something else.
    """

    A: Tensor | None

    def __init__(self, problems: ProblemBatch, symmetric: bool = False, storage: Storage = "auto") -> None:
        super().__init__(problems)
        one_of("storage", storage, ("auto", "dense", "seeds"))
        self.measurements = count_measurements(problems, "GaussianSensing")
        self.signal_shape = problems.signal_shape
        if symmetric:
            square_side(self.signal_shape, "symmetric measurements")
        self.symmetric = symmetric
        self._seeds = [problem.seed for problem in problems]
        self._dtype = problems.dtype
        self._entries = int(torch.Size(self.signal_shape).numel())
        rows = max(1, CHUNK // self._entries)
        self._spans = [(i, min(i + rows, self.measurements)) for i in range(0, self.measurements, rows)]
        size = len(problems) * self.measurements * self._entries * problems.observation.element_size()
        dense = storage == "dense" or (storage == "auto" and size <= DENSE_LIMIT)
        self.register_buffer("A", self.matrix() if dense else None, persistent=False)

    def matrix(self) -> Tensor:
        """All of A, ``(K, m, N)``, on the CPU."""
        A = torch.empty(len(self._seeds), self.measurements, self._entries, dtype=self._dtype, device="cpu")
        for k in range(len(A)):
            for number, (start, end) in enumerate(self._spans):
                A[k, start:end] = self._draw(k, number)
        return A

    def _draw(self, k: int, number: int) -> Tensor:
        """Chunk ``number`` of the A of problem k, ``(c, N)``."""
        start, end = self._spans[number]
        generator = stream(self._seeds[k], "sensing", number)
        rows = torch.randn(end - start, self._entries, generator=generator, dtype=torch.float32, device="cpu")
        rows = rows.to(self._dtype).mul_(self.measurements**-0.5)
        if self.symmetric:
            square = rows.unflatten(1, self.signal_shape)
            rows = (square + square.mT).mul_(0.5).flatten(1)
        return rows

    def _chunks(self, like: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        """Which problems, which rows, and what they hold, ``(K, c, N)`` or ``(1, c, N)``, where ``like`` lies."""
        for number, (start, end) in enumerate(self._spans):
            if self.A is not None:
                yield slice(None), slice(start, end), self.A[:, start:end]
                continue
            for k in range(len(self._seeds)):
                yield slice(k, k + 1), slice(start, end), self._draw(k, number)[None].to(like.device)

    def _add(self, r: Tensor, signal: Tensor) -> Tensor:
        """``r += A(X)`` in place."""
        x = signal.flatten(1)  # K N
        for problems, rows, A in self._chunks(r):
            if r.device.type == "cpu":  # batched products with a column are ten times as slow there
                for row, matrix, vector in zip(r[problems, rows], A, x[problems], strict=True):
                    row.addmv_(matrix, vector)
            else:
                r[problems, rows, None].baddbmm_(A, x[problems, :, None])
        return r

    def forward(self, signal: Tensor) -> Tensor:
        """``⟨Aᵢ, X⟩``, ``(K, m)``."""
        return self._add(signal.new_zeros(len(signal), self.measurements), signal)

    def adjoint(self, residual: Tensor) -> Tensor:
        """``Σᵢ rᵢAᵢ``, ``(K, *n)``."""
        X = residual.new_zeros(len(residual), 1, self._entries)
        for problems, rows, A in self._chunks(residual):
            X[problems].baddbmm_(residual[problems, None, rows], A)
        return X.view(len(residual), *self.signal_shape)

    def add_forward_(self, r: Tensor, signal: Signal, iteration: int) -> None:
        """``r += A(φ(θ))`` in place."""
        self._add(r, signal.evaluate(iteration))


def count_measurements(problems: ProblemBatch, operator: str) -> int:
    """m, where an observation is a vector.

    Raises:
        ValueError: it is something else.
    """
    shape = tuple(problems.observation.shape[1:])
    if len(shape) != 1:
        raise ValueError(f"{operator} needs observations of shape (m,), got {shape}")
    return shape[0]


def square_side(shape: tuple[int, ...], what: str) -> int:
    """n of an n×n signal.

    Raises:
        ValueError: the signal is something else.
    """
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{what} need square matrices, got a signal of shape {shape}")
    return shape[0]
