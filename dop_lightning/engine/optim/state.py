"""The state of any torch optimizer, problem by problem."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Owned = Mapping[nn.Parameter, tuple[str, int | None]]
"""Parameters of one problem: a name, and its place in a stacked parameter or ``None`` where all of it is its own."""


def is_stacked(value: object, parameter: nn.Parameter, index: int | None) -> bool:
    """Whether an entry of a parameter's state (a momentum, say) has a slice a problem, as its parameter has."""
    return index is not None and isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(parameter)


def optimizer_state(optimizer: Optimizer, owned: Owned) -> dict[str, dict[str, Any]]:
    """A copy on the CPU of what the optimizer remembers of one problem, by parameter name."""
    saved: dict[str, dict[str, Any]] = {}
    for parameter, (name, index) in owned.items():
        if parameter not in optimizer.state:
            continue
        saved[name] = {
            key: (value[index] if is_stacked(value, parameter, index) else value).detach().cpu().clone()
            if isinstance(value, Tensor)
            else value
            for key, value in optimizer.state[parameter].items()
        }
    return saved


@torch.no_grad()
def load_optimizer_state(optimizer: Optimizer, owned: Owned, saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Put a state made by :func:`optimizer_state` in the place of one problem."""
    for parameter, (name, index) in owned.items():
        for key, value in saved.get(name, {}).items():
            state = optimizer.state[parameter]
            present = state.get(key)
            if not isinstance(value, Tensor):
                state[key] = value
            elif index is not None and value.shape == parameter.shape[1:]:
                # the first problem of a stack to come back makes room for all
                state.setdefault(key, torch.zeros_like(parameter))[index].copy_(value)
            elif isinstance(present, Tensor) and present.shape == value.shape:
                present.copy_(value)  # in its place, which a CUDA graph knows it by
            else:
                counts = value.dim() == 0 and not _counts_on_device(optimizer, parameter)
                like = parameter.dtype if value.shape == parameter.shape else value.dtype
                state[key] = value.clone() if counts else value.to(parameter.device, like, copy=True)


def _counts_on_device(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
    """Whether the number of steps of a parameter lies beside it; torch's optimizers have it on the CPU by default."""
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    return bool(group.get("capturable") or group.get("fused"))
