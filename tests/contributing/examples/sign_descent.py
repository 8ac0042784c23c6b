from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer


class SignDescent(Optimizer):
    """``θ ← θ − lr·sign(m)`` with the running average m of the gradients.

    Args:
        params: parameters of the network.
        lr: learning rate.
        momentum: decay of the average.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("average", torch.zeros_like(p))  # saved in checkpoints
                average.lerp_(p.grad, 1 - group["momentum"])
                p.sub_(average.sign(), alpha=group["lr"])
