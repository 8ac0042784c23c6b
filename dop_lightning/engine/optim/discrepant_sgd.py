"""Gradient descent with discrepant learning rates: τ for θ and α·τ for g, h (Eqs. 6 and 10)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.engine.optim.capturable import is_capturable_optimizer
from dop_lightning.foundation.checks import not_negative, positive
from dop_lightning.model.part import Rate

Scale = float | Tensor | None


def _check_scale(scale: Scale, parameter: Tensor) -> Scale:
    """A scale must be a number, one number a problem (leading dimension), or have the shape of the parameter."""
    if scale is None or not isinstance(scale, Tensor):
        return None if scale is None else not_negative("scale", scale)
    if scale.shape not in (parameter.shape, parameter.shape[:1]):
        raise ValueError(
            f"scale must have one entry a problem, ({parameter.shape[0]},), or the parameter's shape "
            f"{tuple(parameter.shape)}, got {tuple(scale.shape)}"
        )
    if not bool((torch.isfinite(scale) & (scale >= 0)).all()):
        raise ValueError("scale must be finite and at least 0 everywhere")
    if scale.shape == parameter.shape:
        return scale
    return scale.view(-1, *[1] * (parameter.dim() - 1))


class DiscrepantSGD(Optimizer):
    """Plain gradient descent, ``p ← p − lr·scale·∇p``, whose rates may differ by group, by problem and by coordinate.

    torch's SGD takes one number a group only. Here a group may hold ``scale``: one entry a parameter, each a number, a
    tensor ``(K,)`` (one rate a problem of a stacked parameter), a tensor of the parameter's shape (the diagonal Λ of
    appendix A), or ``None`` for 1.

    Args:
        params: parameters or groups of them.
        lr: the learning rate, at least 0, of groups without their own.

    Raises:
        ValueError: a rate or scale is negative, not finite or of another shape.

    >>> p = nn.Parameter(torch.ones(2, 3))
    >>> optimizer = DiscrepantSGD([{"params": [p], "lr": 0.1, "scale": [torch.tensor([1.0, 10.0])]}])
    >>> p.grad = torch.ones(2, 3)
    >>> optimizer.step()
    >>> p[:, 0].detach().round(decimals=4).abs()
    tensor([0.9000, 0.0000])
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3) -> None:
        not_negative("lr", lr)
        super().__init__(params, {"lr": lr, "scale": None})
        for group in self.param_groups:
            not_negative("lr", group["lr"])
            if group["scale"] is not None:
                if len(group["scale"]) != len(group["params"]):
                    raise ValueError(
                        f"scale must have one entry a parameter, {len(group['params'])}, got {len(group['scale'])}"
                    )
                group["scale"] = [_check_scale(s, p) for s, p in zip(group["scale"], group["params"], strict=True)]

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    @staticmethod
    def _step_group(group: dict[str, Any]) -> None:
        scales = group["scale"] or [None] * len(group["params"])
        plain, gradients = [], []
        for p, scale in zip(group["params"], scales, strict=True):
            if p.grad is None:
                continue
            if isinstance(scale, Tensor):
                p.addcmul_(p.grad, scale, value=-group["lr"])
            elif scale is not None:
                p.add_(p.grad, alpha=-group["lr"] * scale)
            else:
                plain.append(p)
                gradients.append(p.grad)
        if plain:
            torch._foreach_add_(plain, gradients, alpha=-group["lr"])

    def rate(self, name: str) -> Rate:
        """``lr·scale`` of the group called ``name``, for a step in closed form; its scales must be alike."""
        group = next(g for g in self.param_groups if g["name"] == name)
        scale = None if group["scale"] is None else group["scale"][0]
        return group["lr"] if scale is None else group["lr"] * scale


@is_capturable_optimizer.register
def _(optimizer: DiscrepantSGD) -> bool:
    return type(optimizer) is DiscrepantSGD  # it counts no steps; a subclass may


def parameter_groups(
    theta: Sequence[nn.Parameter],
    corruption: Sequence[nn.Parameter],
    tau: float,
    alpha: float,
) -> list[dict[str, Any]]:
    """The two groups of the method, ``theta`` at τ and ``corruption`` at α·τ, for :class:`DiscrepantSGD`.

    Works for any torch module: ``parameter_groups(list(net.parameters()), [g, h], tau=1.0, alpha=500.0)``.

    Args:
        theta: parameters of the signal.
        corruption: g and h; may be empty (DIP, factorisation).
        tau: learning rate of θ, above 0.
        alpha: ratio of the rates, above 0; λ = 1/α in Eq. 8.
    """
    positive("tau", tau)
    positive("alpha", alpha)
    groups = [
        {"name": "theta", "params": list(theta), "lr": tau},
        {"name": "corruption", "params": list(corruption), "lr": alpha * tau},
    ]
    return [group for group in groups if group["params"]]
