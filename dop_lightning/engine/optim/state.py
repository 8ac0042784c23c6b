"""Save and load the state of any torch optimizer for each problem separately."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Owned = Mapping[nn.Parameter, tuple[str, int | None]]
"""Parameters of one problem, each with a name and the index of the problem in it; the index is ``None`` if the
parameter is not stacked."""


def is_stacked(value: object, parameter: nn.Parameter, index: int | None) -> bool:
    """Return whether a value of an optimizer state (such as a momentum) is stacked over problems like its parameter."""
    return index is not None and isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(parameter)


def optimizer_state(optimizer: Optimizer, owned: Owned) -> dict[str, dict[str, Any]]:
    """Return a copy of the optimizer state of one problem on the CPU, by parameter name."""
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
    """Load a state from :func:`optimizer_state` into one problem."""
    for parameter, (name, index) in owned.items():
        for key, value in saved.get(name, {}).items():
            state = optimizer.state[parameter]
            present = state.get(key)
            if not isinstance(value, Tensor):
                state[key] = value
            elif index is not None and value.shape == parameter.shape[1:]:
                # the first problem that is loaded allocates the state of the whole stack
                state.setdefault(key, torch.zeros_like(parameter))[index].copy_(value)
            elif isinstance(present, Tensor) and present.shape == value.shape:
                present.copy_(value)  # in place, since a CUDA graph refers to it by address
            else:
                counts = value.dim() == 0 and not _has_device_step(optimizer, parameter)
                like = parameter.dtype if value.shape == parameter.shape else value.dtype
                state[key] = value.clone() if counts else value.to(parameter.device, like, copy=True)


def _has_device_step(optimizer: Optimizer, parameter: nn.Parameter) -> bool:
    """Return whether the step count of a parameter is on its device; optimizers of torch keep it on the CPU."""
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    return bool(group.get("capturable") or group.get("fused"))
