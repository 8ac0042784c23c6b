"""Recipes: a method as plain settings, from which Python objects and configs are created."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

from dop_lightning.engine.method import Method
from dop_lightning.engine.rivals import FilterMethod


@dataclass(frozen=True)
class Piece:
    """A class with its keyword arguments.

    Attributes:
        made: the class.
        arguments: keyword arguments, with values that a config can hold.
    """

    made: type[Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def factory(self) -> Callable[..., Any]:
        """The class with its keyword arguments bound; pass the problems of a batch if it needs them."""
        made: Callable[..., Any] = self.made
        return partial(made, **self.arguments)

    def section(self, whole_path: bool = False) -> dict[str, Any]:
        """Return the section of a config: ``class_path``, and ``init_args`` if there are any.

        Args:
            whole_path: whether ``class_path`` includes the module; required for classes that a config cannot find by
                name.
        """
        class_path = f"{self.made.__module__}.{self.made.__name__}" if whole_path else self.made.__name__
        return {"class_path": class_path, **({"init_args": dict(self.arguments)} if self.arguments else {})}


@dataclass(frozen=True)
class Recipe:
    """The settings of a method and of its run.

    Attributes:
        signal: φ(θ).
        corruption: s.
        tau: learning rate of θ; ``auto`` estimates it from the data.
        alpha: ratio of the learning rates, or one per problem; ``None`` uses those of the problems.
        block: gradient iterations per training step.
        evaluate_every: iterations between two evaluations.
        loss: ℓ; ``None`` for the default of :class:`~dop_lightning.engine.method.Method`.
        theta_optimizer: optimizer of θ; ``None`` for the default.
        steps: step rule of θ, g and h; ``None`` for the default.
    """

    signal: Piece
    corruption: Piece
    tau: float | Literal["auto"]
    alpha: float | list[float] | None
    block: int
    evaluate_every: int
    loss: Piece | None = None
    theta_optimizer: Piece | None = None
    steps: Piece | None = None

    def method(self) -> Method:
        """Return the method for the engine."""
        chosen: dict[str, Any] = {}
        if self.loss is not None:
            chosen["loss"] = self.loss.factory()
        if self.theta_optimizer is not None:
            chosen["theta_optimizer"] = self.theta_optimizer.factory
        if self.steps is not None:
            chosen["steps"] = self.steps.factory()
        return Method(self.signal.factory, self.corruption.factory, **chosen)

    def model(self) -> dict[str, Any]:
        """Return the section ``model`` of a config of ``dop fit``."""
        sections = {"signal": self.signal.section(), "corruption": self.corruption.section()}
        if self.loss is not None:
            sections["loss"] = self.loss.section()
        if self.theta_optimizer is not None:
            sections["theta_optimizer"] = self.theta_optimizer.section(whole_path=True)
        if self.steps is not None:
            sections["steps"] = self.steps.section()
        return {
            **sections,
            "tau": self.tau,
            "alpha": self.alpha,
            "block": self.block,
            "evaluate_every": self.evaluate_every,
        }


@dataclass(frozen=True)
class FilterRecipe:
    """The settings of an image filter, which replaces gradient descent.

    Attributes:
        filter: the filter, which restores one image.
    """

    filter: Piece

    tau: ClassVar[float] = 1.0
    alpha: ClassVar[None] = None

    def method(self) -> FilterMethod:
        """Return the filter as a method for the engine."""
        return FilterMethod(self.filter.factory())

    def model(self) -> dict[str, Any]:
        """Return the section ``model`` of a config of ``dop fit``."""
        return {"filter": self.filter.section(), "block": 1, "evaluate_every": 1}
