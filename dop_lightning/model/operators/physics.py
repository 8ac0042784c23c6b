"""Measurements with an object of another library: a linear physics of ``deepinv``, or any object with A and A_adjoint.

Shapes: K problems, X ``(K, *n)``, observations ``(K, *m)``.
"""

import copy
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from dop_lightning.model.operators.base import Operator
from dop_lightning.problems.problem import Attribute, ProblemBatch, Sensing
from dop_lightning.problems.randomness import stream, use_stream

TOLERANCE = 1e-3
"""Maximum difference of ⟨A(X), r⟩ and ⟨X, A*(r)⟩ relative to ‖A(X)‖·‖r‖, in single precision."""


class PhysicsOperator(Operator):
    """Operator with the methods ``A`` and ``A_adjoint`` of an object, which are called with batches ``(K, …)``.

    They need not be differentiable, since the engine calls A* explicitly.

    Args:
        problems: the batch.
        physics: the object. It is copied, and moved between devices if it is a module.
    """

    capturable = False  # another library may perform different operations at each call

    def __init__(self, problems: ProblemBatch, physics: Any) -> None:
        super().__init__(problems)
        physics = copy.deepcopy(physics)
        if isinstance(physics, nn.Module) and problems.dtype == torch.float64:
            physics = physics.double()  # not `to`, which would convert complex buffers to real ones
        # not a submodule: parameters of the object must not be optimized
        self._held = [physics]

    @property
    def physics(self) -> Any:
        """The physics object."""
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if isinstance(self.physics, nn.Module):
            self.physics._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, signal: Tensor) -> Tensor:
        """Return ``A(X)``."""
        return _check_tensor("A", self.physics.A(signal))

    @torch.no_grad()
    def adjoint(self, residual: Tensor) -> Tensor:
        """Return ``A*(r)``."""
        return _check_tensor("A_adjoint", self.physics.A_adjoint(residual))


@dataclass(frozen=True)
class Physics(Sensing):
    """Measurements with a linear physics, such as those of deepinv. A is the same for all problems.

    Args:
        physics: dotted path of a class (``deepinv.physics.Blur``) or a function that creates the object; in Python,
            also the object itself. It must have methods ``A`` and ``A_adjoint`` that take batches. Random inputs are
            used to check that A is linear and A_adjoint is its adjoint. Its noise model is not used.
        arguments: arguments of the class or function by name. Arguments that are not plain settings, such as a kernel,
            are created by ``{call: dotted.path, arguments: {…}}``.
        seed: seed of the random numbers drawn when the object is created.

    Raises:
        ValueError: ``arguments`` are passed with an object, or the object lacks a method. If ``physics`` is a path,
            errors are raised by :meth:`make`.

    >>> Physics("deepinv.physics.Blur").slug
    'physics-blur'
    """

    physics: Any
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)
    seed: int = 0
    name: ClassVar[str] = "physics"

    def __post_init__(self) -> None:
        if not isinstance(self.physics, str):
            if self.arguments:
                raise ValueError(
                    f"arguments must be empty if physics is an object and not a dotted path, got {self.arguments}"
                )
            check_methods(self.physics)

    def make(self) -> Any:
        """Create the object on the CPU.

        Raises:
            ImportError: deepinv is not installed.
            ValueError: the path cannot be resolved, the arguments are invalid, or the physics is not linear.
        """
        if not isinstance(self.physics, str):
            return self.physics
        with use_stream(self.seed, "sensing"):
            made = _call(self.physics, self.arguments)
        check_methods(made)
        return made

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape ``(*m)`` of A(0).

        Raises:
            ValueError: A does not support signals of this shape, is not linear, or A_adjoint is not its adjoint.
        """
        return _measured_shape(self, tuple(signal_shape))

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape ``(*n)`` of A*(0)."""
        return _adjoint_shape(self, tuple(observation_shape))

    def operator(self, problems: ProblemBatch) -> PhysicsOperator:
        """Return the operator A of a batch."""
        return PhysicsOperator(problems, _create_physics(self))

    @property
    def slug(self) -> str:
        """``physics`` and the name of the class or function."""
        return f"physics-{re.sub('[^a-z0-9]+', '-', self._class_name.lower()).strip('-')}"

    @property
    def attributes(self) -> dict[str, Attribute]:
        """Columns for tables: ``sensing`` and ``physics``."""
        return {"sensing": self.name, "physics": self._class_name}

    @property
    def _class_name(self) -> str:
        return self.physics.rsplit(".", 1)[-1] if isinstance(self.physics, str) else type(self.physics).__name__


@lru_cache(maxsize=8)
def _create_physics(sensing: Physics) -> Any:
    """Return one object for all problems, since some take long to create."""
    return sensing.make()


@lru_cache(maxsize=64)
def _measured_shape(sensing: Physics, signal_shape: tuple[int, ...]) -> tuple[int, ...]:
    physics = copy.deepcopy(_create_physics(sensing))
    shape = tuple(try_method(sensing, physics, "A", torch.zeros(1, *signal_shape)).shape[1:])
    check_linear(sensing, physics, signal_shape, shape)
    return shape


@lru_cache(maxsize=64)
def _adjoint_shape(sensing: Physics, observation_shape: tuple[int, ...]) -> tuple[int, ...]:
    physics = copy.deepcopy(_create_physics(sensing))
    return tuple(try_method(sensing, physics, "A_adjoint", torch.zeros(1, *observation_shape)).shape[1:])


def check_methods(physics: Any) -> None:
    """Check that an object has the methods of a linear physics, unlike nonlinear physics of deepinv.

    Raises:
        ValueError: A or A_adjoint is missing.
    """
    missing = [name for name in ("A", "A_adjoint") if not callable(getattr(physics, name, None))]
    if missing:
        raise ValueError(
            f"physics must be linear, with the methods A and A_adjoint (in deepinv, a LinearPhysics), got "
            f"{type(physics).__name__} without {' and '.join(missing)}"
        )


@torch.no_grad()
def check_linear(
    label: object,
    physics: Any,
    signal_shape: tuple[int, ...],
    observation_shape: tuple[int, ...],
    like: Tensor | None = None,
) -> None:
    """Check with random inputs that A is linear and A_adjoint is its adjoint.

    Args:
        label: name of the physics in error messages.
        physics: object with methods A and A_adjoint.
        signal_shape: ``(*n)``.
        observation_shape: ``(*m)``.
        like: tensor with the dtype and device of the physics; by default, float32 on the CPU.

    Raises:
        ValueError: A is not linear, or A_adjoint is not its adjoint.
    """
    generator = stream(0, "sensing")
    like = torch.zeros(1) if like is None else like
    X, Z = (torch.randn(1, *signal_shape, generator=generator).to(like) for _ in range(2))
    r = torch.randn(1, *observation_shape, generator=generator).to(like)
    of_X, of_Z = (try_method(label, physics, "A", tensor) for tensor in (X, Z))
    mixed = try_method(label, physics, "A", 2 * X + Z)
    if (mixed - 2 * of_X - of_Z).norm() > TOLERANCE * (2 * of_X.norm() + of_Z.norm()):
        raise ValueError(f"{label} must be linear, but A(2X + Z) differs from 2A(X) + A(Z)")
    back = try_method(label, physics, "A_adjoint", r)
    if tuple(back.shape[1:]) != signal_shape:
        raise ValueError(f"{label}: A_adjoint must return the shape {signal_shape}, got {tuple(back.shape[1:])}")
    left, right = float((of_X * r).sum()), float((X * back).sum())
    scale = max(float(of_X.norm() * r.norm()), float(X.norm() * back.norm()))
    if abs(left - right) > TOLERANCE * scale:
        raise ValueError(
            f"{label}: A_adjoint must be the adjoint of A, but ⟨A(X), r⟩ = {left:.6g} and ⟨X, A*(r)⟩ = {right:.6g}"
        )


@torch.no_grad()
def try_method(label: object, physics: Any, method: str, batch: Tensor) -> Tensor:
    """Call a method of a physics with a batch.

    Args:
        label: name of the physics in error messages.
        physics: the object.
        method: ``A`` or ``A_adjoint``.
        batch: ``(B, …)``.

    Raises:
        ValueError: the method fails, or does not return one real tensor.
    """
    try:
        result = getattr(physics, method)(batch)
    except Exception as error:  # code of another library may raise any exception
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{label}: {method} failed for the shape {tuple(batch.shape[1:])}: {reason}") from error
    return _check_tensor(method, result)


def _check_tensor(method: str, result: Any) -> Tensor:
    if not isinstance(result, Tensor) or not result.is_floating_point():
        kind = str(result.dtype) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"{method} of a physics must return one real tensor, got {kind}")
    return result


def _call(path: str, arguments: Mapping[str, Any]) -> Any:
    """Call the class or function at a dotted path."""
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"physics must be a dotted path such as deepinv.physics.Blur, got {path!r}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if module.startswith("deepinv") and importlib.util.find_spec("deepinv") is None:
            raise ImportError(f'{path} requires deepinv: pip install "dop_lightning[physics]"') from error
        raise ValueError(f"{path}: {error}") from error
    if not callable(target := getattr(found, name, None)):
        raise ValueError(f"{path}: {module} has no class or function {name!r}")
    try:
        return target(**{key: _resolve_argument(value) for key, value in arguments.items()})
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"{path} cannot be called with {dict(arguments)}: {error}") from error


def _resolve_argument(value: Any) -> Any:
    """Return plain settings unchanged, and the results of ``call`` entries."""
    if isinstance(value, Mapping):
        if "call" in value and set(value) <= {"call", "arguments"}:
            return _call(value["call"], value.get("arguments") or {})
        return {key: _resolve_argument(item) for key, item in value.items()}
    return value
