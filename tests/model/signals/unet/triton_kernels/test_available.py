"""When kernels in Triton are used, and the message otherwise."""

import warnings
from collections.abc import Iterator

import pytest
import torch

from dop_lightning.model.signals.unet.triton_kernels import available

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    available.are_usable.cache_clear()
    yield
    available.are_usable.cache_clear()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch as it is built for a GPU, and Triton that compiles."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(available, "find_spec", lambda name: name)


def test_without_gpu_no_kernels_and_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(available, "deviation", lambda device: pytest.fail("used"))
    for name in ("cpu", "mps", "cuda"):
        assert not available.are_usable(torch.device(name))


def test_interpreted_kernels_are_not_used(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(available, "deviation", lambda device: pytest.fail("used"))
    assert not available.are_usable(CUDA)


def test_kernels_that_agree_are_used(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "deviation", lambda device: 1e-6)
    assert available.are_usable(CUDA)


def test_unused_kernels_are_explained_once(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> float:
        raise RuntimeError("no C compiler\nanywhere")

    for name, value, reason in (
        ("deviation", fail, "RuntimeError: no C compiler anywhere"),
        ("deviation", lambda device: 0.5, "kernels deviate from PyTorch operations by 0.5"),
        ("deviation", lambda device: float("nan"), "kernels deviate from PyTorch operations by nan"),
        ("find_spec", lambda name: None, "Triton is not installed"),
    ):
        available.are_usable.cache_clear()
        monkeypatch.setattr(available, name, value)
        with pytest.warns(RuntimeWarning, match=f"^the network uses PyTorch operations, which is slower: {reason}$"):
            assert not available.are_usable(CUDA)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not available.are_usable(CUDA)


def test_a_lack_of_memory_is_raised(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> float:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(available, "deviation", fail)
    with pytest.raises(torch.OutOfMemoryError):
        available.are_usable(CUDA)


@pytest.mark.triton
def test_tiny_network_detects_wrong_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from dop_lightning.model.signals.unet.triton_kernels import launches

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_rng_state()
    assert available.deviation(device) < 1e-4
    assert torch.equal(torch.get_rng_state(), before)
    monkeypatch.setattr(launches, "SLOPE", 0.1)
    assert available.deviation(device) > available.TOLERANCE
