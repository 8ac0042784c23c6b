"""Convert a deepinv physics to a measurement operator for each image of a batch.

Shapes: B images of a batch, X ``(B, *n)``, observations ``(B, *m)``.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from dop_lightning.model.operators import PhysicsOperator
from dop_lightning.model.operators.physics import check_linear, check_methods, try_method
from dop_lightning.problems.problem import Attribute, ProblemBatch, Sensing
from dop_lightning.problems.randomness import stream

UNSCALED_RANGE = (0.5, 2.0)
"""Observations are divided by their scale unless it is in this range."""

ROUNDING = 1e-4
"""Relative tolerance for two ways to compute A(X)."""


@dataclass(frozen=True, eq=False)
class GivenPhysics(Sensing):
    """Measurement of one image by an object with ``A`` and ``A_adjoint``.

    Args:
        physics: the object.
        signal: shape ``(*n)`` of the image.
        observation: shape ``(*m)`` of the observation.
    """

    physics: Any
    signal: tuple[int, ...]
    observation: tuple[int, ...]
    name: ClassVar[str] = "physics"

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(*m)``."""
        return self.observation

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """Return ``(*n)``."""
        return self.signal

    def operator(self, problems: ProblemBatch) -> PhysicsOperator:
        """Return A for a batch of one image."""
        return PhysicsOperator(problems, self.physics)

    @property
    def slug(self) -> str:
        """The name ``physics``."""
        return self.name

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The attribute ``sensing``."""
        return {"sensing": self.name}


class Measurement(NamedTuple):
    """Measurement of one image.

    Attributes:
        sensing: A divided by ``scale``; ``None`` if A is the identity or a mask.
        mask: boolean ``(*m)``, false where A(X) is 0 for every X; ``None`` if there are no such entries.
        scale: divisor of the observation.
        of_ones: ``A(1)``, not divided by ``scale``, ``(*m)``.
    """

    sensing: GivenPhysics | None
    mask: Tensor | None
    scale: float
    of_ones: Tensor


class OneOfBatch(nn.Module):
    """Operator A of one image: that of the whole batch, with zeros for the other images.

    Args:
        physics: physics of the batch.
        k: index of the image.
        size: batch size B.
    """

    def __init__(self, physics: Any, k: int, size: int) -> None:
        super().__init__()
        self.physics, self.k, self.size = physics, k, size

    def _embed_in_zeros(self, one: Tensor) -> Tensor:
        batch = one.new_zeros(self.size, *one.shape[1:])
        batch[self.k] = one[0]
        return batch

    def A(self, x: Tensor) -> Tensor:
        """Return ``A(X)``: ``(1, *n)`` -> ``(1, *m)``."""
        measured: Tensor = self.physics.A(self._embed_in_zeros(x))
        return measured[self.k : self.k + 1]

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Return ``A*(r)``: ``(1, *m)`` -> ``(1, *n)``."""
        adjoint: Tensor = self.physics.A_adjoint(self._embed_in_zeros(y))
        return adjoint[self.k : self.k + 1]


class Divided(nn.Module):
    """Scaled operator ``A/c``.

    Args:
        physics: object with A and A_adjoint.
        scale: divisor c, positive.
    """

    def __init__(self, physics: Any, scale: float) -> None:
        super().__init__()
        self.physics, self.scale = physics, scale

    def A(self, x: Tensor) -> Tensor:
        """Return ``A(X)/c``."""
        measured: Tensor = self.physics.A(x)
        return measured / self.scale

    def A_adjoint(self, y: Tensor) -> Tensor:
        """Return ``A*(r)/c``."""
        adjoint: Tensor = self.physics.A_adjoint(y)
        return adjoint / self.scale


@torch.no_grad()
def measurements(physics: Any, y: Tensor) -> list[Measurement]:
    """Return the measurement of each image of a batch.

    A physics has either one A for all images, or parameters with a leading batch axis, such as one mask or kernel per
    image.

    Args:
        physics: linear physics, on the device of ``y``.
        y: observations ``(B, *m)``.

    Raises:
        ValueError: the physics is not linear, A_adjoint is not its adjoint, or it does not measure images C×H×W.
    """
    check_methods(physics)
    label = type(physics).__name__
    back = try_method(label, physics, "A_adjoint", torch.zeros_like(y))
    if back.dim() != 4 or len(back) != len(y):
        raise ValueError(
            f"physics must measure images B×C×H×W, but its A_adjoint maps y {tuple(y.shape)} to {tuple(back.shape)}"
        )
    n = tuple(back.shape[1:])
    X = torch.randn(1, *n, generator=stream(0, "sensing"), dtype=torch.float32).to(y)
    whole = try_method(label, physics, "A", X.expand(len(y), *n))
    if tuple(whole.shape) != tuple(y.shape):
        raise ValueError(f"y must have the shape {tuple(whole.shape)} of physics.A(X), got {tuple(y.shape)}")
    found = [_measurement(_physics_of_image(physics, k, X, whole), X) for k in range(len(y))]
    check_linear(label, _physics_of_image(physics, 0, X, whole), n, tuple(y.shape[1:]), y)
    return found


def _physics_of_image(physics: Any, k: int, X: Tensor, whole: Tensor) -> Any:
    """Return A of image k: ``physics`` itself, a copy with the parameters of image k, or that of the batch."""
    size = len(whole)
    if size == 1 or _agrees_with_batch(physics, X, whole[k]):
        return physics
    own = copy.deepcopy(physics)
    for module in own.modules() if isinstance(own, nn.Module) else ():
        for held in (module._buffers, module._parameters):
            for name, tensor in held.items():
                if tensor is not None and tensor.dim() > 0 and len(tensor) == size:
                    part = tensor.detach()[k : k + 1].clone()
                    held[name] = nn.Parameter(part) if isinstance(tensor, nn.Parameter) else part  # type: ignore[assignment]
    return own if _agrees_with_batch(own, X, whole[k]) else OneOfBatch(physics, k, size)


def _agrees_with_batch(physics: Any, X: Tensor, expected: Tensor) -> bool:
    """Return whether A of one image agrees with A of the batch."""
    try:
        found = physics.A(X)
    except Exception:  # third-party code may raise any error
        return False
    return tuple(found.shape) == (1, *expected.shape) and bool(
        (found[0] - expected).norm() <= ROUNDING * expected.norm()
    )


def _measurement(physics: Any, X: Tensor) -> Measurement:
    of_X, of_ones = physics.A(X)[0], physics.A(torch.ones_like(X))[0]
    seen = (of_X != 0) | (of_ones != 0)
    mask = None if seen.all() else seen
    if of_X.shape == X.shape[1:] and torch.equal(of_X, torch.where(seen, X[0], 0)):
        return Measurement(None, mask, 1.0, of_ones)
    scale = _scale(of_X, of_ones)
    used = physics if scale == 1.0 else Divided(physics, scale)
    return Measurement(GivenPhysics(used, tuple(X.shape[1:]), tuple(of_X.shape)), mask, scale, of_ones)


def _scale(of_X: Tensor, of_ones: Tensor) -> float:
    """Return the RMS of the nonzero entries of A(1), or of A(X) if there are none; 1 within the usual range."""
    some = of_ones[of_ones != 0]
    size = float((some if len(some) else of_X).double().square().mean().sqrt())
    low, high = UNSCALED_RANGE
    return 1.0 if low <= size <= high or size == 0 else size
