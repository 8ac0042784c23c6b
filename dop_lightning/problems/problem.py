"""Recovery problems: a single ``Problem``, and a ``ProblemBatch`` of K problems with the same shape.

Shapes: ``K`` problems; ``*m`` is the shape of an observation (``C H W``, ``n n``, ``m``), ``*n`` that of a signal.
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
from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.problems.randomness import Purpose, stream

Attribute = str | int | float | bool

Window = tuple[slice, slice]
"""Rows and columns of a part of an image."""

DIGEST_LENGTH = 16
"""Number of hexadecimal digits of a digest."""


class Sensing(ABC):
    """Settings of the measurement of a signal, from which the operator A of a batch is created.

    They are the same for all problems of a batch. Random parts of A depend on the seed of each problem.

    Subclasses must be frozen dataclasses: problems with equal settings can be stacked.
    """

    name: ClassVar[str]
    """Name in snake_case, for the column ``sensing`` of tables."""

    @abstractmethod
    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape ``(*m)`` of the observation of a signal ``(*n)``.

        Raises:
            ValueError: signals of this shape cannot be measured in this way.
        """

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape ``(*n)`` of a signal that was observed as ``(*m)``, for files that contain observations.

        Raises:
            ValueError: the shape of the observation does not determine that of the signal.
        """
        raise ValueError(
            f"the shape of the signal cannot be inferred from {self} and an observation of shape "
            f"{tuple(observation_shape)}"
        )

    @abstractmethod
    def operator(self, problems: "ProblemBatch") -> nn.Module:
        """Return the operator A of a batch, without its mask: :class:`~dop_lightning.model.operators.base.Operator`."""

    @property
    @abstractmethod
    def slug(self) -> str:
        """Short text for file names, of characters ``[a-z0-9.-]``."""

    @property
    @abstractmethod
    def attributes(self) -> dict[str, Attribute]:
        """Columns for tables, including the name as ``sensing``."""

    def measure(self, signal: Tensor, seed: int) -> Tensor:
        """Return ``A(X)``, ``(*m)``, of one signal ``(*n)`` on the CPU, with the operator A of a seed.

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
    """Position of a tile in the problem from which it was cut.

    Attributes:
        whole: the whole problem.
        rows: rows of the tile.
        columns: columns of the tile.
        regions: larger parts of the whole problem, in which few outliers can be detected for many tiles at once.
        region: position in ``regions`` of the one that contains the tile; ``None`` if there are none.
    """

    whole: "Problem"
    rows: slice
    columns: slice
    regions: tuple[Window, ...] = ()
    region: int | None = None

    def within(self, region: Window) -> Window:
        """Return rows and columns of the tile relative to a region that contains it."""
        top, left = region[0].start, region[1].start
        return (
            slice(self.rows.start - top, self.rows.stop - top),
            slice(self.columns.start - left, self.columns.stop - left),
        )


@dataclass(frozen=True, eq=False)  # compare by identity: tensors cannot be compared to a bool
class Problem:
    """One observation ``y = A(X) + s`` (Eq. 1), with optional truth and settings.

    Args:
        name: name of its files, TensorBoard run and table row; unique within a run.
        observation: ``y``, shape ``(*m)``, float32 or float64. Entries outside ``mask`` are stored as 0.
        truth: ``X*``, shape ``(*n)``, if known; used for scores only.
        true_corruption: ``s*``, shape ``(*m)``, if known; used for scores only.
        mask: boolean, shape ``(*m)``, true where ``y`` was observed; ``None`` if all entries were observed.
        seed: seed of the random streams of the problem, see :mod:`dop_lightning.problems.randomness`.
        signal_shape: shape ``(*n)`` of the signal. By default, the shape of ``truth``, or that of ``observation``
            without a truth. Required with ``sensing`` and without ``truth``.
        sensing: how ``y`` was measured, if A is not only the mask; combined with the mask as ``M∘A``.
        alpha: ratio of the learning rates for this problem, above 0. Used if the run does not specify one; ``None``
            selects the default for its shape. Problems of a batch may have different values.
        measured: whether the values are measurements of a detector, whose clean values must be kept including noise.
        noise: standard deviation of the noise in the darker part of a noise-limited frame, in units of y, above 0;
            ``None`` if unknown, and for other observations.
        data_range: known width of the range of the signal (1 for images), or ``None``.
        attributes: axes of tables: image, ratio, rank, …
        source: format in which files are written back; opaque to this class.
        folder: folder of its results within the folder of a run; by default, the name.
        part: position of a tile in the whole problem.
        undamaged: boolean, shape ``(*m)``, true at observed entries that are known to be uncorrupted; ``None`` if there
            are none.

    Raises:
        ValueError: shapes are inconsistent or cannot be inferred, the observation is empty, not floating point, or not
            finite where observed, or alpha is out of range.
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
        extremes = self.observation.aminmax() if y.numel() else ()  # NaN if any entry is; allocates no large array
        if not all(bool(torch.isfinite(extreme)) for extreme in extremes):
            bad = int((~torch.isfinite(self.observation)).sum())
            raise ValueError(f"{self.name}: observation must be finite where observed, got {bad} non-finite entries")
        object.__setattr__(self, "folder", self.folder or self.name)
        if self.alpha is not None:
            positive(f"{self.name}: alpha", self.alpha)
        if self.noise is not None:
            positive(f"{self.name}: noise", self.noise)
        self._infer_signal_shape()
        if self.truth is not None:
            if tuple(self.truth.shape) != self.signal_shape:
                raise ValueError(
                    f"{self.name}: truth must have the shape of the signal, {self.signal_shape}, "
                    f"got {tuple(self.truth.shape)}"
                )
            if not torch.isfinite(self.truth).all():
                raise ValueError(f"{self.name}: truth must be finite, got non-finite entries")

    def _infer_signal_shape(self) -> None:
        """Infer the shape of the signal from the truth or the observation, and check it against the measurement."""
        known = self.observation if self.truth is None else self.truth
        if self.sensing is not None and not self.signal_shape and self.truth is None:
            raise ValueError(f"{self.name}: signal_shape is required if sensing is given without truth")
        shape = tuple(self.signal_shape or known.shape)
        object.__setattr__(self, "signal_shape", shape)
        if self.sensing is not None:
            try:
                expected = self.sensing.observation_shape(shape)
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error
            if tuple(self.observation.shape) != expected:
                raise ValueError(
                    f"{self.name}: observation must have the shape {expected}, for {self.sensing} and a signal of "
                    f"shape {shape}, got {tuple(self.observation.shape)}"
                )

    @property
    def is_tile(self) -> bool:
        """Whether it is a part of a larger problem, whose folder contains its results."""
        return self.folder != self.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the observation, ``(*m)``."""
        return tuple(self.observation.shape)

    @property
    def entries(self) -> int:
        """Number of entries of the observation."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the observation."""
        return self.observation.dtype

    @property
    def has_mask(self) -> bool:
        """Whether the problem has a mask of observed entries."""
        return self.mask is not None

    @property
    def is_deferred(self) -> bool:
        """Whether the tensors are loaded on demand, see :mod:`dop_lightning.problems.deferred`."""
        return False

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Key of the batch: problems with equal keys can be stacked."""
        return (self.shape, self.signal_shape, str(self.dtype), self.has_mask, self.data_range, self.sensing)

    @property
    def digest(self) -> str:
        """Hash of all inputs of the recovery: observation, masks, measurement, seed and α, but not name or truth."""
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
        return digest.hexdigest()[:DIGEST_LENGTH]

    def in_memory(self) -> object:
        """Return an object that keeps the tensors in memory: the problem itself."""
        return self

    def renamed(self, name: str, folder: str | None = None) -> "Problem":
        """Return the same problem with another name.

        Args:
            name: the new name.
            folder: folder of its results; by default, the name.
        """
        folder = name if folder is None else folder
        return self if (name, folder) == (self.name, self.folder) else replace(self, name=name, folder=folder)

    def window(self, rows: slice, columns: slice, **changes: Any) -> "Problem":
        """Return a tile of an image ``(C, H, W)`` as a separate problem.

        Args:
            rows: rows of the tile.
            columns: columns of the tile.
            changes: attributes that differ from those of the whole problem, such as a ``part`` with regions.
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
            **{"part": Part(self, rows, columns), **changes},
        )

    # Old names, until version 0.3.
    mark = RenamedAttribute("digest")


def scale(problem: Problem) -> float:
    """Return the scale of an observation: the known range, or the median of |y| over the observed entries."""
    if problem.data_range is not None:
        return problem.data_range
    y, mask = problem.observation, problem.mask
    if y.device.type == "cpu" and y.dtype in (torch.float32, torch.float64):
        middle = median_magnitude(y, mask)  # without a copy
        return middle or float((y if mask is None else y[mask]).abs().max()) or 1.0
    sizes = (y if mask is None else y[mask]).abs()
    return float(sizes.median()) or float(sizes.max()) or 1.0


class ProblemBatch(Sequence[Problem]):
    """K problems of the same shape, stacked on a leading dimension.

    Args:
        problems: at least one problem, with unique names and equal shapes and dtypes.
        device: device of the stacked observations.

    Raises:
        ValueError: there are no problems, names are not unique, shapes or dtypes differ, or the device does not support
            the dtype.
    """

    def __init__(self, problems: Sequence[Problem], device: torch.device | str = "cpu") -> None:
        if not problems:
            raise ValueError("problems must have at least one entry, got none")
        names = [p.name for p in problems]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise ValueError(f"problems must have unique names, got {twice!r} more than once")
        odd = next((p for p in problems if p.batch_key != problems[0].batch_key), None)
        if odd is not None:
            raise ValueError(
                f"problems of a batch must have the same shape and dtype, got {problems[0].batch_key} for "
                f"{problems[0].name!r} and {odd.batch_key} for {odd.name!r}"
            )
        if torch.device(device).type == "mps" and problems[0].dtype == torch.float64:
            raise ValueError(f"{names[0]}: MPS devices do not support float64; pass float32 data, or use the cpu")
        self.problems = tuple(problems)
        self._device = torch.empty(0, device=device).device  # including its index
        self._stacked: tuple[Tensor, Tensor | None] | None = None
        self._held: Sequence[object] = ()
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
        """Observations, ``(K, *m)``. After the first access, the batch keeps tensors of deferred problems in memory."""
        return self._stack()[0]

    @property
    def mask(self) -> Tensor | None:
        """Boolean masks, ``(K, *m)``, or ``None`` if all entries of all problems were observed."""
        return self._stack()[1]

    @property
    def entries(self) -> int:
        """Total number of entries of all observations."""
        return sum(p.entries for p in self.problems)

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle the problems and the device."""
        return ProblemBatch, (list(self.problems), self._device)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, k: int) -> Problem:  # type: ignore[override]
        return self.problems[k]

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems)

    @property
    def names(self) -> list[str]:
        """Names of the K problems, in order."""
        return [p.name for p in self.problems]

    @property
    def signal_shape(self) -> tuple[int, ...]:
        """Shape of one signal, ``(*n)``."""
        return self.problems[0].signal_shape

    @property
    def sensing(self) -> Sensing | None:
        """Measurement of all problems, if A is not only the mask."""
        return self.problems[0].sensing

    @property
    def device(self) -> torch.device:
        """Device of the observations."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the observations, the corruption and matrix factors."""
        return self.problems[0].dtype

    def select(self, keep: Sequence[int]) -> "ProblemBatch":
        """Return the problems at the positions ``keep`` as a batch on the same device."""
        return ProblemBatch([self.problems[k] for k in keep], self.device)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "ProblemBatch":
        """Return the same problems with observations on ``device``, and with another dtype if specified."""
        if dtype is None or dtype == self.dtype:
            return ProblemBatch(self.problems, device)
        return ProblemBatch([in_type(problem, dtype) for problem in self.problems], device)

    def normal(self, shape: Sequence[int], std: float, purpose: Purpose, *counters: int) -> Tensor:
        """Draw ``(K, *shape)`` values of N(0, std²) on the CPU, each problem from its own stream, and move them."""
        draws = torch.empty(len(self), *shape, dtype=self.dtype, device="cpu")
        for problem, draw in zip(self.problems, draws, strict=True):
            draw.normal_(0.0, std, generator=stream(problem.seed, purpose, *counters))
        return draws.to(self.device)


def group_by_shape(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Group problems that can be stacked, in order."""
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.batch_key, []).append(problem)
    return list(groups.values())


def form_batches(problems: Sequence[Problem], batch_size: int | None) -> list[ProblemBatch]:
    """Group problems of the same shape into batches of at most ``batch_size`` problems, in order.

    The grouping depends only on the list, not on the number of devices.
    """
    batches = []
    for group in group_by_shape(problems):
        size = len(group) if batch_size is None else at_least("batch_size", batch_size, 1)
        batches += [ProblemBatch(group[i : i + size]) for i in range(0, len(group), size)]
    return batches


def refuse_undamaged(problems: Sequence[Problem], method: str) -> None:
    """Raise an error for problems with known undamaged entries, for a method that does not use them.

    Raises:
        ValueError: a problem has undamaged entries.
    """
    for problem in problems:
        if problem.undamaged is not None:
            raise ValueError(
                f"{problem.name}: {method} does not use undamaged entries, got {int(problem.undamaged.sum())}; use a "
                "preset of dop recover other than paper"
            )


def in_type(problem: Problem, dtype: torch.dtype) -> Problem:
    """Return the same problem with its floating-point tensors converted to another dtype."""
    return replace(
        problem,
        observation=problem.observation.to(dtype),
        truth=None if problem.truth is None else problem.truth.to(dtype),
        true_corruption=None if problem.true_corruption is None else problem.true_corruption.to(dtype),
    )


def rename(problem: Problem, name: str) -> Problem:
    """Return the same problem with another name, which is also the folder of its results."""
    return problem.renamed(name)
