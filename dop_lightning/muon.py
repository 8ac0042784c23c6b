r"""Muon: momentum whose matrices are made orthogonal, for the kernels of a network; Adam for its vectors.

A kernel maps patches to channels: it is a matrix M, outputs × inputs·height·width. Of its averaged gradient
``B = U·diag(σ)·Vᵀ`` gradient descent follows the few directions in which σ is large, and leaves the others, which hold
the details of an image, for later. Muon [Jordan et al., 2024, kellerjordan.github.io/posts/muon] follows all of them
alike,

    ``M ← M − η·√max(1, rows/columns)·U·Vᵀ``.

``U·Vᵀ`` comes from a few Newton–Schulz steps: ``σ ← aσ + bσ³ + cσ⁵`` on all singular values at once, by products of
matrices alone. (torch's own ``Muon`` takes matrices only: neither kernels nor vectors.)

Shapes: B kernels of one shape, as n×m matrices.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dop_lightning.checks import fraction, positive

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""(a, b, c) of Jordan: they bring small σ up fast, and leave all between 0.7 and 1.2, which is near enough to 1."""

ROUNDS = 5
"""Newton–Schulz steps: σ of more than a thousandth of the largest reach that range."""

LEAST = 1e-12
"""Added to norms: the gradient of a kernel may be 0."""


def orthogonalised(matrices: Tensor, rounds: int = ROUNDS) -> Tensor:
    """``U·Vᵀ`` of ``U·diag(σ)·Vᵀ``, about, for each matrix of a stack.

    Args:
        matrices: ``(B, n, m)``, floating point.
        rounds: Newton–Schulz steps, at least 1.

    Returns:
        ``(B, n, m)`` whose singular values lie about 1; a matrix of zeros stays one.

    >>> one = orthogonalised(torch.tensor([[[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]]]))
    >>> torch.linalg.svdvals(one).sub(1).abs().max() < 0.35
    tensor(True)
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if tall else matrices  # the products are then those of the shorter side
    X = X / X.norm(dim=(1, 2), keepdim=True).add_(LEAST)  # σ are at most 1
    for _ in range(rounds):
        gram = torch.bmm(X, X.mT)
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


class Muon(Optimizer):
    """Muon for parameters of two and more dimensions, Adam for the others (biases, and scales of norms).

    Where a norm follows a convolution the length of its kernel has no effect, so that steps become shorter, in
    proportion to it, as it grows: no schedule of the rate is needed.

    For networks: a parameter whose first dimension counts the problems of a batch would mix them.

    Args:
        params: parameters or groups of them.
        lr: η, above 0.
        momentum: decay of the average of the gradients, ``B ← momentum·B + (1 − momentum)·∇``, at least 0 and below 1.
            Followed is ``momentum·B + (1 − momentum)·∇`` once more (Nesterov).
        vector_lr: the rate of Adam, above 0.
        betas: decays of Adam, at least 0 and below 1.
        eps: of Adam, above 0.

    Raises:
        ValueError: an argument is out of range.

    >>> kernel, bias = nn.Parameter(torch.zeros(2, 1, 1, 2)), nn.Parameter(torch.zeros(2))
    >>> optimizer = Muon([kernel, bias], lr=0.1, vector_lr=0.01)
    >>> kernel.grad, bias.grad = torch.tensor([[[[5.0, 0.0]]], [[[0.0, 4.0]]]]), torch.tensor([1.0, -2.0])
    >>> optimizer.step()
    >>> bias.detach()
    tensor([-0.0100,  0.0100])
    >>> (kernel.detach().flatten(1) + 0.1 * torch.eye(2)).abs().max() < 0.04
    tensor(True)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.9,
        vector_lr: float = 0.005,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        positive("lr", lr)
        fraction("momentum", momentum)
        positive("vector_lr", vector_lr)
        for beta in betas:
            fraction("betas", beta)
        positive("eps", eps)
        settings = {"lr": lr, "momentum": momentum, "vector_lr": vector_lr, "betas": tuple(betas), "eps": eps}
        super().__init__(params, {**settings, "capturable": True})  # steps are counted on the device, see graphs.py

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
            vectors: list[nn.Parameter] = []
            kernels: dict[tuple[Any, ...], list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.dim() < 2:
                    vectors.append(p)
                else:  # those of one shape as one stack
                    kernels.setdefault((p.shape[0], p[0].numel(), p.dtype, p.device), []).append(p)
            for (rows, columns, *_), alike in kernels.items():
                self._step_kernels(alike, rows, columns, group)
            if vectors:
                self._step_vectors(vectors, group)
        return loss

    def _step_kernels(self, kernels: list[nn.Parameter], rows: int, columns: int, group: dict[str, Any]) -> None:
        for p in kernels:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        gradients = [p.grad for p in kernels if p.grad is not None]
        averages = [self.state[p]["momentum_buffer"] for p in kernels]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        steps = orthogonalised(torch.stack([b.reshape(rows, columns) for b in ahead]))
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_add_(kernels, [u.view(p.shape) for u, p in zip(steps, kernels, strict=True)], alpha=-rate)

    def _step_vectors(self, vectors: list[nn.Parameter], group: dict[str, Any]) -> None:
        for p in vectors:
            if "step" not in self.state[p]:
                # a number on the device: nothing waits for it, and problems of a batch may differ in it
                own = {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p)}
                self.state[p].update({**own, "exp_avg_sq": torch.zeros_like(p)})
        gradients = [p.grad for p in vectors if p.grad is not None]
        first, second = ([self.state[p][name] for p in vectors] for name in ("exp_avg", "exp_avg_sq"))
        steps = [self.state[p]["step"] for p in vectors]
        beta1, beta2 = group["betas"]
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        count = torch.stack(steps)
        bias1, bias2 = 1 - beta1**count, (1 - beta2**count).sqrt_()
        below = torch._foreach_sqrt(second)
        torch._foreach_div_(below, list(bias2.to(vectors[0].dtype).unbind()))
        torch._foreach_add_(below, group["eps"])
        moves = torch._foreach_div(first, below)
        torch._foreach_mul_(moves, list((group["vector_lr"] / bias1).to(vectors[0].dtype).unbind()))
        torch._foreach_sub_(vectors, moves)
