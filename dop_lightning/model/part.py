"""What signals and corruptions share: a batch of K unknowns that descend together and are saved one by one."""

from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

Rate = float | Tensor
"""A learning rate: one number, or one a problem, shaped to broadcast over ``(K, …)``."""


class Part(nn.Module, ABC):
    """An over-parameterised unknown of a batch: its parameters and their state, problem by problem.

    By default every parameter is stacked: its leading dimension is K. A part that keeps a module a problem overrides
    :meth:`problem_parameters`.
    """

    def tie_arrays(self) -> None:
        """Keep the parameters as plain tensors on the same memory, ``self.arrays``, for steps in place.

        To be called at the end of ``__init__``. To look a parameter up by its name, and to know it for one, takes as
        long as a product of small matrices.
        """
        self.arrays = tuple(p.detach() for p in self.parameters())

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Moving a module gives its parameters other memory."""
        super()._apply(*args, **kwargs)
        self.tie_arrays()
        return self

    def problem_parameters(self, k: int) -> Iterator[tuple[str, nn.Parameter, int | None]]:
        """``(name, parameter, index)`` of problem k: its entry ``parameter[index]``, or all of it where ``None``."""
        for name, parameter in self.named_parameters():
            yield name, parameter, k

    def problem_state(self, k: int) -> dict[str, Tensor]:
        """A copy of the parameters of problem k on the CPU."""
        return {
            name: (p.detach() if i is None else p.detach()[i]).cpu().clone()
            for name, p, i in self.problem_parameters(k)
        }

    def load_problem_state(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Put a state made by :meth:`problem_state` in the place of problem k.

        Raises:
            ValueError: a name is missing or too much, or a shape differs.
        """
        own = {name: (p, i) for name, p, i in self.problem_parameters(k)}
        if unknown := sorted(set(state) - set(own)):
            raise ValueError(f"{type(self).__name__}: the state of another method, with {', '.join(unknown)}")
        with torch.no_grad():
            for name, (p, i) in own.items():
                place = p if i is None else p[i]
                if name not in state or state[name].shape != place.shape:
                    given = tuple(state[name].shape) if name in state else "nothing"
                    raise ValueError(
                        f"{type(self).__name__}: state of {name} must have shape {tuple(place.shape)}, got {given}"
                    )
                place.copy_(state[name])

    def finite(self, size: int) -> Tensor:
        """Whether every parameter of a problem is finite, and what is made of it, ``(K,)``.

        Without a host synchronisation.
        """
        healthy: Tensor | None = None
        for p in self.parameters():
            # products of parameters overflow, which is divergence as well, long before one of them does
            finite = torch.isfinite(torch.linalg.vector_norm(p.detach().flatten(1), dim=1).square())
            healthy = finite if healthy is None else healthy & finite
        return torch.ones(size, dtype=torch.bool, device="cpu") if healthy is None else healthy
