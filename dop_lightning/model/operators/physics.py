"""Measurements by an object of another library: a linear physics of ``deepinv``, or whatever has A and its adjoint.

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
from dop_lightning.problems.randomness import lent_stream, stream

TOLERANCE = 1e-3
"""How far ⟨A(X), r⟩ and ⟨X, A*(r)⟩ may differ, over ‖A(X)‖·‖r‖, in single precision."""


class PhysicsOperator(Operator):
    """``A(X)`` and ``A*(r)`` by the methods ``A`` and ``A_adjoint`` of an object, on batches ``(K, …)``.

    Neither needs to be differentiable: the engine asks for A* itself.

    Args:
        problems: the batch.
        physics: the object; it is copied, and taken along to another device where it is a module.
    """

    capturable = False  # what another library does at each call is not known

    def __init__(self, problems: ProblemBatch, physics: Any) -> None:
        super().__init__(problems)
        physics = copy.deepcopy(physics)
        if isinstance(physics, nn.Module) and problems.dtype == torch.float64:
            physics = physics.double()  # not «to», which would make complex numbers real
        # no submodule: what an object has for parameters is not to be learned
        self._held = [physics]

    @property
    def physics(self) -> Any:
        """The object."""
        return self._held[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if isinstance(self.physics, nn.Module):
            self.physics._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, signal: Tensor) -> Tensor:
        """``A(X)``."""
        return _tensor("A", self.physics.A(signal))

    @torch.no_grad()
    def adjoint(self, residual: Tensor) -> Tensor:
        """``A*(r)``."""
        return _tensor("A_adjoint", self.physics.A_adjoint(residual))


@dataclass(frozen=True)
class Physics(Sensing):
    """Measurements by a linear physics, such as those of deepinv: the same A for all problems.

    Args:
        physics: what makes the object, as a dotted path: a class (``deepinv.physics.Blur``) or a function of one's own;
            in Python also the object itself. It has ``A`` and ``A_adjoint``, which take batches; that A is linear and
            A_adjoint its adjoint is tried with random numbers. Noise that it adds is not asked for.
        arguments: by their names. One that is no plain setting, a kernel for instance, is made by
            ``{call: dotted.path, arguments: {…}}``.
        seed: of what is drawn where the object is made.

    Raises:
        ImportError: the module is not installed; for deepinv it says how.
        ValueError: the path names nothing, or ``arguments`` come with an object.

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
                    f"arguments must go with the path of a physics, not with an object, got {self.arguments}"
                )
            check_methods(self.physics)

    def make(self) -> Any:
        """The object, on the CPU.

        Raises:
            ImportError: its module is not installed.
            ValueError: the path names nothing, it cannot be made of these arguments, or it is not linear.
        """
        if not isinstance(self.physics, str):
            return self.physics
        with lent_stream(self.seed, "sensing"):
            made = _call(self.physics, self.arguments)
        check_methods(made)
        return made

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        """``(*m)``: that of A(0).

        Raises:
            ValueError: A does not take such signals, is not linear, or A_adjoint is not its adjoint.
        """
        return _measured_shape(self, tuple(signal_shape))

    def signal_shape(self, observation_shape: Sequence[int]) -> tuple[int, ...]:
        """``(*n)``: that of A*(0)."""
        return _adjoint_shape(self, tuple(observation_shape))

    def operator(self, problems: ProblemBatch) -> PhysicsOperator:
        """A of a batch."""
        return PhysicsOperator(problems, _made(self))

    @property
    def slug(self) -> str:
        """``physics``, and what the object is."""
        return f"physics-{re.sub('[^a-z0-9]+', '-', self._kind.lower()).strip('-')}"

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``sensing`` and ``physics``."""
        return {"sensing": self.name, "physics": self._kind}

    @property
    def _kind(self) -> str:
        return self.physics.rsplit(".", 1)[-1] if isinstance(self.physics, str) else type(self.physics).__name__


@lru_cache(maxsize=8)
def _made(sensing: Physics) -> Any:
    """One object for all problems: some take long to make."""
    return sensing.make()


@lru_cache(maxsize=64)
def _measured_shape(sensing: Physics, signal_shape: tuple[int, ...]) -> tuple[int, ...]:
    physics = copy.deepcopy(_made(sensing))
    shape = tuple(try_method(sensing, physics, "A", torch.zeros(1, *signal_shape)).shape[1:])
    check_linear(sensing, physics, signal_shape, shape)
    return shape


@lru_cache(maxsize=64)
def _adjoint_shape(sensing: Physics, observation_shape: tuple[int, ...]) -> tuple[int, ...]:
    physics = copy.deepcopy(_made(sensing))
    return tuple(try_method(sensing, physics, "A_adjoint", torch.zeros(1, *observation_shape)).shape[1:])


def check_methods(physics: Any) -> None:
    """Refuse what has no adjoint: deepinv's nonlinear physics among others.

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
    """Check with random numbers that A is linear and A_adjoint its adjoint.

    Args:
        label: names the physics in errors.
        physics: has A and A_adjoint.
        signal_shape: ``(*n)``.
        observation_shape: ``(*m)``.
        like: a tensor of the type and on the device of the physics; by default float32 on the CPU.

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
        raise ValueError(f"{label} must be linear, but A(2X + Z) is not 2A(X) + A(Z)")
    back = try_method(label, physics, "A_adjoint", r)
    if tuple(back.shape[1:]) != signal_shape:
        raise ValueError(f"{label}: A_adjoint must give the signal's shape {signal_shape}, got {tuple(back.shape[1:])}")
    left, right = float((of_X * r).sum()), float((X * back).sum())
    scale = max(float(of_X.norm() * r.norm()), float(X.norm() * back.norm()))
    if abs(left - right) > TOLERANCE * scale:
        raise ValueError(
            f"{label}: A_adjoint must be the adjoint of A, but ⟨A(X), r⟩ = {left:.6g} and ⟨X, A*(r)⟩ = {right:.6g}"
        )


@torch.no_grad()
def try_method(label: object, physics: Any, method: str, batch: Tensor) -> Tensor:
    """Return what a method of a physics gives for a batch.

    Args:
        label: names the physics in errors.
        physics: the object.
        method: ``A`` or ``A_adjoint``.
        batch: ``(B, …)``.

    Raises:
        ValueError: it fails, or gives something else than one tensor of real numbers.
    """
    try:
        result = getattr(physics, method)(batch)
    except Exception as error:  # of any kind: the code is another's
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{label} does not take {method} of shape {tuple(batch.shape[1:])}: {reason}") from error
    return _tensor(method, result)


def _tensor(method: str, result: Any) -> Tensor:
    if not isinstance(result, Tensor) or not result.is_floating_point():
        kind = str(result.dtype) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"{method} of a physics must give one tensor of real numbers, got {kind}")
    return result


def _call(path: str, arguments: Mapping[str, Any]) -> Any:
    """Call what a dotted path names."""
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"physics must be a dotted path such as deepinv.physics.Blur, got {path!r}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if module.startswith("deepinv") and importlib.util.find_spec("deepinv") is None:
            raise ImportError(f'{path} needs deepinv: pip install "dop_lightning[physics]"') from error
        raise ValueError(f"{path}: {error}") from error
    if not callable(target := getattr(found, name, None)):
        raise ValueError(f"{path}: {module} has no class or function {name!r}")
    try:
        return target(**{key: _argument(value) for key, value in arguments.items()})
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"{path} cannot be made of {dict(arguments)}: {error}") from error


def _argument(value: Any) -> Any:
    """Plain settings as they are; what is described by a call is made."""
    if isinstance(value, Mapping):
        if "call" in value and set(value) <= {"call", "arguments"}:
            return _call(value["call"], value.get("arguments") or {})
        return {key: _argument(item) for key, item in value.items()}
    return value
