"""Fused operations as differentiable functions.

They are the same as those of :mod:`dop_lightning.model.signals.unet.kernels`, for GPUs. Shapes: images
``(1, C, H, W)``, channels last in memory, in bfloat16 or float32; parameters of batch norms ``(C,)`` in float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dop_lightning.model.signals.unet.triton_kernels import operations

TYPES = (torch.float32, torch.bfloat16)


def _check(images: dict[str, Tensor], parameters: Sequence[Tensor], sizes: Sequence[int]) -> None:
    """Check shapes, dtypes and devices, which the kernels do not verify."""
    first = next(iter(images.values()))
    for name, x in images.items():
        if x.dim() != 4 or x.shape[0] != 1 or x.dtype not in TYPES or min(x.shape[2:]) < 2:
            raise ValueError(
                f"{name} must be one image (1, C, H, W) in float32 or bfloat16 with sides of at least 2, got shape "
                f"{tuple(x.shape)}, {x.dtype}"
            )
        if x.dtype != first.dtype or x.device != first.device:
            raise ValueError(f"images must have the same dtype and device, got {x.dtype} on {x.device} for {name}")
    for p, size in zip(parameters, sizes, strict=True):
        if p.shape != (size,) or p.dtype != torch.float32 or p.device != first.device or not p.is_contiguous():
            raise ValueError(
                f"parameters of norms must be {size} contiguous numbers in float32 on {first.device}, got shape "
                f"{tuple(p.shape)}, {p.dtype} on {p.device}"
            )


def pad(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``z`` with one pixel of reflection padding, in ``dtype``.

    Args:
        z: ``(1, C, H, W)``, without gradient.
        dtype: bfloat16 or float32.

    Returns:
        ``(1, C, H + 2, W + 2)``.

    Raises:
        ValueError: z has another shape or dtype, or requires a gradient.
    """
    _check({"z": z}, [], [])
    if dtype not in TYPES or z.requires_grad:
        raise ValueError(f"z must not require a gradient, and dtype must be float32 or bfloat16, got {dtype}")
    return operations.pad(z, dtype)


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        y, moments = operations.activate(x, gamma, beta, padding)
        ctx.save_for_backward(x, moments, gamma, beta)
        ctx.padding = padding
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        dx, sums = operations.activate_backward(gradient, *ctx.saved_tensors, ctx.padding)
        dbeta, dgamma = sums.unbind()
        return dx, dgamma, dbeta, None


def activate(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
    """Return ``pad(LeakyReLU(γ·(x − μ)/σ + β))`` with the statistics of x, slope 0.2 and reflection padding.

    The backward pass saves x, not the result.

    Args:
        x: ``(1, C, H, W)``.
        gamma: γ ``(C,)``.
        beta: β ``(C,)``.
        padding: 0 or 1 pixel.

    Returns:
        ``(1, C, H + 2·padding, W + 2·padding)`` in the dtype of x.

    Raises:
        ValueError: an argument has an invalid shape, dtype or device.
    """
    _check({"x": x}, [gamma, beta], [x.shape[1]] * 2)
    if padding not in (0, 1):
        raise ValueError(f"padding must be 0 or 1, got {padding!r}")
    return _Activate.apply(x, gamma, beta, padding)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        y, moments = operations.join(skip, low, parameters)
        ctx.save_for_backward(skip, low, moments, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        skip, low, moments, *parameters = ctx.saved_tensors
        dskip, dlow, sums = operations.join_backward(gradient, skip, low, moments, parameters)
        S = skip.shape[1]
        dbeta, dgamma, dbeta_joined, dgamma_joined = sums.unbind()
        return dskip, dlow, dgamma[:S], dbeta[:S], dgamma[S:], dbeta[S:], dgamma_joined, dbeta_joined


def join(skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
    """Join the two branches of a scale: ``pad(norm(cat[activate(skip), up(activate(low))]))``.

    Args:
        skip: ``(1, S, H + 2, W + 2)``, whose border is not used.
        low: ``(1, C, H/2, W/2)``, upsampled bilinearly (half-pixel centres).
        parameters: γ and β of the batch norms of ``skip``, ``low`` and their concatenation, ``(S,)``, ``(C,)``,
            ``(S + C,)``.

    Returns:
        ``(1, S + C, H + 2, W + 2)``, with one pixel of reflection padding.

    Raises:
        ValueError: an argument has an invalid shape, dtype or device.
    """
    if len(parameters) != 6:
        raise ValueError(f"parameters must be gamma and beta of three norms, got {len(parameters)}")
    S, C = skip.shape[1], low.shape[1]
    _check({"skip": skip, "low": low}, parameters, [S, S, C, C, S + C, S + C])
    if tuple(skip.shape[2:]) != tuple(2 * side + 2 for side in low.shape[2:]):
        raise ValueError(
            f"the sides of skip must be 2 pixels longer than twice those of low, {tuple(low.shape[2:])}, got "
            f"{tuple(skip.shape[2:])}"
        )
    return _Join.apply(skip, low, *parameters)


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.types = [tensor.dtype for tensor in tensors]
        return tuple(_copy_tensors(tensors, [dtype] * len(tensors)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *_copy_tensors(gradients, ctx.types)


def _copy_tensors(tensors: Sequence[Tensor], types: Sequence[torch.dtype]) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, types, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return copies


def cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Convert tensors to a dtype, and their gradients back, with one launch each.

    Args:
        tensors: tensors of any shapes with the same dtype.
        dtype: floating-point dtype.
    """
    return tuple(_Cast.apply(dtype, *tensors))
