"""Our measurement operators as a linear physics for deepinv.

Shapes: B images of a batch, X ``(B, *n)``, observations ``(B, *m)``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dop_lightning.integrations.deepinv.missing import import_deepinv
from dop_lightning.model.operators import Operator, Sensing
from dop_lightning.problems.problem import Problem, ProblemBatch

deepinv = import_deepinv()


class _Linear(torch.autograd.Function):
    """A linear map whose derivative is computed by its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.there, ctx.back = there, back
        return there(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Linear.apply(gradients[0], ctx.back, ctx.there), None, None


class SensingPhysics(deepinv.physics.LinearPhysics):  # type: ignore[name-defined]
    """Physics ``y = N(A(X))`` with the A of a :class:`~dop_lightning.problems.problem.Sensing`, equal for all images.

    A and A* are those of ``dop fit``. Both are differentiable.

    Args:
        sensing: measurement of images, such as ``MotionBlur(9, 30)``.
        img_size: ``(C, H, W)`` of an image.
        seed: seed of the random parts of A.
        noise_model: deepinv noise model N; by default without noise.
        **arguments: arguments of ``deepinv.physics.LinearPhysics``, such as ``max_iter``.

    Raises:
        ValueError: the sensing does not support images of this size.
    """

    def __init__(
        self, sensing: Sensing, img_size: Sequence[int], seed: int = 0, noise_model: Any = None, **arguments: Any
    ) -> None:
        noise = deepinv.physics.ZeroNoise() if noise_model is None else noise_model
        super().__init__(img_size=tuple(img_size), noise_model=noise, **arguments)
        self.sensing, self.seed = sensing, seed
        self.observation_size = tuple(sensing.observation_shape(self.img_size))
        self._operators: dict[tuple[torch.device, torch.dtype], Operator] = {}

    def _operator(self, like: Tensor) -> Operator:
        """Return A for one image, with the type and device of ``like``."""
        key = (like.device, like.dtype)
        if key not in self._operators:
            zeros = torch.zeros(self.observation_size, dtype=like.dtype)
            problem = Problem("image", zeros, seed=self.seed, signal_shape=self.img_size, sensing=self.sensing)
            made = self.sensing.operator(ProblemBatch([problem], like.device))
            if not isinstance(made, Operator):
                raise TypeError(f"{self.sensing}.operator must return an Operator, got {type(made).__name__}")
            self._operators[key] = made.to(like.device)
        return self._operators[key]

    def _forward(self, x: Tensor) -> Tensor:
        operator = self._operator(x)
        return torch.cat([operator(one) for one in x.split(1)])

    def _adjoint(self, y: Tensor) -> Tensor:
        operator = self._operator(y)
        return torch.cat([operator.adjoint(one) for one in y.split(1)])

    def A(self, x: Tensor, **kwargs: Any) -> Tensor:
        """Return ``A(X)``: ``(B, *n)`` -> ``(B, *m)``."""
        result: Tensor = _Linear.apply(_check_batch("x", x, self.img_size), self._forward, self._adjoint)
        return result

    def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
        """Return ``A*(y)``: ``(B, *m)`` -> ``(B, *n)``."""
        result: Tensor = _Linear.apply(_check_batch("y", y, self.observation_size), self._adjoint, self._forward)
        return result


def _check_batch(name: str, batch: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(batch.shape[1:]) != shape:
        raise ValueError(f"{name} must have the shape (B, {', '.join(map(str, shape))}), got {tuple(batch.shape)}")
    return batch
