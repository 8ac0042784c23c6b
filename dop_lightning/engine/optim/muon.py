r"""Muon: orthogonalised momentum for the kernels of a network, Adam for its vectors.

A kernel maps patches to channels: it is a matrix M, outputs × inputs·height·width. Let ``B = U·diag(σ)·Vᵀ`` be its
averaged gradient. Gradient descent first follows the few directions with large σ. The other directions, which contain
the details of an image, are learnt later. Muon [Jordan et al., 2024, kellerjordan.github.io/posts/muon] follows all
directions equally:

    ``M ← M − η·√max(1, rows/columns)·U·Vᵀ``.

``U·Vᵀ`` is computed by a few Newton–Schulz steps, ``σ ← aσ + bσ³ + cσ⁵``, which act on all singular values at once and
require only matrix products. (``Muon`` of torch supports only matrices, neither kernels nor vectors.)

Shapes: B kernels of one shape, as n×m matrices.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam

from dop_lightning.engine.optim import compiled_muon
from dop_lightning.engine.optim.pace import pace
from dop_lightning.engine.optim.stacks import Stacks
from dop_lightning.foundation.checks import fraction, one_of, positive
from dop_lightning.foundation.machine import has_bfloat16_units

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""(a, b, c) of Jordan. They increase small σ fast, and bring all σ to between 0.7 and 1.2, which is accurate enough."""

ROUNDS = 5
"""Newton–Schulz steps. They bring all σ above a thousandth of the largest into that range."""

PACE = 1.5
"""T*·rate, see :mod:`dop_lightning.engine.alpha`."""

EPSILON = 1e-12
"""Added to norms, since the gradient of a kernel may be 0."""


def orthogonalised(matrices: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Return ``U·Vᵀ`` of ``U·diag(σ)·Vᵀ``, approximately, for each matrix of a stack.

    Args:
        matrices: ``(B, n, m)``, floating point. In bfloat16, small σ are lost to rounding, which does no harm.
        rounds: number of Newton–Schulz steps, at least 1.

    Returns:
        ``(B, n, m)`` with singular values close to 1. Matrices of zeros stay zero.

    >>> one = orthogonalised(torch.tensor([[[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]]]))
    >>> torch.linalg.svdvals(one).sub(1).abs().max() < 0.35
    tensor(True)
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    X = matrices.mT if tall else matrices  # so that XXᵀ has the size of the shorter side
    X = X / X.norm(dim=(1, 2), keepdim=True).add_(EPSILON)  # σ are at most 1
    # Polynomials of XXᵀ alone would need smaller products, but are unstable: an eigenvalue that rounding has made
    # negative grows twelvefold in each step, and overflows in bfloat16.
    for _ in range(rounds):
        gram = torch.bmm(X, X.mT)
        X = torch.baddbmm(X, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), X, beta=a)
    return X.mT if tall else X


class Muon(Optimizer):
    """Muon for parameters with two or more dimensions, Adam for the others (biases and scales of normalisation layers).

    If a normalisation layer follows a convolution, the norm of the kernel has no effect on the output. As the norm
    grows, steps become shorter relative to it, so that no learning rate schedule is needed.

    Schedulers of torch change only ``lr``, not ``vector_lr``.

    Use it for networks only: it would mix the problems of a batch in parameters that are stacked along the first
    dimension.

    Args:
        params: parameters or parameter groups.
        lr: η, above 0.
        momentum: decay of the average of the gradients, ``B ← momentum·B + (1 − momentum)·∇``, at least 0 and below 1.
            The step follows ``momentum·B + (1 − momentum)·∇`` with the updated B (Nesterov).
        vector_lr: learning rate of Adam, above 0.
        betas: decays of Adam, at least 0 and below 1.
        eps: ε of Adam, above 0.
        precision: precision of the products in the orthogonalisation: ``fp32`` (that of the kernels), ``bf16``, or
            ``auto``: bf16 on CPUs with hardware support for it. The average keeps its precision. Compiled code
            (:mod:`~dop_lightning.engine.optim.compiled_muon`) always uses fp32, which is faster there.

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
    """Rows of a parameter are not independent, so they must not be problems of a batch."""

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
        settings |= {"precision": precision, "capturable": True}  # counts steps on the device, see graphs.py
        super().__init__(params, settings)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step on every parameter that has a gradient."""
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
        if compiled_muon.can_step(kernels):
            compiled_muon.step(kernels, gradients, averages, group["lr"], group["momentum"], ROUNDS)
            return
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
        # as matrices, in the order of memory where channels come last: the order of columns has no part in it
        matrices = [b.movedim(1, -1).flatten(1) for b in ahead]
        moves = []
        for p, step in zip(kernels, self._orthogonalise(matrices, group["precision"]), strict=True):
            rows, columns = step.shape
            move = step.reshape(p.movedim(1, -1).shape).movedim(-1, 1)
            moves.append(move * (rows / columns) ** 0.5 if rows > columns else move)
        torch._foreach_add_(kernels, moves, alpha=-group["lr"])

    def _orthogonalise(self, matrices: list[Tensor], precision: str) -> list[Tensor]:
        """Orthogonalise each matrix: on a CPU in one stack per shape, elsewhere in as few stacks as possible."""
        first = matrices[0]
        if first.device.type == "cpu" or any(m.dtype != first.dtype or m.device != first.device for m in matrices):
            return _orthogonalise_by_shape(matrices, precision)
        shapes = [(m.shape[0], m.shape[1]) for m in matrices]
        # not in self.state, which is saved: stacks can be recomputed
        known: dict[Any, Stacks] = self.__dict__.setdefault("_stacks", {})
        key = (tuple(shapes), first.dtype, first.device)
        if key not in known:
            known[key] = Stacks(shapes, first)
        return _orthogonalise_padded(matrices, known[key], precision)

    def _step_vectors(self, vectors: list[Tensor], group: dict[str, Any]) -> None:
        for p in vectors:
            if "step" not in self.state[p]:
                # on the device: this avoids synchronisation, and problems of a batch may differ in their counts
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


def _product_dtype(matrix: Tensor, precision: str) -> torch.dtype:
    """Return the dtype of the matrix products."""
    units = matrix.device.type == "cpu" and has_bfloat16_units(matrix.device)
    half = precision == "bf16" or (precision == "auto" and units)
    return torch.bfloat16 if half and matrix.dtype == torch.float32 else matrix.dtype


def _orthogonalise_padded(matrices: list[Tensor], stacks: Stacks, precision: str) -> list[Tensor]:
    """Orthogonalise each matrix in stacks of several shapes. The zero padding stays zero, and affects only rounding."""
    made = stacks.stack(matrices, _product_dtype(matrices[0], precision))
    return stacks.unstack([orthogonalised(stack) for stack in made], matrices[0].dtype)


def _orthogonalise_by_shape(matrices: list[Tensor], precision: str) -> list[Tensor]:
    """Orthogonalise each matrix, in one stack per shape."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, matrix in enumerate(matrices):
        alike.setdefault((matrix.shape, matrix.dtype, matrix.device), []).append(place)
    found: dict[int, Tensor] = {}
    for (_, dtype, _), places in alike.items():
        stack = torch.stack([matrices[i] for i in places])
        made = orthogonalised(stack.to(_product_dtype(stack, precision)))
        found.update(zip(places, made.to(dtype).unbind(), strict=True))
    return [found[place] for place in range(len(matrices))]
