"""The kernels as differentiable functions of torch.

Shapes: images ``(1, C, H, W)``, channels last in memory, in bf16 or float32; S channels of a skip branch. Parameters of
batch norms ``(C,)``, float32.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dop_lightning.kernels.compiled import library

SLOPE = 0.2
EPSILON = 1e-5

_long, _float = ctypes.c_int64, ctypes.c_float


class _Norm(ctypes.Structure):
    """A batch norm, as the kernels take it."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("mean", "inverse", "gamma", "beta", "dgamma", "dbeta")]


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    kernels = library()
    assert kernels is not None, "callers ask whether there are kernels"
    getattr(kernels, name)(dtype == torch.bfloat16, *arguments, torch.get_num_threads())


def _check(parameters: Sequence[Tensor], *images: Tensor) -> None:
    """Kernels read memory as what it is said to be."""
    types = [x.dtype for x in images]
    if types[0] not in (torch.float32, torch.bfloat16) or len(set(types)) > 1:
        raise TypeError(f"images must all be float32 or all bfloat16, got {', '.join(map(str, types))}")
    if wrong := [p.dtype for p in parameters if p.dtype != torch.float32]:
        raise TypeError(f"parameters of batch norms must be float32, got {wrong[0]}")


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    shape = (1, channels, height, width)
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def pad(z: Tensor, dtype: torch.dtype) -> Tensor:
    """``z`` (float32, without gradient) with one pixel of reflection padding, in ``dtype``."""
    _check((z,), torch.empty(0, dtype=dtype))
    z = _last(z)
    _, channels, height, width = z.shape
    padded = torch.empty((1, channels, height + 2, width + 2), dtype=dtype, memory_format=torch.channels_last)
    _call("pad", dtype, _pointer(z), _long(height), _long(width), _long(channels), _pointer(padded))
    return padded


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
        x = _last(x)
        _, channels, height, width = x.shape
        moments = torch.empty(2, channels)
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
        gradient = _last(gradient)
        dx, parameters = torch.empty_like(x), torch.empty(2, channels)
        _call(
            "activate_backward", x.dtype, _pointer(gradient), _pointer(x), _pointer(moments[0]), _pointer(moments[1]),
            _pointer(gamma), _pointer(beta), _long(height), _long(width), _long(channels), ctx.padding, _float(SLOPE),
            _pointer(dx), _pointer(parameters[0]), _pointer(parameters[1]),
        )  # fmt: skip
        return dx, parameters[0], parameters[1], None


def activate(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> Tensor:
    """``pad(LeakyReLU(γ·(x − μ)/σ + β))`` with the statistics of x itself, slope 0.2, and reflection padding.

    Args:
        x: ``(1, C, H, W)``.
        gamma: γ ``(C,)``.
        beta: β ``(C,)``.
        padding: 0 or 1 pixel.

    Returns:
        ``(1, C, H + 2·padding, W + 2·padding)`` of the type of x.
    """
    _check((gamma, beta), x)
    return _Activate.apply(x, gamma, beta, padding)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
        skip, low = _last(skip), _last(low)
        moments = torch.empty(2 * sum(gamma.numel() for gamma in parameters[::2]))
        y = _empty(low, skip.shape[1] + low.shape[1], skip.shape[2], skip.shape[3])
        _call(
            "join", low.dtype, *_branches(skip, low, parameters, moments, None), _float(SLOPE), _float(EPSILON),
            _pointer(y),
        )  # fmt: skip
        ctx.save_for_backward(skip, low, moments, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        skip, low, moments, *parameters = ctx.saved_tensors
        gradient = _last(gradient)
        # the border of the skip branch is not used: its gradient is 0
        dskip, dlow, gradients = torch.zeros_like(skip), torch.empty_like(low), torch.empty_like(moments)
        _call(
            "join_backward", low.dtype, _pointer(gradient), *_branches(skip, low, parameters, moments, gradients),
            _float(SLOPE), _inside(dskip), _pointer(dlow),
        )  # fmt: skip
        sizes = [parameter.numel() for parameter in parameters]
        return dskip, dlow, *gradients.split(sizes)


def _inside(skip: Tensor) -> ctypes.c_void_p:
    """The first pixel that is not of the border."""
    _, channels, _, width = skip.shape
    return ctypes.c_void_p(skip.data_ptr() + (width + 1) * channels * skip.element_size())


def _branches(skip: Tensor, low: Tensor, parameters: Any, moments: Tensor, gradients: Tensor | None) -> tuple[Any, ...]:
    """The arguments that both directions share."""
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
        _inside(skip), of_skip, _pointer(low), of_low, norm,
        _long(height - 2), _long(width - 2), _long(channels), _long(low.shape[1]), _long(pitch),
    )  # fmt: skip


def join(skip: Tensor, low: Tensor, *parameters: Tensor) -> Tensor:
    """``pad(norm(cat[activate(skip), up(activate(low))]))``: the two branches of a scale.

    Args:
        skip: ``(1, S, H + 2, W + 2)``, of whose border nothing is used.
        low: ``(1, C, H/2, W/2)``, upsampled bilinearly (half-pixel centres).
        parameters: γ and β of the batch norms of ``skip``, of ``low`` and of what is joined, ``(S,)``, ``(C,)``,
            ``(S + C,)``.

    Returns:
        ``(1, S + C, H + 2, W + 2)``, with one pixel of reflection padding.
    """
    _check(parameters, skip, low)
    return _Join.apply(skip, low, *parameters)
