"""Vector data: synthetic sparse recovery (Eq. 5)."""

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
    """Random vector with k standard Gaussian entries, drawn without replacement; the other entries are 0.

    For the same seed, the nonzero entries for a smaller k are among those for a larger one, with the same values.

    Args:
        n: number of entries, at least 1.
        nonzeros: number k of nonzero entries, from 1 to n.
        dtype: type of x* and of all computations.

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
        """Always true."""
        return True

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``n`` and ``nonzeros``."""
        return {"n": self.n, "nonzeros": self.nonzeros}

    def signal(self, seed: int) -> Tensor:
        """Return x*, ``(n,)``."""
        generator = stream(seed, "truth")
        which = torch.randperm(self.n, generator=generator)[: self.nonzeros]
        values = torch.randn(self.n, generator=generator, dtype=torch.float32)
        x = torch.zeros(self.n, dtype=self.dtype)
        x[which] = values[: self.nonzeros].to(self.dtype)
        return x


class VectorDataModule(RecoveryDataModule):
    """Sparse vectors × measurements × noises × seeds.

    Args:
        n: number of entries, one or several numbers.
        nonzeros: number of nonzero entries, one or several numbers.
        noise: noise added to the measurements; ``None`` adds none.
        seeds: seeds, or their number.
        batch_size: maximum number of vectors of one shape in a batch; ``None`` for all; ``auto`` forms batches as large
            as memory allows, and enough batches for all processes.
        sensing: one or several ways to measure each vector; ``None`` observes its entries.
        dtype: type of the vectors and of all computations.
        max_memory: maximum memory of a batch with ``auto``, such as ``8G``; by default three fifths of the available
            memory.

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
        """Return one source per size and sparsity."""
        return [SparseVector(n, k, self.dtype) for n, k in itertools.product(self.n, self.nonzeros)]
