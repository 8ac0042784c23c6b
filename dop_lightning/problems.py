"""What is to be recovered: one ``Problem``, and K of the same shape stacked as a ``ProblemBatch``.

Shapes: ``K`` problems, ``*m`` the shape of an observation (``C H W``, ``n n``, ``m``), ``*n`` the shape of a signal.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dop_lightning.checks import at_least
from dop_lightning.randomness import Purpose, stream

Attribute = str | int | float | bool


@dataclass(frozen=True, eq=False)  # tensors have no truth value: a problem equals itself alone
class Problem:
    """One observation ``y = A(X) + s`` (Eq. 1) and what is known of it.

    Args:
        name: names its files, its TensorBoard run and its row of the table; unique within a run.
        observation: ``y``, shape ``(*m)``, float32 or float64; entries outside ``mask`` are stored as 0.
        truth: ``X*``, shape ``(*n)``, where it is known; used for scores alone.
        true_corruption: ``s*``, shape ``(*m)``, where it is known; used for scores alone.
        mask: boolean, shape ``(*m)``, true where ``y`` was observed; ``None`` where all of it was.
        seed: names the random streams of the problem, see :mod:`dop_lightning.randomness`.
        signal_shape: ``(*n)``; by default the shape of ``truth``, else that of ``observation``.
        data_range: the known width of the range of the signal (1 for images), ``None`` where there is none.
        attributes: the axes of a table: image, ratio, rank, …
        source: what the files are written back as; opaque here.
        folder: where its results lie in the folder of a run; by default its name.

    Raises:
        ValueError: shapes do not agree, the observation is empty, not floating point, or not finite where observed.
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

    def __post_init__(self) -> None:
        y = self.observation
        if y.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{self.name}: observation must be float32 or float64, got {y.dtype}")
        if y.numel() == 0:
            raise ValueError(f"{self.name}: observation must have at least one entry, got shape {tuple(y.shape)}")
        for label, tensor in (("mask", self.mask), ("true_corruption", self.true_corruption)):
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
        if not torch.isfinite(self.observation).all():
            bad = int((~torch.isfinite(self.observation)).sum())
            raise ValueError(f"{self.name}: observation must be finite where observed, got {bad} entries that are not")
        object.__setattr__(self, "folder", self.folder or self.name)
        shape = self.signal_shape or tuple((y if self.truth is None else self.truth).shape)
        object.__setattr__(self, "signal_shape", tuple(shape))
        if self.truth is not None:
            if tuple(self.truth.shape) != self.signal_shape:
                raise ValueError(
                    f"{self.name}: truth must have the shape of the signal, {self.signal_shape}, "
                    f"got {tuple(self.truth.shape)}"
                )
            if not torch.isfinite(self.truth).all():
                raise ValueError(f"{self.name}: truth must be finite, got entries that are not")

    @property
    def is_tile(self) -> bool:
        """Whether it is a part of a larger problem, in whose folder its results lie."""
        return self.folder != self.name

    @property
    def batch_key(self) -> tuple[object, ...]:
        """Problems with equal keys can be stacked."""
        y = self.observation
        return (tuple(y.shape), self.signal_shape, str(y.dtype), self.mask is not None, self.data_range)


class ProblemBatch(Sequence[Problem]):
    """K problems of one shape, stacked on a leading dimension.

    Attributes:
        observation: ``(K, *m)``.
        mask: ``(K, *m)`` boolean, or ``None`` where all entries of all problems were observed.

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
        if torch.device(device).type == "mps" and problems[0].observation.dtype == torch.float64:
            raise ValueError(f"{names[0]}: Apple's devices have no float64; give float32 data, or use the cpu")
        self.problems = tuple(problems)
        self.observation = torch.stack([p.observation for p in problems]).to(device)
        masks = [p.mask for p in problems if p.mask is not None]
        self.mask = torch.stack(masks).to(device) if masks else None

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
    def device(self) -> torch.device:
        """Where the observations lie."""
        return self.observation.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the observations, of the corruption and of matrix factors."""
        return self.observation.dtype

    def select(self, keep: Sequence[int]) -> "ProblemBatch":
        """The problems at the positions ``keep``, as a batch of their own on the same device."""
        return ProblemBatch([self.problems[k] for k in keep], self.device)

    def to(self, device: torch.device | str) -> "ProblemBatch":
        """The same problems with their stacked observations on ``device``."""
        return ProblemBatch(self.problems, device)

    def normal(self, shape: Sequence[int], std: float, purpose: Purpose, *counters: int) -> Tensor:
        """``(K, *shape)`` draws of N(0, std²), each problem from its own stream; drawn on the CPU, then moved."""
        draws = torch.empty(len(self), *shape, dtype=self.dtype, device="cpu")
        for problem, draw in zip(self.problems, draws, strict=True):
            draw.normal_(0.0, std, generator=stream(problem.seed, purpose, *counters))
        return draws.to(self.device)


def form_batches(problems: Sequence[Problem], batch_size: int | None) -> list[ProblemBatch]:
    """Group problems of one shape into batches of at most ``batch_size``, in their order.

    The grouping depends on the list alone, never on the number of devices.
    """
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.batch_key, []).append(problem)
    batches = []
    for group in groups.values():
        size = len(group) if batch_size is None else at_least("batch_size", batch_size, 1)
        batches += [ProblemBatch(group[i : i + size]) for i in range(0, len(group), size)]
    return batches


def rename(problem: Problem, name: str) -> Problem:
    """The same problem under another name, its results in the folder of that name."""
    return replace(problem, name=name, folder=name)
