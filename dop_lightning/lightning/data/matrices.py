"""Matrix data: synthetic robust PCA as in section 4.1, and files."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.checks import at_least, one_of, positive
from dop_lightning.foundation.find import find_files
from dop_lightning.foundation.names import printable, safe_name
from dop_lightning.lightning.data.base import RecoveryDataModule, Source, one_file_each
from dop_lightning.matrices.arrays import MATRIX_SUFFIXES, TABLE_SUFFIXES, Matrix, matrix_suffix, read_matrix
from dop_lightning.matrices.tables import write_table
from dop_lightning.problems.noise import Noise
from dop_lightning.problems.problem import Attribute, Problem, Sensing, rename
from dop_lightning.problems.randomness import stream

Float = Literal["float32", "float64"]


def float_type(name: Float) -> torch.dtype:
    """Return the torch type with this name.

    Raises:
        ValueError: the name is not supported.
    """
    return {"float32": torch.float32, "float64": torch.float64}[one_of("dtype", name, ("float32", "float64"))]


class LowRankMatrix(Source):
    """Random matrix of known rank: ``X* = U*U*ᵀ`` (section 4.1), or ``U*V*ᵀ`` if it is not symmetric.

    The entries of U* and V* are standard Gaussian, from the stream (seed, truth), and the same for both types.

    Args:
        n: number of rows, at least 1.
        rank: rank r, from 1 to min(n, columns).
        columns: number of columns; ``None`` for a symmetric matrix ``U*U*ᵀ``.
        dtype: type of X* and of all computations.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, n: int, rank: int, columns: int | None = None, dtype: Float = "float32") -> None:
        self.n = at_least("n", n, 1)
        self.columns = None if columns is None else at_least("columns", columns, 1)
        self.rank = at_least("rank", rank, 1)
        if rank > min(n, columns or n):
            raise ValueError(f"rank must be at most {min(n, columns or n)}, the smaller side, got {rank}")
        self.dtype = float_type(dtype)
        self.name = f"n{n}-r{rank}" if columns is None else f"{n}x{columns}-r{rank}"

    @property
    def is_clean(self) -> bool:
        """Always true."""
        return True

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``n`` and ``true_rank`` (``rank`` is the recovered rank)."""
        return {"n": self.n, "true_rank": self.rank}

    def signal(self, seed: int) -> Tensor:
        """Return X*, ``(n, columns)``."""
        generator = stream(seed, "truth")
        U = torch.randn(self.n, self.rank, generator=generator, dtype=torch.float32).to(self.dtype)
        if self.columns is None:
            return U @ U.T
        return U @ torch.randn(self.rank, self.columns, generator=generator, dtype=torch.float32).to(self.dtype)


class MatrixFile(Source):
    """Matrix in a file (see :func:`~dop_lightning.matrices.arrays.read_matrix`). NaN are missing entries.

    Args:
        path: path of the file.
        truth: file with the clean matrix, of the same shape, if known.
        key: name of the array in an ``.npz``, ``.mat``, HDF5 or Zarr file.
        index: names of the label columns of a table.
    """

    def __init__(
        self, path: Path, truth: Path | None = None, key: str | None = None, index: Sequence[str] = ()
    ) -> None:
        self.path = path
        suffix = matrix_suffix(path)
        self.name = path.name[: -len(suffix)] if suffix in MATRIX_SUFFIXES else path.stem
        self._index = tuple(index)
        self._truth = truth
        self._key = key
        self._read: Matrix | None = None

    def _load(self) -> Matrix:
        if self._read is None:
            self._read = read_matrix(self.path, self._key, self._index)
        return self._read

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``matrix``: the name of the file."""
        return {"matrix": printable(self.name)}

    def write(self, folder: Path, outcome: Outcome) -> bool:
        """Write both parts as tables with the labels of a table file, in addition to arrays and pictures."""
        labels = self._load().labels
        if labels is not None:
            for name, part in (("recovered", outcome.signal), ("corruption", outcome.corruption)):
                suffix = ".tsv" if matrix_suffix(self.path).startswith(".tsv") else ".csv"
                write_table(folder / f"{name}{suffix}", part.numpy(), labels)
        return False

    def signal(self, seed: int) -> Tensor:
        """Return the matrix, independent of the seed."""
        return self._load().values

    def mask(self) -> Tensor | None:
        """Return the mask of the entries that are not NaN."""
        return self._load().mask

    def _truth_index(self) -> tuple[str, ...]:
        is_table = self._truth is not None and matrix_suffix(self._truth) in (*TABLE_SUFFIXES, ".parquet")
        return self._index if is_table else ()

    def truth(self, signal_shape: Sequence[int] = ()) -> Tensor | None:
        """Return the clean matrix.

        Raises:
            ValueError: the shape differs, or entries are missing.
        """
        if self._truth is None:
            return None
        truth, mask, _ = read_matrix(self._truth, self._key, self._truth_index())
        if truth.shape != self.signal(0).shape or mask is not None:
            raise ValueError(
                f"{self._truth}: the truth must be complete and have the shape of {self.path}, "
                f"{tuple(self.signal(0).shape)}, got {tuple(truth.shape)}{' with NaN' if mask is not None else ''}"
            )
        return truth.to(self.signal(0).dtype)


class MatrixDataModule(RecoveryDataModule):
    """Matrices × noises × seeds: synthetic matrices of all given sizes and ranks, or files.

    Args:
        n: number of rows of synthetic matrices, one or several numbers.
        rank: their rank, one or several numbers.
        columns: their number of columns; ``None`` for symmetric matrices ``U*U*ᵀ``.
        files: files, folders or globs, instead of synthetic matrices.
        truth: files with the clean matrices, one per file in the same order, or one for all; only without noise.
        key: name of the array in ``.npz``, ``.mat``, HDF5 and Zarr files.
        noise: noise added to each matrix; ``None`` adds none.
        seeds: seeds, or their number.
        batch_size: maximum number of matrices of one shape in a batch; ``None`` for all; ``auto`` forms batches as
            large as memory allows, and enough batches for all processes.
        sensing: one or several ways to measure each synthetic matrix; ``None`` observes its entries.
        dtype: type of synthetic matrices and of all computations; files have their own type.
        alphas: ratios of the rates in units of √max(n, columns), one or several. Each problem is recovered with each of
            them, with the same truth, corruption and initialization. They are used if the model's alpha is null.
        max_memory: maximum memory of a batch with ``auto``, such as ``8G``; by default three fifths of the available
            memory.
        index: names of the label columns of tables; by default the first column if it contains text.

    Raises:
        ValueError: a pattern matches no files, a file is not a matrix, or an argument is out of range.
    """

    growing = RecoveryDataModule.growing | {"n", "rank", "files", "truth", "alphas"}

    def __init__(
        self,
        n: int | list[int] = 50,
        rank: int | list[int] = 5,
        columns: int | None = None,
        files: str | list[str] | None = None,
        truth: str | list[str] | None = None,
        key: str | None = None,
        noise: Noise | list[Noise] | None = None,
        seeds: int | list[int] = 1,
        batch_size: int | Literal["auto"] | None = None,
        sensing: Sensing | list[Sensing] | None = None,
        dtype: Float = "float32",
        alphas: float | list[float] | None = None,
        max_memory: str | None = None,
        index: list[str] | None = None,
    ) -> None:
        super().__init__(noise, seeds, batch_size, sensing, max_memory)
        self.n = n if isinstance(n, list) else [n]
        self.rank = rank if isinstance(rank, list) else [rank]
        for name, values in (("n", self.n), ("rank", self.rank)):
            if not values:
                raise ValueError(f"{name} must be at least one number, got an empty list")
        self.columns = columns
        self.files = files
        self.truth = truth
        self.key = key
        self.index = index or []
        if self.index and files is None:
            raise ValueError(f"index requires files, got {', '.join(self.index)} without files")
        if truth is not None and (files is None or noise is not None):
            raise ValueError(f"truth requires files and no noise, got {truth!r}")
        if files is not None and sensing is not None:
            raise ValueError(f"sensing cannot be combined with files, which contain the observations, got {sensing}")
        float_type(dtype)
        self.dtype: Float = dtype
        self.alphas = None if alphas is None else alphas if isinstance(alphas, list) else [alphas]
        if self.alphas is not None:
            for scale in self.alphas:
                positive("alphas", scale)
            if not self.alphas or len(set(self.alphas)) < len(self.alphas):
                raise ValueError(f"alphas must be different numbers, at least one, got {self.alphas}")

    def variants(self, problem: Problem) -> list[Problem]:
        """Return a copy of the problem for each value in ``alphas``, named after the value."""
        if self.alphas is None:
            return [problem]
        unit = max(problem.signal_shape) ** 0.5
        return [
            rename(
                replace(problem, alpha=scale * unit, attributes={**problem.attributes, "alpha_scale": scale}),
                safe_name(f"{problem.name}-alpha{scale:.12g}"),
            )
            for scale in self.alphas
        ]

    def sources(self) -> Sequence[Source]:
        """Return one source per file, or one per size and rank."""
        if self.files is None:
            sizes = itertools.product(self.n, self.rank)
            return [LowRankMatrix(n, rank, self.columns, self.dtype) for n, rank in sizes]
        paths = find_files(self.files, MATRIX_SUFFIXES)
        truths = one_file_each("truth", paths, self.truth, lambda entry: find_files(entry, MATRIX_SUFFIXES))
        return [MatrixFile(path, truth, self.key, self.index) for path, truth in zip(paths, truths, strict=True)]
