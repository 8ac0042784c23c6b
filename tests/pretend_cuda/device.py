"""Replace ``torch.cuda`` by the simulated device.

Call :func:`load` before PyTorch is imported, and :func:`install` afterwards. In a process that is started with
``DOP_PRETEND_CUDA=N`` and ``tests/pretend_cuda/startup`` on its ``PYTHONPATH``, this happens automatically.
"""

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pretend_cuda.build import build, torch_folder

VARIABLE = "DOP_PRETEND_CUDA"
"""Environment variable with the number of simulated devices."""

ROOT = Path(__file__).parents[2]

UNDERWAY = "captures_underway.empty() INTERNAL ASSERT FAILED"
BROKEN = "CUDA error: operation failed due to a previous error during capture"
NAME = "Simulated GPU"


@dataclass(frozen=True)
class Wait:
    """A wait of the host for the device."""

    kind: str
    operation: str
    place: str


class _Library:
    """The compiled half of the device."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.callback: Any = None
        self.waits: list[Wait] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, f"pretend_{name}")


library = _Library()
_loaded: list[ctypes.CDLL] = []
_pools: set[tuple[int, int]] = set()  # left open by a broken capture
_pool_numbers = iter(range(1, sys.maxsize))


def load() -> None:
    """Load the device into this process.

    Raises:
        RuntimeError: it cannot be built, or PyTorch is already imported.
    """
    if library.handle is not None:
        return
    if "torch" in sys.modules:
        raise RuntimeError("the simulated CUDA device must be loaded before PyTorch is imported")
    path, folder = build(), torch_folder() / "lib"
    for name in ("libc10.so", "libtorch_cpu.so"):
        _loaded.append(ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL))
    handle = ctypes.CDLL(str(path))
    for name in ("stream", "memory", "capture_end", "graph_size"):
        getattr(handle, f"pretend_{name}").restype = ctypes.c_int64
    handle.pretend_launches.restype = ctypes.c_char_p
    library.handle = handle


def _place() -> str:
    """Return the innermost line of the package in the call stack, or else of the tests."""
    of_tests, frame = "?", sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/dop_lightning/" in name:
            return f"{name[name.rindex('/dop_lightning/') + 1 :]}:{frame.f_lineno}"
        if of_tests == "?" and "/tests/" in name and "/pretend_cuda/" not in name:
            of_tests = f"{name[name.rindex('/tests/') + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return of_tests


def _note(kind: bytes, operation: bytes) -> None:
    library.waits.append(Wait(kind.decode(), operation.decode(), _place()))


def launches() -> Counter:
    """Return the numbers of launched kernels so far, by operation; replaying a graph is one launch of ``graph``."""
    lines = library.launches().decode().splitlines()
    return Counter({name: int(count) for name, count in (line.split() for line in lines)})


@contextmanager
def limited_memory(total: int, device: int = 0) -> Iterator[None]:
    """Limit the memory of a device, in bytes."""
    before = library.memory(device, 3)
    library.set_total(device, ctypes.c_int64(total))
    try:
        yield
    finally:
        library.set_total(device, ctypes.c_int64(before))


def is_poisoned() -> bool:
    """Whether a broken capture has left the allocator in a state in which it refuses to work."""
    return bool(_pools)


def forget_poison() -> None:
    """Reset the allocator between two tests."""
    _pools.clear()


def install(count: int) -> None:
    """Replace the parts of PyTorch that need a CUDA build.

    Args:
        count: number of devices.
    """
    import torch
    from torch import cuda

    library.callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)(_note)
    library.begin(count, library.callback)
    os.environ[VARIABLE] = str(count)

    def index(device: Any = None) -> int:
        if isinstance(device, int):
            return device
        found = None if device is None else torch.device(device).index
        return library.device() if found is None else found

    def wait(operation: str) -> None:
        error = ctypes.create_string_buffer(2000)
        library.wait(operation.encode(), error, 2000)
        if error.value:
            raise RuntimeError(error.value.decode().splitlines()[0])

    def empty_cache() -> None:
        if _pools:
            raise RuntimeError(UNDERWAY)
        for device in range(count):
            library.return_memory(device)

    def exchange(device: int) -> int:
        return library.exchange_device(device)

    class Stream(torch.Stream):
        """A stream of the device."""

        def __new__(cls, device: Any = None, priority: int = 0, **more: Any) -> "Stream":
            if more:
                return super().__new__(cls, **more)
            return super().__new__(cls, device=torch.device("cuda", index(device)), priority=priority)

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def synchronize(self) -> None:
            wait("Stream.synchronize")

    def current_stream(device: Any = None) -> Stream:
        where = index(device)
        return Stream(stream_id=library.stream(where), device_index=where, device_type=1)

    def set_stream(stream: torch.Stream) -> None:
        library.exchange_device(stream.device.index)
        library.set_stream(stream.device.index, ctypes.c_int64(stream.stream_id))

    class stream:
        """Context manager that sets the current stream."""

        def __init__(self, entered: torch.Stream | None) -> None:
            self.entered = entered

        def __enter__(self) -> None:
            if self.entered is not None:
                self.device, self.there = library.device(), self.entered.device.index
                self.before = library.stream(self.there)
                set_stream(self.entered)

        def __exit__(self, *_: Any) -> None:
            if self.entered is not None:
                library.set_stream(self.there, ctypes.c_int64(self.before))
                library.exchange_device(self.device)

    class CUDAGraph:
        """Recorded operations, and their memory."""

        def __init__(self, keep_graph: bool = False) -> None:
            self.number: int | None = None
            self.in_use: tuple[int, int] | None = None

        def capture_begin(self, pool: tuple[int, int] | None = None, capture_error_mode: str = "global", **_: Any):
            self.in_use = pool or (0, next(_pool_numbers))
            self.device = library.device()
            _pools.add(self.in_use)
            if not library.capture_begin(self.device):
                raise RuntimeError("CUDA graphs must be captured on a non-default stream, one at a time")

        def capture_end(self) -> None:
            number = library.capture_end()
            if number < 0:
                raise RuntimeError(BROKEN)
            _pools.discard(self.in_use)
            self.number = number

        def pool(self) -> tuple[int, int] | None:
            return self.in_use

        def replay(self) -> None:
            if self.number is None:
                raise RuntimeError("Called CUDAGraph::replay without a preceding successful capture.")
            if library.replay(ctypes.c_int64(self.number)):
                raise RuntimeError("replayed a graph whose memory was freed: CUDA would read arbitrary data")

        def reset(self) -> None:
            if self.number is not None:
                library.forget(ctypes.c_int64(self.number))
                self.number = None

        def __del__(self) -> None:
            self.reset()

    class graph:
        """Context manager that captures the operations of the block."""

        def __init__(self, made: CUDAGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"):
            self.made, self.mode = made, capture_error_mode
            self.pool = () if pool is None else (pool,)
            self.context = cuda.stream(stream or Stream())

        def __enter__(self) -> None:
            cuda.synchronize()
            cuda.empty_cache()
            self.context.__enter__()
            self.made.capture_begin(*self.pool, capture_error_mode=self.mode)

        def __exit__(self, *left: Any) -> None:
            self.made.capture_end()
            self.context.__exit__(*left)

    class device:
        """Context manager that sets the current device."""

        def __init__(self, wanted: Any) -> None:
            self.wanted = index(wanted)

        def __enter__(self) -> None:
            self.before = library.exchange_device(self.wanted)

        def __exit__(self, *_: Any) -> None:
            library.exchange_device(self.before)

    class Properties:
        name, major, minor, total_memory, multi_processor_count = NAME, 9, 0, 80 << 30, 132

    def release_pool(_: int, pool: tuple[int, int]) -> None:
        _pools.discard(pool)

    library.give_default_generators(1)
    generators = tuple(torch.Generator(f"cuda:{number}") for number in range(count))
    library.give_default_generators(0)
    replaced = {
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: count,
        "current_device": lambda: library.device(),
        "set_device": lambda wanted: library.exchange_device(index(wanted)) and None,
        "_exchange_device": exchange,
        "_maybe_exchange_device": exchange,
        "get_device_name": lambda _=None: NAME,
        "get_device_capability": lambda _=None: (9, 0),
        "get_device_properties": lambda _=None: Properties,
        "get_arch_list": lambda: ["sm_90"],
        "is_bf16_supported": lambda *_, **__: True,
        "synchronize": lambda _=None: wait("cuda.synchronize"),
        "empty_cache": empty_cache,
        "mem_get_info": lambda d=None: (
            library.memory(index(d), 3) - library.memory(index(d), 2),
            library.memory(index(d), 3),
        ),
        "memory_allocated": lambda d=None: library.memory(index(d), 0),
        "max_memory_allocated": lambda d=None: library.memory(index(d), 1),
        "memory_reserved": lambda d=None: library.memory(index(d), 2),
        "max_memory_reserved": lambda d=None: library.memory(index(d), 2),
        "reset_peak_memory_stats": lambda d=None: library.reset_peak(index(d)),
        "Stream": Stream,
        "current_stream": current_stream,
        "default_stream": lambda d=None: Stream(stream_id=0, device_index=index(d), device_type=1),
        "set_stream": set_stream,
        "stream": stream,
        "graph": graph,
        "CUDAGraph": CUDAGraph,
        "graph_pool_handle": lambda: (0, next(_pool_numbers)),
        "is_current_stream_capturing": lambda: bool(library.is_capturing()),
        "device": device,
        "default_generators": generators,
        "get_rng_state": lambda d="cuda": generators[index(d)].get_state(),
        "set_rng_state": lambda state, d="cuda": generators[index(d)].set_state(state),
        "manual_seed": lambda seed: generators[library.device()].manual_seed(seed) and None,
        "manual_seed_all": lambda seed: [generator.manual_seed(seed) for generator in generators] and None,
        "_seed_all": lambda: None,
    }
    for name, value in replaced.items():
        setattr(cuda, name, value)
    cuda.memory.empty_cache, cuda.random.default_generators = empty_cache, generators
    for name, value in {
        "_cuda_endAllocateToPool": release_pool,
        "_cuda_releasePool": lambda *_: None,
        "_cuda_clearCublasWorkspaces": lambda: None,
        "_cuda_setDevice": lambda number: exchange(number) and None,
        "_cuda_getDevice": lambda: library.device(),
    }.items():
        setattr(torch._C, name, value)
    torch.version.cuda = "12.8"

    made = torch.UntypedStorage.__new__

    def storage(kind: type, *arguments: Any, device: Any = None, **more: Any) -> torch.UntypedStorage:
        if device is None or torch.device(device).type != "cuda":
            return made(kind, *arguments, **({} if device is None else {"device": device}), **more)
        return torch.empty(arguments[0] if arguments else 0, dtype=torch.uint8, device=device).untyped_storage()

    def copy(self: torch.UntypedStorage, source: torch.UntypedStorage, *_: Any) -> torch.UntypedStorage:
        to, of = (torch.empty(0, dtype=torch.uint8, device=one.device).set_(one) for one in (self, source))
        to.copy_(of)
        return self

    torch.UntypedStorage.__new__ = storage
    torch.UntypedStorage.copy_ = copy


def install_from_environment() -> None:
    """Install the device in a child process, called by ``startup/sitecustomize.py``."""
    if VARIABLE in os.environ:
        load()
        install(int(os.environ[VARIABLE]))


def environment(count: int) -> dict[str, str]:
    """Return the environment variables for a Python process with simulated devices."""
    paths = [str(Path(__file__).parent / "startup"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {VARIABLE: str(count), "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
