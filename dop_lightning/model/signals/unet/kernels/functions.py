"""Compiled kernels as differentiable PyTorch functions.

Shapes: images ``(1, C, H, W)``, channels last in memory, in bf16 or float32; S channels of a skip branch; parameters of
batch norms ``(C,)`` in float32.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dop_lightning.foundation.native.compiled import library

SLOPE = 0.2
EPSILON = 1e-5

_long, _float = ctypes.c_int64, ctypes.c_float


class _Norm(ctypes.Structure):
    """Struct ``Norm`` of the kernels: pointers to the arrays of a batch norm."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("mean", "inverse", "gamma", "beta", "dgamma", "dbeta")]


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    kernels = library()
    if kernels is None:
        raise RuntimeError("compiled kernels are not available on this machine; check library() first")
    getattr(kernels, name)(dtype == torch.bfloat16, *arguments, torch.get_num_threads())


def _check(images: dict[str, Tensor], parameters: dict[str, Tensor], sizes: Sequence[int]) -> None:
    """Check shapes, dtypes and devices, which the kernels do not verify."""
    types = {name: x.dtype for name, x in images.items()}
    if len(set(types.values())) > 1 or not set(types.values()) <= {torch.float32, torch.bfloat16}:
        dtypes = ", ".join(f"{name} {dtype}" for name, dtype in types.items())
        raise ValueError(f"images must all be float32 or all bfloat16, got {dtypes}")
    for name, x in images.items():
        if x.dim() != 4 or x.shape[0] != 1 or x.device.type != "cpu":
            raise ValueError(f"{name} must be one image (1, C, H, W) on the CPU, got {tuple(x.shape)} on {x.device}")
    for (name, p), size in zip(parameters.items(), sizes, strict=True):
        if p.shape != (size,) or p.dtype != torch.float32 or p.device.type != "cpu" or not p.is_contiguous():
            raise ValueError(
                f"{name} must be {size} contiguous float32 numbers on the CPU, got shape {tuple(p.shape)}, {p.dtype} "
                f"on {p.device}"
            )


def _check_padding(name: str, x: Tensor) -> None:
    if min(x.shape[2:]) < 2:
        raise ValueError(f"{name} must have sides of at least 2 pixels for reflection padding, got {tuple(x.shape)}")


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    shape = (1, channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device="cpu", memory_format=torch.channels_last)


def _empty_float32(*shape: int) -> Tensor:
    """Return an empty float32 tensor on the CPU, whatever the defaults of PyTorch are."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def pad(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``z`` with one pixel of reflection padding, in ``dtype``.

    Args:
        z: ``(1, C, H, W)``, float32 on the CPU, without gradient, H and W at least 2.
        dtype: bfloat16 or float32.

    Returns:
        ``(1, C, H + 2, W + 2)``.

    Raises:
        ValueError: z has another shape, dtype or device, or requires a gradient.
    """
    _check({"z": z}, {}, [])
    _check_padding("z", z)
    if z.dtype != torch.float32 or dtype not in (torch.float32, torch.bfloat16) or z.requires_grad:
        raise ValueError(
            f"z must be float32 without gradient, and dtype float32 or bfloat16, got {z.dtype} and {dtype}"
        )
    z = _channels_last(z)
    _, channels, height, width = z.shape
    padded = _empty(z.new_empty(0, dtype=dtype), channels, height + 2, width + 2)
    _call("pad", dtype, _pointer(z), _long(height), _long(width), _long(channels), _pointer(padded))
    return padded


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        x = _channels_last(x)
        _, channels, height, width = x.shape
        moments = _empty_float32(2, channels)
        y = _empty(x, channels, height + 2 * padding, width + 2 * padding)
        _call(
            "activate", x.dtype, _pointer(x), _pointer(moments[0]), _pointer(moments[1]), _pointer(gamma),
            _pointer(beta), _long(height), _long(width), _long(channels), padding, _float(SLOPE), _float(EPSILON),
            _pointer(y),
        )  # fmt: skip
        ctx.save_for_backward(x, moments, gamma, beta)
        ctx.padding = padding
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, moments, gamma, beta = ctx.saved_tensors
        _, channels, height, width = x.shape
        gradient = _channels_last(gradient)
        dx, parameters = torch.empty_like(x), _empty_float32(2, channels)
        _call(
            "activate_backward", x.dtype, _pointer(gradient), _pointer(x), _pointer(moments[0]), _pointer(moments[1]),
            _pointer(gamma), _pointer(beta), _long(height), _long(width), _long(channels), ctx.padding, _float(SLOPE),
            _pointer(dx), _pointer(parameters[0]), _pointer(parameters[1]),
        )  # fmt: skip
        return dx, parameters[0], parameters[1], None


def activate(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
    """Return ``pad(LeakyReLU(γ·(x − μ)/σ + β))`` with the statistics of x, slope 0.2 and reflection padding.

    Args:
        x: ``(1, C, H, W)``.
        gamma: γ ``(C,)``.
        beta: β ``(C,)``.
        padding: 0 or 1 pixel.

    Returns:
        ``(1, C, H + 2·padding, W + 2·padding)`` in the dtype of x.

    Raises:
        ValueError: x is not a single image on the CPU in bfloat16 or float32, or is too small for padding; γ or β do
            not match x; or ``padding`` is neither 0 nor 1.
    """
    _check({"x": x}, {"gamma": gamma, "beta": beta}, [x.shape[1]] * 2)
    if padding not in (0, 1):
        raise ValueError(f"padding must be 0 or 1, got {padding!r}")
    if padding:
        _check_padding("x", x)
    return _Activate.apply(x, gamma, beta, padding)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        skip, low = _channels_last(skip), _channels_last(low)
        moments = _empty_float32(2 * sum(gamma.numel() for gamma in parameters[::2]))
        y = _empty(low, skip.shape[1] + low.shape[1], skip.shape[2], skip.shape[3])
        _call(
            "join", low.dtype, *_branch_arguments(skip, low, parameters, moments, None), _float(SLOPE), _float(EPSILON),
            _pointer(y),
        )  # fmt: skip
        ctx.save_for_backward(skip, low, moments, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        skip, low, moments, *parameters = ctx.saved_tensors
        gradient = _channels_last(gradient)
        # the border of the skip branch is not used, so its gradient is 0
        dskip, dlow, gradients = torch.zeros_like(skip), torch.empty_like(low), torch.empty_like(moments)
        _call(
            "join_backward", low.dtype, _pointer(gradient),
            *_branch_arguments(skip, low, parameters, moments, gradients),
            _float(SLOPE), _inner_pointer(dskip), _pointer(dlow),
        )  # fmt: skip
        sizes = [parameter.numel() for parameter in parameters]
        return dskip, dlow, *gradients.split(sizes)


def _inner_pointer(skip: Tensor) -> ctypes.c_void_p:
    """Return a pointer to the first pixel inside the border."""
    _, channels, _, width = skip.shape
    return ctypes.c_void_p(skip.data_ptr() + (width + 1) * channels * skip.element_size())


def _branch_arguments(
    skip: Tensor, low: Tensor, parameters: Any, moments: Tensor, gradients: Tensor | None
) -> tuple[Any, ...]:
    """Return the common arguments of the forward and backward kernels."""
    norms, at = [], 0
    for gamma, beta in zip(parameters[::2], parameters[1::2], strict=True):
        size = gamma.numel()
        places = [(moments, at), (moments, at + size), (gamma, 0), (beta, 0), (gradients, at), (gradients, at + size)]
        norms.append(_Norm(*(None if t is None else t.data_ptr() + 4 * i for t, i in places)))
        at += 2 * size
    of_skip, of_low, norm = (ctypes.byref(made) for made in norms)
    _, channels, height, width = skip.shape
    pitch = width * channels
    return (
        _inner_pointer(skip), of_skip, _pointer(low), of_low, norm,
        _long(height - 2), _long(width - 2), _long(channels), _long(low.shape[1]), _long(pitch),
    )  # fmt: skip


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
        ValueError: the branches are not single images on the CPU with the same dtype, bfloat16 or float32, and matching
            sizes; or the parameters do not match them.
    """
    names = [f"{letter} of {branch}" for branch in ("skip", "low", "the join") for letter in ("gamma", "beta")]
    if len(parameters) != len(names):
        raise ValueError(f"parameters must be {', '.join(names)}, got {len(parameters)}")
    of_skip, of_low = skip.shape[1], low.shape[1]
    sizes = [of_skip, of_skip, of_low, of_low, of_skip + of_low, of_skip + of_low]
    _check({"skip": skip, "low": low}, dict(zip(names, parameters, strict=True)), sizes)
    if tuple(skip.shape[2:]) != tuple(2 * side + 2 for side in low.shape[2:]):
        raise ValueError(
            f"the sides of skip must be 2 pixels longer than twice those of low, {tuple(low.shape[2:])}, got "
            f"{tuple(skip.shape[2:])}"
        )
    return _Join.apply(skip, low, *parameters)
