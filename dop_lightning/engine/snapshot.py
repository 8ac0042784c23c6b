"""Snapshots of everything that iterations change, to restore single problems of a batch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.optim.state import is_stacked


class Snapshot:
    """Copies of the parameters, the states of the optimizers and the memory of the step rule.

    Args:
        parameters: parameters of signal and corruption.
        optimizers: optimizers of these parameters.
        memory: memory of the step rule, tensors ``(K, …)``.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], optimizers: Sequence[Optimizer], memory: Mapping[str, Tensor]
    ) -> None:
        self._copies = {p: p.detach().clone() for p in parameters}
        self._memory = {name: remembered.clone() for name, remembered in memory.items()}
        self._of_optimizers = [
            {p: {key: _copy(value) for key, value in remembered.items()} for p, remembered in optimizer.state.items()}
            for optimizer in optimizers
        ]

    @torch.no_grad()
    def restore(
        self,
        owned: Iterable[Mapping[nn.Parameter, tuple[str, int | None]]],
        optimizers: Sequence[Optimizer],
        memory: Mapping[str, Tensor],
        which: Sequence[int],
    ) -> None:
        """Restore the problems at the positions ``which``.

        Args:
            owned: parameters of each of these problems, with their names and their indices in stacked parameters.
            optimizers: the optimizers; their states are changed in place.
            memory: memory of the step rule, changed in place.
            which: positions of the problems.
        """
        for p, (_, i) in [item for of_problem in owned for item in of_problem.items()]:
            _restore(p, self._copies[p], i)
            for optimizer, memories in zip(optimizers, self._of_optimizers, strict=True):
                for key, value in optimizer.state.get(p, {}).items():
                    if is_stacked(value, p, i) or (i is None and isinstance(value, Tensor)):
                        before = memories.get(p, {}).get(key)
                        _restore(value, torch.zeros_like(value) if before is None else before, i)
        for name, remembered in memory.items():
            for k in which:
                _restore(remembered, self._memory[name], k)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _restore(tensor: Tensor, copy: Tensor, index: int | None) -> None:
    _copy_resized(tensor if index is None else tensor[index], copy if index is None else copy[index])


def _copy_resized(place: Tensor, copy: Tensor) -> None:
    """Copy into a tensor whose last dimension may have grown or shrunk since; added columns are set to 0."""
    if place.shape == copy.shape:
        place.copy_(copy)
        return
    width = min(place.shape[-1], copy.shape[-1])
    place.zero_()[..., :width] = copy[..., :width]
