"""Count the bytes and launches of PyTorch operations on a GPU without a GPU, on the meta device with the rules of CUDA.

:class:`Traffic` counts bytes read and written, launches, and operations that a bf16 network should not contain. Views
are free. An operation costs its inputs and outputs; for the operations of :data:`PASSES`, the cost is that of PyTorch's
CUDA kernels on channels-last tensors. Fused operations of the package declare their costs
(:mod:`dop_lightning.model.signals.unet.triton_kernels.costs`).
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dop_lightning.model.signals.unet.triton_kernels.costs import COSTS

aten = torch.ops.aten

NAMESPACE = "dop_lightning"
"""Namespace of the operators of the package."""

Cost = tuple[int, int]
"""Bytes read and bytes written."""

WRITE_ONLY = {aten.copy_, aten.fill_, aten.zero_, aten.normal_, aten.uniform_, aten.bernoulli_}
"""In-place operations that do not read their target."""


PADS = {aten.reflection_pad2d, aten.replication_pad2d, aten.constant_pad_nd}


def size(tensor: Tensor | None) -> int:
    """Return the bytes of a tensor in memory; broadcast dimensions count once."""
    if tensor is None:
        return 0
    elements = 1
    for side, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= 1 if stride == 0 and side > 1 else side
    return elements * tensor.element_size()


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and suggest_memory_format(x) == torch.channels_last


def _copied(x: Tensor, channels_last: bool) -> int:
    """Return the bytes that are read and written to convert an image to a layout."""
    return 0 if _is_channels_last(x) == channels_last else size(x)


def _batch_norm(args: Any, out: Any) -> Cost:
    return 2 * size(args[0]), size(out[0])  # statistics, then values


def _batch_norm_backward(args: Any, out: Any) -> Cost:
    dy, x = args[:2]
    copy = _copied(dy, _is_channels_last(x))
    return 2 * (size(dy) + size(x)) + copy, size(out[0]) + copy  # sums, then values


def _convolution(args: Any, out: Any) -> Cost:
    x, weight, bias = args[:3]
    added = 0 if bias is None else size(out)  # added to the output of cuDNN
    copy = _copied(x, _is_channels_last(weight))
    return size(x) + size(weight) + added + copy, size(out) + added + copy


def _convolution_backward(args: Any, out: Any) -> Cost:
    dy, x, weight = args[:3]
    inputs = [size(dy) + size(weight), size(dy) + size(x), size(dy)]
    read = sum(cost for cost, made in zip(inputs, out, strict=True) if made is not None)
    copy = _copied(dy, _is_channels_last(weight)) + _copied(x, _is_channels_last(weight))
    return read + copy, sum(size(made) for made in out) + copy


def _reflection_pad(args: Any, out: Any) -> Cost:
    copy = _copied(args[0], False)  # the kernel supports one layout
    return size(args[0]) + copy, size(out) + copy


def _reflection_pad_backward(args: Any, out: Any) -> Cost:
    copy = _copied(args[0], False)
    return size(args[0]) + size(out) + copy, 2 * size(out) + copy  # zeros, then atomics


def _upsampling_backward(args: Any, out: Any) -> Cost:
    return size(args[0]) + size(out), 2 * size(out)  # zeros, then atomics


PASSES: dict[Any, Callable[[Any, Any], Cost]] = {
    aten.native_batch_norm: _batch_norm,
    aten.native_batch_norm_backward: _batch_norm_backward,
    aten.convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    aten.reflection_pad2d: _reflection_pad,
    aten.reflection_pad2d_backward: _reflection_pad_backward,
    aten.upsample_bilinear2d_backward: _upsampling_backward,
}
"""Costs of operations with several passes over their tensors, as functions of their arguments and results."""

LAUNCHES = {
    aten.native_batch_norm: 2,
    aten.native_batch_norm_backward: 2,
    aten.reflection_pad2d_backward: 2,
    aten.upsample_bilinear2d_backward: 2,
}
"""Launches of operations with several kernels, without copies into another layout. Convolutions: :func:`_launches`."""


class Traffic(TorchDispatchMode):
    """Count operations while the mode is active.

    Args:
        image: number of elements of an image; float32 arrays ``(1, C, H, W)`` with more elements are recorded.

    Attributes:
        read: bytes read.
        written: bytes written.
        launches: number of kernels.
        by_name: bytes read and written, by operation.
        count: number of operations, by name.
        empty_pads: number of paddings by zero pixels, which copy their input.
        large_fp32: shapes of large float32 arrays, by operation.
    """

    def __init__(self, image: int) -> None:
        super().__init__()
        self.image = image
        self.read = self.written = self.launches = self.empty_pads = 0
        self.by_name: Counter[str] = Counter()
        self.count: Counter[str] = Counter()
        self.large_fp32: list[str] = []

    @property
    def total(self) -> int:
        """Bytes read and written."""
        return self.read + self.written

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = _laid_out(func, args, func(*args, **kwargs))
        name = func.name()
        if func.is_view or name.startswith(("aten::empty", "aten::new_empty", "profiler::", "prim::")):
            return out
        if name in ("aten::detach", "aten::_local_scalar_dense", "aten::_unsafe_view"):
            return out
        made = _tensors(out)
        if all(each.device.type != "meta" for each in (*made, *_tensors((args, kwargs)))):
            return out  # on the host
        read, written = self._cost(func, args, kwargs, out)
        self.read += read
        self.written += written
        self.by_name[name] += read + written
        self.count[name] += 1
        self.launches += _launches(func, args, out)
        if func.overloadpacket in PADS and not any(args[1]):
            self.empty_pads += 1
        for each in made:
            large = each.dim() == 4 and each.shape[0] == 1 and each.numel() > self.image
            if large and each.dtype == torch.float32:
                self.large_fp32.append(f"{name} {tuple(each.shape)}")
        return out

    def _cost(self, func: Any, args: Any, kwargs: Any, out: Any) -> Cost:
        if func.namespace == NAMESPACE:
            return COSTS[func.overloadpacket.__name__].traffic(args, out)
        if func.overloadpacket in PASSES:
            return PASSES[func.overloadpacket](args, out)
        read = written = 0
        mutated = set()
        for place, argument in enumerate(func._schema.arguments):
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            tensors = _tensors(value)
            bytes_ = sum(size(each) for each in tensors)
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written:
                written += bytes_
                mutated |= {id(each) for each in tensors}
            if not (is_written and (argument.is_out or func.overloadpacket in WRITE_ONLY)):
                read += bytes_
        made = _tensors(out)
        return read, written + sum(size(each) for each in made if id(each) not in mutated)


def _laid_out(func: Any, args: Any, out: Any) -> Any:
    """Return the result of an operation in the layout of CUDA, which may follow that of another argument."""
    place = {aten.convolution: 1, aten.convolution_backward: 2, aten.native_batch_norm_backward: 1}
    if func.overloadpacket not in place or not _is_channels_last(args[place[func.overloadpacket]]):
        return out

    def lay_out(made: Tensor | None) -> Tensor | None:
        return made.contiguous(memory_format=torch.channels_last) if made is not None and made.dim() == 4 else made

    return lay_out(out) if isinstance(out, Tensor) else type(out)(lay_out(made) for made in out)


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


def _launches(func: Any, args: Any, out: Any) -> int:
    if func.namespace == NAMESPACE:
        return COSTS[func.overloadpacket.__name__].launches
    if func.overloadpacket == aten.convolution:
        return 1 if args[2] is None else 2
    if func.overloadpacket == aten.convolution_backward:
        return sum(made is not None for made in out)
    return LAUNCHES.get(func.overloadpacket, 1)


class CudaAutocast(TorchFunctionMode):
    """The casts of ``torch.autocast("cuda", torch.bfloat16)`` for the functions that the network uses.

    The meta device does not support autocast. This class replaces ``torch.autocast``.

    Args:
        device_type: unused.
        dtype: unused.
        enabled: whether to cast; an inner context overrides an outer one.
    """

    LOWER = (torch.conv2d,)
    FLOAT32 = (torch.nn.functional.interpolate,)
    _enabled: ClassVar[list[bool]] = []

    def __init__(self, device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled

    def __enter__(self) -> Self:
        self._enabled.append(self.enabled)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._enabled.pop()
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = torch.bfloat16 if func in self.LOWER else torch.float32 if func in self.FLOAT32 else None
        if self._enabled[-1] and target is not None:
            args = tuple(each.to(target) if isinstance(each, Tensor) else each for each in args)
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def kept_for_backward() -> Iterator[Counter[int]]:
    """Collect the bytes that autograd keeps for backward passes, by storage."""
    kept: Counter[int] = Counter()
    alive = []  # otherwise a new storage could reuse the address of a freed one

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta":
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept
