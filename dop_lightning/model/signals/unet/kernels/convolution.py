"""Convolutions of large images, with weight gradients that are accumulated over strips.

Shapes: images ``(1, C, H, W)``, channels last in memory; kernels w ``(D, C, k, k)``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

STRIP = 9 * 2**18
"""Approximate size in bytes of the input of a strip, 2¼ MiB, which stays in the cache while it is read for each column
of w."""


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, strips: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.strips, ctx.biases = stride, strips, None if bias is None else [bias.numel()]
        return F.conv2d(x, weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)

        def pull_back(dy: Tensor, x: Tensor, wanted: list[bool]) -> tuple[Tensor | None, ...]:
            stride, none = [ctx.stride] * 2, [0, 0]
            return torch.ops.aten.convolution_backward(
                dy, x, weight, ctx.biases, stride, none, [1, 1], False, none, 1, wanted
            )

        dx = pull_back(gradient, x, [True, False, False])[0] if ctx.needs_input_grad[0] else None
        rows, size = gradient.shape[2], weight.shape[2]
        sums: list[Tensor] = []
        strips = min(ctx.strips, rows)
        for strip in range(strips):
            begin, end = rows * strip // strips, rows * (strip + 1) // strips
            seen = x[:, :, begin * ctx.stride : (end - 1) * ctx.stride + size]
            parts = pull_back(gradient[:, :, begin:end], seen, [False, True, ctx.biases is not None])[1:]
            found = [part.float() for part in parts if part is not None]
            sums = [total.add_(part) for total, part in zip(sums, found, strict=True)] if sums else found
        dweight, dbias = (*(total.to(x.dtype) for total in sums), None)[:2]
        return dx, dweight, dbias, None, None


def strips_of(x: Tensor, size: int) -> int:
    """Return the number of strips into which the input of a convolution is divided, for a kernel of side ``size``.

    It is 1 for 1×1 kernels, which read the input only once, and for float32, where products take longer than memory
    access.

    >>> large = torch.empty(1, 132, 258, 258, dtype=torch.bfloat16)
    >>> strips_of(large, 3), strips_of(large, 1), strips_of(large.float(), 3), strips_of(large[..., :130, :130], 3)
    (7, 1, 1, 1)
    """
    if size == 1 or x.dtype == torch.float32:
        return 1
    return max(1, x.numel() * x.element_size() // STRIP)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Return the convolution ``w∗x + b`` without padding, in the dtype of x.

    It uses the convolutions of PyTorch, forward and backward. PyTorch computes the gradient with respect to w with one
    pass over the whole image for each column of w, which takes up to twice as long as necessary if the image does not
    fit in the cache. This function therefore passes strips of rows, and accumulates their gradients in float32.

    Args:
        x: ``(1, C, H, W)``, channels last in memory, bfloat16 or float32.
        weight: w ``(D, C, k, k)``, float32.
        bias: b ``(D,)``, float32, or ``None``.
        stride: stride in both directions, at least 1.

    Returns:
        ``(1, D, (H − k)/stride + 1, (W − k)/stride + 1)``.
    """
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    strips = strips_of(x, weight.shape[2])
    if strips == 1:
        return F.conv2d(x, weight, bias, stride)
    return _Convolve.apply(x, weight, bias, stride, strips)
