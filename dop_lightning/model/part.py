"""Base class of signals and corruptions: a batch of K unknowns that are optimized together and saved individually."""

from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from dop_lightning.foundation.renamed import RenamedAttribute

Rate = float | Tensor
"""Learning rate: one number, or one per problem, in a shape that broadcasts over ``(K, …)``."""


class Part(nn.Module, ABC):
    """Over-parameterised unknown of a batch, with parameters and a state per problem.

    By default, all parameters are stacked with a leading dimension K. Parts with one module per problem override
    :meth:`problem_parameters`.
    """

    def alias_parameters(self) -> None:
        """Store the parameters as plain tensors that share their memory, in ``self.arrays``, for in-place steps.

        Call it at the end of ``__init__``. Accessing a parameter of a module by name takes as long as a product of
        small matrices.
        """
        self.arrays = tuple(p.detach() for p in self.parameters())

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Update ``self.arrays``, since moving a module reallocates its parameters."""
        super()._apply(*args, **kwargs)
        self.alias_parameters()
        return self

    def problem_parameters(self, k: int) -> Iterator[tuple[str, nn.Parameter, int | None]]:
        """Yield ``(name, parameter, index)`` for problem k: its part is ``parameter[index]``, or all if ``None``."""
        for name, parameter in self.named_parameters():
            yield name, parameter, k

    def problem_state(self, k: int) -> dict[str, Tensor]:
        """Return a copy of the parameters of problem k on the CPU."""
        return {
            name: (p.detach() if i is None else p.detach()[i]).cpu().clone()
            for name, p, i in self.problem_parameters(k)
        }

    def load_problem_state(self, k: int, state: Mapping[str, Tensor]) -> None:
        """Load a state returned by :meth:`problem_state` into problem k.

        Raises:
            ValueError: a name is missing or unexpected, or a shape differs.
        """
        own = {name: (p, i) for name, p, i in self.problem_parameters(k)}
        if unknown := sorted(set(state) - set(own)):
            raise ValueError(f"{type(self).__name__}: the state is of another method, got {', '.join(unknown)}")
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
        """Return whether all parameters of each problem and the value of the part are finite, ``(K,)``.

        Does not synchronise with the host.
        """
        healthy: Tensor | None = None
        for p in self.parameters():
            # products of parameters overflow long before the parameters, which is divergence as well
            finite = torch.isfinite(torch.linalg.vector_norm(p.detach().flatten(1), dim=1).square())
            healthy = finite if healthy is None else healthy & finite
        return torch.ones(size, dtype=torch.bool, device="cpu") if healthy is None else healthy

    # Old names, until version 0.3.
    tie_arrays = RenamedAttribute("alias_parameters")
