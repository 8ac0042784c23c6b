"""The pretended device refuses what a GPU refuses, and sees what a GPU is slow at."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.pretend_cuda import device
from tests.pretend_cuda.checks import ON_PRETENDED, watched

pytestmark = ON_PRETENDED


def draw(*shape: int, where: str = "cuda") -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(where)


def test_network_equals_the_cpu() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4), nn.Upsample(scale_factor=2)
    )
    z, found = draw(1, 3, 8, 8, where="cpu"), []
    for where in ("cpu", "cuda"):
        there = copy.deepcopy(network).to(where)
        optimizer = torch.optim.Adam(there.parameters())
        loss = there(z.to(where)).square().mean()
        loss.backward()
        optimizer.step()
        assert all(p.device.type == where and p.grad.device.type == where for p in there.parameters())
        found.append([loss.detach().cpu(), *(p.detach().cpu() for p in there.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_states_are_saved_and_loaded() -> None:
    file = io.BytesIO()
    torch.save(nn.Linear(3, 2).cuda().state_dict(), file)
    for where, expected in ((None, "cuda"), ("cpu", "cpu")):
        file.seek(0)
        loaded = torch.load(file, weights_only=True, map_location=where)
        assert {tensor.device.type for tensor in loaded.values()} == {expected}


REFUSED: dict[str, Callable[[], object]] = {
    "same device, but found at least two devices, cuda:0 and cpu": lambda: draw(3) + torch.ones(3),
    "same device, but found at least two devices, cuda:0 and cuda:1": lambda: draw(3) + draw(3, where="cuda:1"),
    "Expected a 'cuda' device type for generator": lambda: draw(3).normal_(generator=torch.Generator()),
    "CUDA out of memory": lambda: torch.empty(2**40, device="cuda"),
    "cumsum_cuda does not have a deterministic": lambda: draw(3).cumsum(0),
    "invalid device ordinal": lambda: torch.empty(1, device="cuda:5"),
}


@pytest.mark.parametrize("error", REFUSED)
def test_operations_refused_by_a_gpu_are_refused(error: str) -> None:
    torch.use_deterministic_algorithms("deterministic" in error)
    try:
        with pytest.raises(RuntimeError, match=error):
            REFUSED[error]()
    finally:
        torch.use_deterministic_algorithms(False)


def test_host_scalars_are_accepted() -> None:
    x = draw(3)
    torch.testing.assert_close((x * torch.tensor(2.0)).cpu(), 2 * x.cpu())
    assert x[torch.tensor([0, 2])].shape == (2,)


WAITS: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "a number": (lambda x: x.sum().item(), 1),
    "a truth": (lambda x: bool((x > 0).all()), 1),
    "a list": (lambda x: x.tolist(), 1),
    "to the host": (lambda x: x.cpu(), 1),
    "from pageable memory": (lambda x: x.copy_(torch.ones(4), non_blocking=True), 1),
    "a mask": (lambda x: x[x > 0], 1),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(x.view(2, 2)), 1),
    "everything": (lambda x: torch.cuda.synchronize(), 1),
    "from pinned memory": (lambda x: x.copy_(torch.ones(4).pin_memory(), non_blocking=True), 0),
    "nothing": (lambda x: x.add_(1).sum(), 0),
}


@pytest.mark.parametrize("name", WAITS)
def test_host_synchronisations_are_detected(name: str) -> None:
    work, expected = WAITS[name]
    x = draw(4)
    with watched() as seen:
        work(x)
    assert (len(seen.waits) > 0) == (expected > 0), seen.listed
    assert all("test_pretended_device.py" in wait.place for wait in seen.waits)


def test_launches_are_counted() -> None:
    x = draw(4)
    with watched() as seen:
        x.view(2, 2).add_(1).mul_(2)
    assert seen.launches == {"add": 1, "mul": 1}


def test_memory_is_counted_and_uninitialised() -> None:
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    x = torch.empty(1000, device="cuda")
    assert torch.cuda.memory_allocated() == torch.cuda.max_memory_allocated() == before + 4000
    assert bool(x.isnan().all())
    del x
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.memory_reserved() >= before + 4000
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == before


def test_default_generators_belong_to_the_device() -> None:
    on_host = torch.get_rng_state()
    torch.cuda.manual_seed(3)
    state = torch.cuda.get_rng_state()
    first = torch.rand(4, device="cuda")
    torch.cuda.set_rng_state(state)
    assert torch.equal(first, torch.rand(4, device="cuda"))
    assert torch.equal(on_host, torch.get_rng_state())


# -------------------------------------------------------------------------------------------------------------- graphs


def captured(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        work()
    return graph


def test_capture_does_not_run_and_replay_reads_current_values() -> None:
    x, total = draw(3), torch.zeros(3, device="cuda")
    graph = captured(lambda: total.add_(x * 2))
    assert total.tolist() == [0, 0, 0]
    graph.replay()
    x.fill_(1)
    before = total.clone()
    with watched() as seen:
        graph.replay()
    assert torch.equal(total, before + 2)
    assert seen.launches == {"graph": 1}


def test_joined_side_streams_are_captured() -> None:
    x, total = draw(3), torch.zeros(3, device="cuda")

    def work(joined: bool) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            total.add_(x)
        if joined:
            torch.cuda.current_stream().wait_stream(side)

    captured(lambda: work(True)).replay()
    assert torch.equal(total, x)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        captured(lambda: work(False))
    device.forget_poison()


ILLEGAL: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: x.sum().item(),
    "from the host": lambda x: x.copy_(torch.ones(3)),
    "another stream": lambda x: on_another_stream(x),
    "a generator": lambda x: x.normal_(generator=torch.Generator("cuda")),
}


def on_another_stream(x: Tensor) -> None:
    with torch.cuda.stream(torch.cuda.Stream()):
        x.add_(1)


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_capture_fails_and_blocks_the_allocator(name: str) -> None:
    x = draw(3)
    with pytest.raises(RuntimeError, match="during capture"):
        captured(lambda: ILLEGAL[name](x))
    assert device.is_poisoned()
    with pytest.raises(RuntimeError, match="INTERNAL ASSERT"):
        torch.cuda.empty_cache()
    with pytest.raises(RuntimeError, match="INTERNAL ASSERT"):
        captured(lambda: x.add_(1))
    device.forget_poison()
    captured(lambda: x.add_(1)).replay()


def test_graph_with_freed_memory_is_not_replayed() -> None:
    total, others = torch.zeros(3, device="cuda"), [draw(3)]
    graph = captured(lambda: total.add_(others[0]))
    others.clear()
    with pytest.raises(RuntimeError, match="memory was freed"):
        graph.replay()
