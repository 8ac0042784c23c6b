"""Problems whose tensors are read again when they are needed, so that the memory of a run does not grow with them."""

import hashlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from dop_lightning.foundation.devices import single_by_default
from dop_lightning.problems.problem import Part, Problem

TENSORS = ("observation", "truth", "true_corruption", "mask", "undamaged")
"""Attributes of a problem that are read again."""

Reading = Callable[[], tuple[Problem, object]]
"""Reads a problem, and gives what its source should keep in memory for as long as the problem's tensors are."""


@contextmanager
def as_at_setup() -> Iterator[None]:
    """Read on the CPU and in single precision, whatever the default device and type are when a problem has its turn."""
    with single_by_default(), torch.device("cpu"):
        yield


class Tensors:
    """The tensors of a deferred problem. They stay in memory as long as this object does."""

    __slots__ = ("__weakref__", "mask", "observation", "owner", "true_corruption", "truth", "undamaged")

    def __init__(self, problem: Problem, owner: object = None) -> None:
        self.observation = problem.observation
        self.truth = problem.truth
        self.true_corruption = problem.true_corruption
        self.mask = problem.mask
        self.undamaged = problem.undamaged
        self.owner = owner


class Shelf(ABC):
    """Where the tensors of a deferred problem come from; it holds no strong reference to them."""

    __slots__ = ("_held",)

    def __init__(self, held: Tensors | None = None) -> None:
        self._held = None if held is None else weakref.ref(held)

    def take(self) -> Tensors:
        """Return the tensors: those in memory, else read again.

        Raises:
            ValueError: they have changed since the problem was made.
            OSError: a file cannot be read.
        """
        held = None if self._held is None else self._held()
        if held is None:
            held = self._read()
            self._held = weakref.ref(held)
        return held

    @abstractmethod
    def _read(self) -> Tensors:
        """Read the tensors again."""


class SourceShelf(Shelf):
    """The tensors of a problem that can be made anew.

    Args:
        problem: as it was made the first time.
        read: makes it anew.
        held: its tensors.
    """

    __slots__ = ("_digest", "_name", "_reading")

    def __init__(self, problem: Problem, read: Reading, held: Tensors) -> None:
        super().__init__(held)
        self._reading, self._name, self._digest = read, problem.name, _digest(problem)

    def _read(self) -> Tensors:
        with as_at_setup():
            problem, owner = self._reading()
        if _digest(problem) != self._digest:
            raise ValueError(
                f"{self._name}: the file has changed since the run started; put the earlier one back and run the same "
                "command again to continue, or start a new run"
            )
        return Tensors(problem, owner)


class WindowShelf(Shelf):
    """The tensors of a tile: windows of those of its whole, which stay in memory with them.

    Args:
        whole: the tensors of the whole.
        rows: of the tile.
        columns: of the tile.
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
    """A problem that keeps everything but its tensors in memory.

    ``observation``, ``truth``, ``true_corruption``, ``mask`` and ``undamaged`` are read again at each use, unless an
    active batch holds them: a :class:`~dop_lightning.problems.problem.ProblemBatch` that has been asked for its
    observation does. Made by :func:`defer`. ``dataclasses.replace``, ``copy.deepcopy`` and ``pickle`` give an ordinary
    problem.
    """

    _shelf: Shelf
    _shape: tuple[int, ...]
    _dtype: torch.dtype
    _has_mask: bool
    _has_undamaged: bool
    _mark: str | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an ordinary problem: of given tensors there is nothing to read again."""
        return Problem(*args, **kwargs)

    @property
    def observation(self) -> Tensor:
        """``y``, read if it is not in memory."""
        tensor: Tensor = self._shelf.take().observation
        return tensor

    @property
    def truth(self) -> Tensor | None:
        """``X*``, read if it is not in memory."""
        return self._shelf.take().truth

    @property
    def true_corruption(self) -> Tensor | None:
        """``s*``, read if it is not in memory."""
        return self._shelf.take().true_corruption

    @property
    def mask(self) -> Tensor | None:
        """What was observed, read if it is not in memory."""
        return self._shelf.take().mask if self._has_mask else None

    @property
    def undamaged(self) -> Tensor | None:
        """What is known to be undamaged, read if it is not in memory."""
        return self._shelf.take().undamaged if self._has_undamaged else None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*m)``."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """Type of the observation."""
        return self._dtype

    @property
    def has_mask(self) -> bool:
        """Whether some entries were not observed."""
        return self._has_mask

    @property
    def is_deferred(self) -> bool:
        """Whether the tensors are read at each use."""
        return True

    @property
    def mark(self) -> str:
        """See :attr:`Problem.mark`; computed once."""
        if self._mark is None:
            object.__setattr__(self, "_mark", super().mark)
        return str(self._mark)

    def in_memory(self) -> object:
        """Return what holds the tensors in memory, read if they are not."""
        return self._shelf.take()

    def renamed(self, name: str, folder: str | None = None) -> Problem:
        """See :meth:`Problem.renamed`; nothing is read."""
        folder = name if folder is None else folder
        if (name, folder) == (self.name, self.folder):
            return self
        return _made(self, self._shelf, self._mark, name=name, folder=folder)

    def window(self, rows: slice, columns: slice, **changes: Any) -> Problem:
        """See :meth:`Problem.window`; nothing is read."""
        height, width = (len(range(n)[part]) for n, part in zip(self._shape[-2:], (rows, columns), strict=True))
        tile = _made(
            self,
            WindowShelf(self._shelf, rows, columns),
            None,
            signal_shape=(*self._shape[:-2], height, width),
            source=None,
            part=Part(self, rows, columns),
            **changes,
        )
        object.__setattr__(tile, "_shape", tile.signal_shape)
        return tile

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as an ordinary problem, with its tensors."""
        return Problem, tuple(getattr(self, field.name) for field in fields(self))


def defer(problem: Problem, read: Reading, owner: object = None) -> tuple[Problem, object]:
    """Let go of the tensors of a problem.

    Args:
        problem: as it was read.
        read: reads it again; what it gives must have the same tensors, its name does not matter.
        owner: what its source should keep in memory for as long as the tensors are.

    Returns:
        The problem, and what holds its tensors in memory until it is let go of.
    """
    held = Tensors(problem, owner)
    return _made(problem, SourceShelf(problem, read, held), problem.mark), held


def _made(problem: Problem, shelf: Shelf, mark: str | None, **changes: Any) -> DeferredProblem:
    made: DeferredProblem = object.__new__(DeferredProblem)
    for field in fields(Problem):
        if field.name not in TENSORS:
            value = changes[field.name] if field.name in changes else getattr(problem, field.name)
            object.__setattr__(made, field.name, value)
    known = problem._has_undamaged if isinstance(problem, DeferredProblem) else problem.undamaged is not None
    own = {"_shape": problem.shape, "_dtype": problem.dtype, "_has_mask": problem.has_mask, "_has_undamaged": known}
    for name, value in {"_shelf": shelf, "_mark": mark, **own}.items():
        object.__setattr__(made, name, value)
    return made


def _digest(problem: Problem) -> bytes:
    """Hash of all tensors of a problem."""
    digest = hashlib.blake2b(digest_size=16)
    for name in TENSORS:
        tensor: Tensor | None = getattr(problem, name)
        if tensor is not None:
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.contiguous().numpy().data)
    return digest.digest()
