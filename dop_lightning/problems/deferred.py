"""Problems that load their tensors on demand, so that the memory of a run does not grow with the number of problems."""

import hashlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from dop_lightning.foundation.devices import default_to_float32
from dop_lightning.problems.problem import DIGEST_LENGTH, Part, Problem

TENSORS = ("observation", "truth", "true_corruption", "mask", "undamaged")
"""Attributes of a problem that are loaded on demand."""

Reading = Callable[[], tuple[Problem, object]]
"""Function that reads a problem. It also returns an object to keep alive as long as the tensors of the problem."""


@contextmanager
def as_at_setup() -> Iterator[None]:
    """Read to the CPU in single precision, whatever the default device and dtype are at the time of reading."""
    with default_to_float32(), torch.device("cpu"):
        yield


class Tensors:
    """Tensors of a deferred problem. They stay in memory as long as this object."""

    __slots__ = ("__weakref__", "mask", "observation", "owner", "true_corruption", "truth", "undamaged")

    def __init__(self, problem: Problem, owner: object = None) -> None:
        self.observation = problem.observation
        self.truth = problem.truth
        self.true_corruption = problem.true_corruption
        self.mask = problem.mask
        self.undamaged = problem.undamaged
        self.owner = owner


class Shelf(ABC):
    """Source of the tensors of a deferred problem. It holds only a weak reference to them."""

    __slots__ = ("_held",)

    def __init__(self, held: Tensors | None = None) -> None:
        self._held: weakref.ref[Tensors] | None = None if held is None else weakref.ref(held, self._release)

    def take(self) -> Tensors:
        """Return the tensors, which are read again unless they are in memory.

        Raises:
            ValueError: the tensors have changed since the problem was created.
            OSError: a file cannot be read.
        """
        held = None if self._held is None else self._held()
        if held is None:
            held = self._read()
            self._held = weakref.ref(held, self._release)
        return held

    def _release(self, held: "weakref.ref[Tensors]") -> None:
        """Drop a reference to tensors after they were freed."""
        if self._held is held:
            self._held = None

    @abstractmethod
    def _read(self) -> Tensors:
        """Read the tensors again."""


class SourceShelf(Shelf):
    """Tensors of a problem that can be read again.

    Args:
        problem: the problem as it was first read.
        read: function that reads it again.
        held: tensors of the problem.
        digest: the digest of the problem.
    """

    __slots__ = ("_digest", "_name", "_reading")

    def __init__(self, problem: Problem, read: Reading, held: Tensors, digest: str) -> None:
        super().__init__(held)
        self._reading, self._name, self._digest = read, problem.name, _digest(problem, digest)

    def _read(self) -> Tensors:
        with as_at_setup():
            problem, owner = self._reading()
        if _digest(problem, problem.digest) != self._digest:
            raise ValueError(
                f"{self._name}: the file has changed since the run started; restore the original file and run the same "
                "command again to resume, or start a new run"
            )
        return Tensors(problem, owner)


class WindowShelf(Shelf):
    """Tensors of a tile: slices of the tensors of the whole problem, which stay in memory with them.

    Args:
        whole: source of the tensors of the whole problem.
        rows: rows of the tile.
        columns: columns of the tile.
    """

    __slots__ = ("_columns", "_rows", "_whole")

    def __init__(self, whole: Shelf, rows: slice, columns: slice) -> None:
        super().__init__()
        self._whole, self._rows, self._columns = whole, rows, columns

    def _read(self) -> Tensors:
        whole = self._whole.take()
        tile: Tensors = Tensors.__new__(Tensors)
        for name in TENSORS:
            tensor: Tensor | None = getattr(whole, name)
            window = None if tensor is None else tensor[..., self._rows, self._columns].contiguous()
            setattr(tile, name, window)
        tile.owner = whole
        return tile


class DeferredProblem(Problem):
    """Problem that keeps everything except its tensors in memory. Created by :func:`defer`.

    ``observation``, ``truth``, ``true_corruption``, ``mask`` and ``undamaged`` are read again at each access, unless a
    :class:`~dop_lightning.problems.problem.ProblemBatch` keeps them in memory, which it does after the first access to
    its observation. ``dataclasses.replace``, ``copy.deepcopy`` and ``pickle`` create an ordinary problem.
    """

    _shelf: Shelf
    _shape: tuple[int, ...]
    _dtype: torch.dtype
    _has_mask: bool
    _has_undamaged: bool
    _digest: str | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Create an ordinary problem, since tensors passed as arguments cannot be read again."""
        return Problem(*args, **kwargs)

    @property
    def observation(self) -> Tensor:
        """``y``, loaded if necessary."""
        tensor: Tensor = self._shelf.take().observation
        return tensor

    @property
    def truth(self) -> Tensor | None:
        """``X*``, loaded if necessary."""
        return self._shelf.take().truth

    @property
    def true_corruption(self) -> Tensor | None:
        """``s*``, loaded if necessary."""
        return self._shelf.take().true_corruption

    @property
    def mask(self) -> Tensor | None:
        """Mask of the observed entries, loaded if necessary."""
        return self._shelf.take().mask if self._has_mask else None

    @property
    def undamaged(self) -> Tensor | None:
        """Mask of the entries known to be undamaged, loaded if necessary."""
        return self._shelf.take().undamaged if self._has_undamaged else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the observation, ``(*m)``."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the observation."""
        return self._dtype

    @property
    def has_mask(self) -> bool:
        """Whether the problem has a mask of observed entries."""
        return self._has_mask

    @property
    def is_deferred(self) -> bool:
        """Whether the tensors are loaded on demand."""
        return True

    @property
    def digest(self) -> str:
        """See :attr:`Problem.digest`. Computed once."""
        if self._digest is None:
            object.__setattr__(self, "_digest", super().digest)
        return str(self._digest)

    def in_memory(self) -> object:
        """Load the tensors if necessary, and return an object that keeps them in memory."""
        return self._shelf.take()

    def renamed(self, name: str, folder: str | None = None) -> Problem:
        """See :meth:`Problem.renamed`. Does not load the tensors."""
        folder = name if folder is None else folder
        if (name, folder) == (self.name, self.folder):
            return self
        return _create_deferred(self, self._shelf, self._digest, name=name, folder=folder)

    def window(self, rows: slice, columns: slice, **changes: Any) -> Problem:
        """See :meth:`Problem.window`. Does not load the tensors."""
        height, width = (len(range(n)[part]) for n, part in zip(self._shape[-2:], (rows, columns), strict=True))
        tile = _create_deferred(
            self,
            WindowShelf(self._shelf, rows, columns),
            None,
            signal_shape=(*self._shape[:-2], height, width),
            source=None,
            **{"part": Part(self, rows, columns), **changes},
        )
        object.__setattr__(tile, "_shape", tile.signal_shape)
        return tile

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as an ordinary problem, with its tensors."""
        return Problem, tuple(getattr(self, field.name) for field in fields(self))


def defer(problem: Problem, read: Reading, owner: object = None) -> tuple[Problem, object]:
    """Release the tensors of a problem, which are then loaded on demand.

    Args:
        problem: the problem as it was read.
        read: function that reads it again. It must return the same tensors; the name may differ.
        owner: object to keep alive as long as the tensors.

    Returns:
        The deferred problem, and an object that keeps its tensors in memory until it is deleted.
    """
    held = Tensors(problem, owner)
    digest = problem.digest
    return _create_deferred(problem, SourceShelf(problem, read, held, digest), digest), held


def _create_deferred(problem: Problem, shelf: Shelf, digest: str | None, **changes: Any) -> DeferredProblem:
    made: DeferredProblem = object.__new__(DeferredProblem)
    for field in fields(Problem):
        if field.name not in TENSORS:
            value = changes[field.name] if field.name in changes else getattr(problem, field.name)
            object.__setattr__(made, field.name, value)
    known = problem._has_undamaged if isinstance(problem, DeferredProblem) else problem.undamaged is not None
    object.__setattr__(made, "signal_shape", _shared_tuple(made.signal_shape))
    own = {
        "_shape": _shared_tuple(problem.shape),
        "_dtype": problem.dtype,
        "_has_mask": problem.has_mask,
        "_has_undamaged": known,
    }
    for name, value in {"_shelf": shelf, "_digest": digest, **own}.items():
        object.__setattr__(made, name, value)
    return made


@lru_cache(maxsize=64)
def _shared_tuple(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the first equal tuple, since thousands of problems of a run have the same shape."""
    return shape


def _digest(problem: Problem, of_inputs: str) -> str:
    """Return a hash of all tensors of a problem, given that of the inputs of its recovery."""
    if problem.truth is None and problem.true_corruption is None:
        return of_inputs
    digest = hashlib.sha256(of_inputs.encode())
    for name in ("truth", "true_corruption"):
        tensor: Tensor | None = getattr(problem, name)
        if tensor is not None:
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:DIGEST_LENGTH]
