"""What is to be recovered: one ``Problem``, and K of the same shape stacked as a ``ProblemBatch``.

Shapes: ``K`` problems, ``*m`` the shape of an observation (``C H W``, ``n n``, ``m``), ``*n`` the shape of a signal.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.foundation.order_statistics import median_magnitude
from dop_lightning.problems.randomness import Purpose, stream

Attribute = str | int | float | bool

MARK_LENGTH = 16
"""Hexadecimal digits of a mark."""


class Sensing(ABC):
    """How a signal was measured, in plain settings: A of a batch is made from it.

    It is the same for all problems of a batch; what is random in A follows from each problem's seed.

    A subclass is a frozen dataclass: equal settings make problems that can be stacked.
    """

    name: ClassVar[str]
    """snake_case, the column ``sensing`` of a table."""

    @abstractmethod
    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """``(*m)`` of a signal ``(*n)``.

        Raises:
            ValueError: such signals cannot be measured in this way.
        """

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """``(*n)`` of what was measured as ``(*m)``, where that follows: of a file that holds what was observed.

        Raises:
            ValueError: it does not follow.
        """
        raise ValueError(
            f"the shape of a signal must follow from what was measured of it; it does not from {self} and an "
            f"observation of shape {tuple(observation_shape)}"
        )

    @abstractmethod
    def operator(self, problems: "ProblemBatch") -> nn.Module:
        """Return A of a batch, without its mask: an :class:`~dop_lightning.model.operators.base.Operator`."""

    @property
    @abstractmethod
    def slug(self) -> str:
        """A short text for file names, of ``[a-z0-9.-]``."""

    @property
    @abstractmethod
    def attributes(self) -> dict[str, Attribute]:
        """The columns of a table, ``sensing`` (the name) among them."""

    def measure(self, signal: Tensor, seed: int) -> Tensor:
        """``A(X)`` of one signal ``(*n)``, with the A of a seed; ``(*m)``, on the CPU.

        Raises:
            ValueError: the signal cannot be measured in this way.
        """
        shape = tuple(signal.shape)
        zeros = torch.zeros(self.observation_shape(shape), dtype=signal.dtype)
        problem = Problem("measured", zeros, seed=seed, signal_shape=shape, sensing=self)
        measured: Tensor = self.operator(ProblemBatch([problem]))(signal[None])
        return measured[0]


@dataclass(frozen=True, eq=False)
class Part:
    """Where a tile lies in the problem that it was cut from.

    Attributes:
        whole: that problem.
        rows: of the tile.
        columns: of the tile.
    """

    whole: "Problem"
    rows: slice
    columns: slice


@dataclass(frozen=True, eq=False)  # tensors have no truth value: a problem equals itself alone
class Problem:
    """One observation ``y = A(X) + s`` (Eq. 1) and what is known of it.

    Args:
        name: names its files, its TensorBoard run and its row of the table; unique within a run.
        observation: ``y``, shape ``(*m)``, float32 or float64; entries outside ``mask`` are stored as 0.
        truth: ``X*``, shape ``(*n)``, where it is known; used for scores alone.
        true_corruption: ``s*``, shape ``(*m)``, where it is known; used for scores alone.
        mask: boolean, shape ``(*m)``, true where ``y`` was observed; ``None`` where all of it was.
        seed: names the random streams of the problem, see :mod:`dop_lightning.problems.randomness`.
        signal_shape: ``(*n)``; by default the shape of ``truth``, else that of ``observation``, which is not known to
            be that of the signal where there is a ``sensing``.
        sensing: how ``y`` was measured, if A is more than the mask: with the mask it is ``M∘A``.
        alpha: the ratio of the rates for this problem, above 0, where none is given for the whole run; ``None`` is the
            default of its shape. Problems of a batch may differ in it.
        measured: whether the values are those of a detector, to be kept as they are where they are clean, noise too.
        noise: the standard deviation of the noise in the darker part of a frame that noise limits, in units of y, above
            0; ``None`` of other observations, and where it is not known.
        data_range: the known width of the range of the signal (1 for images), ``None`` where there is none.
        attributes: the axes of a table: image, ratio, rank, …
        source: what the files are written back as; opaque here.
        folder: where its results lie in the folder of a run; by default its name.
        part: of a tile, where it lies in its whole.
        undamaged: boolean, shape ``(*m)``, true for observed entries that are known to be uncorrupted; ``None`` if
            none is.

    Raises:
        ValueError: shapes do not agree or do not follow, the observation is empty, not floating point, or not finite
            where observed, or alpha is out of range.
    """

    name: str
    observation: Tensor
    truth: Tensor | None = None
    true_corruption: Tensor | None = None
    mask: Tensor | None = None
    seed: int = 0
    signal_shape: tuple[int, ...] = ()
    data_range: float | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    source: object = None
    folder: str = ""
    sensing: Sensing | None = None
    alpha: float | None = None
    part: Part | None = None
    measured: bool = False
    noise: float | None = None
    undamaged: Tensor | None = None

    def __post_init__(self) -> None:
        y = self.observation
        if y.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{self.name}: observation must be float32 or float64, got {y.dtype}")
        if y.numel() == 0:
            raise ValueError(f"{self.name}: observation must have at least one entry, got shape {tuple(y.shape)}")
        for label, tensor in (
            ("mask", self.mask),
            ("true_corruption", self.true_corruption),
            ("undamaged", self.undamaged),
        ):
            if tensor is not None and tensor.shape != y.shape:
                raise ValueError(
                    f"{self.name}: {label} must have the shape of the observation, {tuple(y.shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
        if self.mask is not None:
            if self.mask.dtype != torch.bool:
                raise ValueError(f"{self.name}: mask must be boolean, got {self.mask.dtype}")
            if not self.mask.any():
                raise ValueError(f"{self.name}: mask must have at least one observed entry, got none")
            object.__setattr__(self, "observation", torch.where(self.mask, y, torch.zeros_like(y)))
        if self.undamaged is not None and self.undamaged.dtype != torch.bool:
            raise ValueError(f"{self.name}: undamaged must be boolean, got {self.undamaged.dtype}")
        extremes = self.observation.aminmax() if y.numel() else ()  # NaN if any entry is; no array as large as y
        if not all(bool(torch.isfinite(extreme)) for extreme in extremes):
            bad = int((~torch.isfinite(self.observation)).sum())
            raise ValueError(f"{self.name}: observation must be finite where observed, got {bad} entries that are not")
        object.__setattr__(self, "folder", self.folder or self.name)
        if self.alpha is not None:
            positive(f"{self.name}: alpha", self.alpha)
        if self.noise is not None:
            positive(f"{self.name}: noise", self.noise)
        self._settle_signal_shape()
        if self.truth is not None:
            if tuple(self.truth.shape) != self.signal_shape:
                raise ValueError(
                    f"{self.name}: truth must have the shape of the signal, {self.signal_shape}, "
                    f"got {tuple(self.truth.shape)}"
                )
            if not torch.isfinite(self.truth).all():
                raise ValueError(f"{self.name}: truth must be finite, got entries that are not")

    def _settle_signal_shape(self) -> None:
        """Given, or that of the truth or of the observation; what was measured of it has the observation's shape."""
        known = self.observation if self.truth is None else self.truth
        if self.sensing is not None and not self.signal_shape and self.truth is None:
            raise ValueError(f"{self.name}: signal_shape must be given with sensing and without truth, got none")
        shape = tuple(self.signal_shape or known.shape)
        object.__setattr__(self, "signal_shape", shape)
        if self.sensing is not None:
            try:
                expected = self.sensing.observation_shape(shape)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
            if tuple(self.observation.shape) != expected:
                raise ValueError(
                    f"{self.name}: observation must have the shape {expected} of {self.sensing} of a signal of shape "
                    f"{shape}, got {tuple(self.observation.shape)}"
                )

    @property
    def is_tile(self) -> bool:
        """Whether it is a part of a larger problem, in whose folder its results lie."""
        return self.folder != self.name

    @property
    def shape(self) -> tuple[int, ...]:
        """``(*m)``."""
        return tuple(self.observation.shape)

    @property
    def entries(self) -> int:
        """Number of entries of the observation."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the observation."""
        return self.observation.dtype

    @property
    def has_mask(self) -> bool:
        """Whether some entries were not observed."""
        return self.mask is not None

    @property
    def is_deferred(self) -> bool:
        """Whether the tensors are read at each use, see :mod:`dop_lightning.problems.deferred`."""
        return False

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Problems with equal keys can be stacked."""
        return (self.shape, self.signal_shape, str(self.dtype), self.has_mask, self.data_range, self.sensing)

    @property
    def mark(self) -> str:
        """Hash of what determines the recovery: observation, masks, measurement, seed and α. Not the name or truth."""
        y, mask = self.observation, self.mask
        digest = hashlib.sha256(f"{tuple(y.shape)} {y.dtype} {self.seed} {self.data_range!r}".encode())
        digest.update(y.contiguous().numpy().data)
        if mask is not None:
            digest.update(b"mask")
            digest.update(mask.contiguous().numpy().data)
        if self.undamaged is not None:
            digest.update(b"undamaged")
            digest.update(self.undamaged.contiguous().numpy().data)
        if self.sensing is not None:
            digest.update(f"{self.sensing!r} {self.signal_shape}".encode())
        if self.alpha is not None:
            digest.update(f"alpha {self.alpha!r}".encode())
        return digest.hexdigest()[:MARK_LENGTH]

    def in_memory(self) -> object:
        """Return what holds the tensors in memory: the problem itself."""
        return self

    def renamed(self, name: str, folder: str | None = None) -> "Problem":
        """Return the same problem under another name.

        Args:
            name: the new one.
            folder: where its results lie; by default the name.
        """
        folder = name if folder is None else folder
        return self if (name, folder) == (self.name, self.folder) else replace(self, name=name, folder=folder)

    def window(self, rows: slice, columns: slice, **changes: Any) -> "Problem":
        """Return a tile of an image ``(C, H, W)`` as a problem of its own.

        Args:
            rows: of the tile.
            columns: of the tile.
            changes: attributes that differ from those of the whole.
        """

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[..., rows, columns].contiguous()

        return replace(
            self,
            observation=self.observation[..., rows, columns].contiguous(),
            truth=cut(self.truth),
            true_corruption=cut(self.true_corruption),
            mask=cut(self.mask),
            undamaged=cut(self.undamaged),
            signal_shape=(),
            source=None,
            part=Part(self, rows, columns),
            **changes,
        )


def scale(problem: Problem) -> float:
    """The scale of an observation: the known range, else the median of |y| over the observed entries."""
    if problem.data_range is not None:
        return problem.data_range
    y, mask = problem.observation, problem.mask
    if y.device.type == "cpu" and y.dtype in (torch.float32, torch.float64):
        middle = median_magnitude(y, mask)  # without a copy
        return middle or float((y if mask is None else y[mask]).abs().max()) or 1.0
    sizes = (y if mask is None else y[mask]).abs()
    return float(sizes.median()) or float(sizes.max()) or 1.0


class ProblemBatch(Sequence[Problem]):
    """K problems of one shape, stacked on a leading dimension.

    Raises:
        ValueError: no problem, two of one name, or problems whose shapes or types differ.
    """

    def __init__(self, problems: Sequence[Problem], device: torch.device | str = "cpu") -> None:
        if not problems:
            raise ValueError("problems must hold at least one problem, got none")
        names = [p.name for p in problems]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ValueError(f"problems must have names of their own, got {twice!r} more than once")
        odd = next((p for p in problems if p.batch_key != problems[0].batch_key), None)
        if odd is not None:
            raise ValueError(
                f"problems of a batch must have one shape and type, got {problems[0].batch_key} of "
                f"{problems[0].name!r} and {odd.batch_key} of {odd.name!r}"
            )
        if torch.device(device).type == "mps" and problems[0].dtype == torch.float64:
            raise ValueError(f"{names[0]}: Apple's devices have no float64; give float32 data, or use the cpu")
        self.problems = tuple(problems)
        self._device = torch.empty(0, device=device).device  # with its index
        self._stacked: tuple[Tensor, Tensor | None] | None = None
        self._held: list[object] = []
        if not any(p.is_deferred for p in problems):
            self._stack()

    def _stack(self) -> tuple[Tensor, Tensor | None]:
        """Stack observations and masks, and keep the tensors of deferred problems in memory."""
        if self._stacked is None:
            self._held = [p.in_memory() for p in self.problems if p.is_deferred]
            observations = [p.observation for p in self.problems]
            # one large matrix is not copied
            stacked = observations[0][None] if len(observations) == 1 else torch.stack(observations)
            masks = [p.mask for p in self.problems if p.mask is not None]
            self._stacked = stacked.to(self._device), torch.stack(masks).to(self._device) if masks else None
        return self._stacked

    @property
    def observation(self) -> Tensor:
        """``(K, *m)``. From its first use on, a batch holds the tensors of deferred problems."""
        return self._stack()[0]

    @property
    def mask(self) -> Tensor | None:
        """``(K, *m)`` boolean, or ``None`` where all entries of all problems were observed."""
        return self._stack()[1]

    @property
    def entries(self) -> int:
        """Number of entries of all observations."""
        return sum(p.entries for p in self.problems)

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle what it is made of."""
        return ProblemBatch, (list(self.problems), self._device)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, k: int) -> Problem:  # type: ignore[override]
        return self.problems[k]

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @property
    def names(self) -> list[str]:
        """The K names, in order."""
        return [p.name for p in self.problems]

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """``(*n)``, the shape of one signal."""
        return self.problems[0].signal_shape

    @property
    def sensing(self) -> Sensing | None:
        """How all of them were measured."""
        return self.problems[0].sensing

    @property
    def device(self) -> torch.device:
        """Where the observations lie."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the observations, of the corruption and of matrix factors."""
        return self.problems[0].dtype

    def select(self, keep: Sequence[int]) -> "ProblemBatch":
        """The problems at the positions ``keep``, as a batch of their own on the same device."""
        return ProblemBatch([self.problems[k] for k in keep], self.device)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "ProblemBatch":
        """Return the same problems with their stacked observations on ``device``, in another type if one is given."""
        if dtype is None or dtype == self.dtype:
            return ProblemBatch(self.problems, device)
        return ProblemBatch([in_type(problem, dtype) for problem in self.problems], device)

    def normal(self, shape: Sequence[int], std: float, purpose: Purpose, *counters: int) -> Tensor:
        """``(K, *shape)`` draws of N(0, std²), each problem from its own stream; drawn on the CPU, then moved."""
        draws = torch.empty(len(self), *shape, dtype=self.dtype, device="cpu")
        for problem, draw in zip(self.problems, draws, strict=True):
            draw.normal_(0.0, std, generator=stream(problem.seed, purpose, *counters))
        return draws.to(self.device)


def of_one_shape(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Groups of problems that can be stacked, in their order."""
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.batch_key, []).append(problem)
    return list(groups.values())


def form_batches(problems: Sequence[Problem], batch_size: int | None) -> list[ProblemBatch]:
    """Group problems of one shape into batches of at most ``batch_size``, in their order.

    The grouping depends on the list alone, never on the number of devices.
    """
    batches = []
    for group in of_one_shape(problems):
        size = len(group) if batch_size is None else at_least("batch_size", batch_size, 1)
        batches += [ProblemBatch(group[i : i + size]) for i in range(0, len(group), size)]
    return batches


def refuse_undamaged(problems: Sequence[Problem], method: str) -> None:
    """Refuse problems with entries that are known to be undamaged, for a method that does not use them.

    Raises:
        ValueError: a problem has some.
    """
    for problem in problems:
        if problem.undamaged is not None:
            raise ValueError(
                f"{problem.name}: {method} does not use undamaged entries, got {int(problem.undamaged.sum())}; use a "
                "preset of dop recover other than paper"
            )


def in_type(problem: Problem, dtype: torch.dtype) -> Problem:
    """Return the same problem with its tensors, but the mask, in another floating-point type."""
    return replace(
        problem,
        observation=problem.observation.to(dtype),
        truth=None if problem.truth is None else problem.truth.to(dtype),
        true_corruption=None if problem.true_corruption is None else problem.true_corruption.to(dtype),
    )


def rename(problem: Problem, name: str) -> Problem:
    """Return the same problem under another name, its results in the folder of that name."""
    return problem.renamed(name)
