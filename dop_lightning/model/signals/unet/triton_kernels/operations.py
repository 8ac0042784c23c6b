"""Fused operations as PyTorch operators, so that they support dispatch modes and meta tensors.

Triton is imported at the first call.

Shapes: images ``(1, C, H, W)``, channels last in memory; S channels of a skip branch; N = S + C.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("dop_lightning", "FRAGMENT")


def _define(schema: str, on_meta: Callable[..., Any]) -> Any:
    """Define an operator that is computed by the function of its name in ``launches``, and return it."""
    name = schema.partition("(")[0]

    def compute(*arguments: Any) -> Any:
        from dop_lightning.model.signals.unet.triton_kernels import launches

        return getattr(launches, name)(*arguments)

    _LIBRARY.define(schema)
    for device in ("CPU", "CUDA"):  # on a CPU with the interpreter of Triton
        _LIBRARY.impl(name, compute, device)
    _LIBRARY.impl(name, on_meta, "Meta")
    return getattr(torch.ops.dop_lightning, name)


def _empty_image(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    made = like.new_empty((1, channels, height, width), dtype=dtype)
    return made.to(memory_format=torch.channels_last)


def _empty_float32(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _pad(z: Tensor, dtype: torch.dtype) -> Tensor:
    return _empty_image(z, z.shape[1], z.shape[2] + 2, z.shape[3] + 2, dtype)


def _activate(x: Tensor, gamma: Tensor, beta: Tensor, padding: int) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    _, C, H, W = x.shape
    return _empty_image(x, C, H + 2 * padding, W + 2 * padding), _empty_float32(x, 2, C)


def _activate_backward(
    gradient: Tensor, x: Tensor, moments: Tensor, gamma: Tensor, beta: Tensor, padding: int  # noqa: ARG001
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x), torch.empty_like(moments)


def _join(skip: Tensor, low: Tensor, parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    N = skip.shape[1] + low.shape[1]
    return _empty_image(low, N, skip.shape[2], skip.shape[3]), _empty_float32(low, 4, N)


def _join_backward(
    gradient: Tensor, skip: Tensor, low: Tensor, moments: Tensor, parameters: Sequence[Tensor]  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(skip), torch.empty_like(low), torch.empty_like(moments)


pad = _define("pad(Tensor z, ScalarType dtype) -> Tensor", _pad)
activate = _define(
    "activate(Tensor x, Tensor gamma, Tensor beta, int padding) -> (Tensor y, Tensor moments)", _activate
)
activate_backward = _define(
    "activate_backward(Tensor gradient, Tensor x, Tensor moments, Tensor gamma, Tensor beta, int padding)"
    " -> (Tensor dx, Tensor sums)",
    _activate_backward,
)
join = _define("join(Tensor skip, Tensor low, Tensor[] parameters) -> (Tensor y, Tensor moments)", _join)
join_backward = _define(
    "join_backward(Tensor gradient, Tensor skip, Tensor low, Tensor moments, Tensor[] parameters)"
    " -> (Tensor dskip, Tensor dlow, Tensor sums)",
    _join_backward,
)
