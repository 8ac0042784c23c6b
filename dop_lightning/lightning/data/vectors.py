"""Vectors: synthetic sparse recovery (Eq. 5)."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.foundation.checks import at_least
from dop_lightning.lightning.data.base import RecoveryDataModule, Source
from dop_lightning.lightning.data.matrices import Float, float_type
from dop_lightning.problems.noise import Noise
from dop_lightning.problems.problem import Attribute, Sensing
from dop_lightning.problems.randomness import stream


class SparseVector(Source):
    """A random vector of which k entries, drawn without replacement, are standard Gaussian and the others 0.

    The entries of a small k are among those of a larger one for the same seed, with the same values.

    Args:
        n: entries, at least 1.
        nonzeros: k, from 1 to n.
        dtype: of x*, and of all that is computed for it.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, n: int, nonzeros: int, dtype: Float = "float32") -> None:
        self.n = at_least("n", n, 1)
        self.nonzeros = at_least("nonzeros", nonzeros, 1)
        if nonzeros > n:
            raise ValueError(f"nonzeros must be at most {n}, the number of entries, got {nonzeros}")
        self.dtype = float_type(dtype)
        self.name = f"n{n}-k{nonzeros}"

    @property
    def is_clean(self) -> bool:
        """Always."""
        return True

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``n`` and ``nonzeros``."""
        return {"n": self.n, "nonzeros": self.nonzeros}

    def signal(self, seed: int) -> Tensor:
        """x*, ``(n,)``."""
        generator = stream(seed, "truth")
        which = torch.randperm(self.n, generator=generator)[: self.nonzeros]
        values = torch.randn(self.n, generator=generator, dtype=torch.float32)
        x = torch.zeros(self.n, dtype=self.dtype)
        x[which] = values[: self.nonzeros].to(self.dtype)
        return x


class VectorDataModule(RecoveryDataModule):
    """Sparse vectors × measurements × noises × seeds.

    Args:
        n: entries, one number or several.
        nonzeros: how many of them are not 0, one number or several.
        noise: what is done to what was measured; ``None`` adds nothing.
        seeds: seeds, or how many.
        batch_size: vectors of one shape in one batch; ``None`` for all, ``auto`` for as many as memory allows, and as
            there are for each process.
        sensing: how each vector is measured, in one or several ways; ``None`` observes its entries.
        dtype: of the vectors, and of all that is computed for them.
        max_memory: what a batch may take with ``auto``, such as ``8G``; by default three fifths of what is free.

    Raises:
        ValueError: an argument is out of range.
    """

    growing = RecoveryDataModule.growing | {"n", "nonzeros"}

    def __init__(
        self,
        n: int | list[int] = 100,
        nonzeros: int | list[int] = 5,
        noise: Noise | list[Noise] | None = None,
        seeds: int | list[int] = 1,
        batch_size: int | Literal["auto"] | None = None,
        sensing: Sensing | list[Sensing] | None = None,
        dtype: Float = "float32",
        max_memory: str | None = None,
    ) -> None:
        super().__init__(noise, seeds, batch_size, sensing, max_memory)
        self.n = n if isinstance(n, list) else [n]
        self.nonzeros = nonzeros if isinstance(nonzeros, list) else [nonzeros]
        self.dtype: Float = dtype

    def sources(self) -> Sequence[Source]:
        """One source a size and sparsity."""
        return [SparseVector(n, k, self.dtype) for n, k in itertools.product(self.n, self.nonzeros)]
