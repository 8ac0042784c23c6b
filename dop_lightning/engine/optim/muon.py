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
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam

from dop_lightning.engine.optim.pace import pace
from dop_lightning.engine.optim.stacks import Stacks
from dop_lightning.foundation.checks import fraction, one_of, positive
from dop_lightning.foundation.machine import has_bfloat16_units

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""(a, b, c) of Jordan: they bring small σ up fast, and leave all between 0.7 and 1.2, which is near enough to 1."""

ROUNDS = 5
"""Newton–Schulz steps: σ of more than a thousandth of the largest reach that range."""

PACE = 1.5
"""T*·rate, see :mod:`dop_lightning.engine.alpha`."""

LEAST = 1e-12
"""Added to norms: the gradient of a kernel may be 0."""


def orthogonalised(matrices: Tensor, rounds: int = ROUNDS) -> Tensor:
    """``U·Vᵀ`` of ``U·diag(σ)·Vᵀ``, about, for each matrix of a stack.

    Args:
        matrices: ``(B, n, m)``, floating point; in bfloat16 small σ get lost in its rounding, and no harm is done.
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
    # Not by polynomials of XXᵀ alone, which would be smaller products: where rounding has made one of its eigenvalues
    # negative, it grows twelvefold in each step, and in bfloat16 beyond all bounds.
    for _ in range(rounds):
        gram = torch.bmm(X, X.mT)
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


class Muon(Optimizer):
    """Muon for parameters of two and more dimensions, Adam for the others (biases, and scales of norms).

    Where a norm follows a convolution the length of its kernel has no effect, so that steps become shorter, in
    proportion to it, as it grows: no schedule of the rate is needed.

    Schedulers of torch change ``lr`` alone, not ``vector_lr``.

    For networks: a parameter whose first dimension counts the problems of a batch would mix them.

    Args:
        params: parameters or groups of them.
        lr: η, above 0.
        momentum: decay of the average of the gradients, ``B ← momentum·B + (1 − momentum)·∇``, at least 0 and below 1.
            Followed is ``momentum·B + (1 − momentum)·∇`` once more (Nesterov).
        vector_lr: the rate of Adam, above 0.
        betas: decays of Adam, at least 0 and below 1.
        eps: of Adam, above 0.
        precision: of the products that make a matrix orthogonal: ``fp32`` (that of the kernels), ``bf16``, or ``auto``:
            bf16 on a CPU that has units for it. The average itself stays as it is.

    Raises:
        ValueError: an argument is out of range.

    >>> kernel, bias = (torch.nn.Parameter(torch.zeros(shape)) for shape in [(2, 1, 1, 2), (2,)])
    >>> optimizer = Muon([kernel, bias], lr=0.1, vector_lr=0.01)
    >>> kernel.grad, bias.grad = torch.tensor([[[[5.0, 0.0]]], [[[0.0, 4.0]]]]), torch.tensor([1.0, -2.0])
    >>> optimizer.step()
    >>> bias.detach()
    tensor([-0.0100,  0.0100])
    >>> (kernel.detach().flatten(1) + 0.1 * torch.eye(2)).abs().max() < 0.04
    tensor(True)
    """

    mixes_rows = True
    """Rows of a parameter are not independent of each other, so that they must not be problems of a batch."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        momentum: float = 0.9,
        vector_lr: float = 0.005,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        precision: Literal["auto", "bf16", "fp32"] = "auto",
    ) -> None:
        positive("lr", lr)
        fraction("momentum", momentum)
        positive("vector_lr", vector_lr)
        for beta in betas:
            fraction("betas", beta)
        positive("eps", eps)
        one_of("precision", precision, ["auto", "bf16", "fp32"])
        settings = {"lr": lr, "momentum": momentum, "vector_lr": vector_lr, "betas": tuple(betas), "eps": eps}
        settings |= {"precision": precision, "capturable": True}  # steps are counted on the device, see graphs.py
        super().__init__(params, settings)

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
            moving: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if kernels := [p for p in moving if p.dim() > 1]:
                self._step_kernels(kernels, group)
            if vectors := [p for p in moving if p.dim() <= 1]:
                self._step_vectors(vectors, group)
        return loss

    def _step_kernels(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        for p in kernels:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        gradients = [p.grad for p in kernels if p.grad is not None]
        averages = [self.state[p]["momentum_buffer"] for p in kernels]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        # as matrices, in the order of memory where channels come last: the order of columns has no part in it
        matrices = [b.movedim(1, -1).flatten(1) for b in ahead]
        moves = []
        for p, step in zip(kernels, self._orthogonalised(matrices, group["precision"]), strict=True):
            rows, columns = step.shape
            move = step.reshape(p.movedim(1, -1).shape).movedim(-1, 1)
            moves.append(move * (rows / columns) ** 0.5 if rows > columns else move)
        torch._foreach_add_(kernels, moves, alpha=-group["lr"])

    def _orthogonalised(self, matrices: list[Tensor], precision: str) -> list[Tensor]:
        """Each of them orthogonalised: on a CPU those of one shape as one stack, elsewhere in as few as possible."""
        first = matrices[0]
        if first.device.type == "cpu" or any(m.dtype != first.dtype or m.device != first.device for m in matrices):
            return _by_shape(matrices, precision)
        shapes = [(m.shape[0], m.shape[1]) for m in matrices]
        # not in the state, which is saved: it can be made again
        known: dict[Any, Stacks] = self.__dict__.setdefault("_stacks", {})
        key = (tuple(shapes), first.dtype, first.device)
        if key not in known:
            known[key] = Stacks(shapes, first)
        return _merged(matrices, known[key], precision)

    def _step_vectors(self, vectors: list[Tensor], group: dict[str, Any]) -> None:
        for p in vectors:
            if "step" not in self.state[p]:
                # a number on the device: nothing waits for it, and problems of a batch may differ in it
                own = {"step": torch.zeros((), dtype=torch.float32, device=p.device), "exp_avg": torch.zeros_like(p)}
                self.state[p].update({**own, "exp_avg_sq": torch.zeros_like(p)})
        gradients = [p.grad for p in vectors if p.grad is not None]
        first, second, steps = ([self.state[p][name] for p in vectors] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = group["betas"]
        adam(
            vectors, gradients, first, second, [], steps, fused=True, amsgrad=False, beta1=beta1, beta2=beta2,
            lr=group["vector_lr"], weight_decay=0.0, eps=group["eps"], maximize=False,
        )  # fmt: skip


@pace.register
def _pace(optimizer: Muon) -> float:  # noqa: ARG001
    return PACE


def _type_of_products(matrix: Tensor, precision: str) -> torch.dtype:
    """The type in which matrices are multiplied."""
    units = matrix.device.type == "cpu" and has_bfloat16_units(matrix.device)
    half = precision == "bf16" or (precision == "auto" and units)
    return torch.bfloat16 if half and matrix.dtype == torch.float32 else matrix.dtype


def _merged(matrices: list[Tensor], stacks: Stacks, precision: str) -> list[Tensor]:
    """Each of them orthogonalised, in stacks of several shapes: zeros at the edges stay, and change rounding alone."""
    made = stacks.stack(matrices, _type_of_products(matrices[0], precision))
    return stacks.unstack([orthogonalised(stack) for stack in made], matrices[0].dtype)


def _by_shape(matrices: list[Tensor], precision: str) -> list[Tensor]:
    """Each of them orthogonalised; those of one shape as one stack."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, matrix in enumerate(matrices):
        alike.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(place)
    found: dict[int, Tensor] = {}
    for (_, dtype, _), places in alike.items():
        stack = torch.stack([matrices[i] for i in places])
        made = orthogonalised(stack.to(_type_of_products(stack, precision)))
        found.update(zip(places, made.to(dtype).unbind(), strict=True))
    return [found[place] for place in range(len(matrices))]
