import pytest
import torch
from torch import nn

from dop_lightning.foundation.devices import place_module, without_device_modes


def test_module_on_the_device_is_returned_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    monkeypatch.setattr(nn.Module, "to", lambda *_: pytest.fail("it was moved"))
    assert place_module(module, torch.device("cpu")) is module


def test_module_with_a_tensor_elsewhere_is_moved() -> None:
    module = nn.BatchNorm1d(3)
    module.running_mean = torch.zeros(3, device="meta")
    moved = place_module(module, torch.device("meta"))
    assert {tensor.device.type for tensor in (*moved.parameters(), *moved.buffers())} == {"meta"}


def test_modes_are_skipped_on_the_cpu_only() -> None:
    with torch.device("meta"):
        with without_device_modes(torch.device("cpu")):
            assert torch.zeros(1).device.type == "cpu"
        with without_device_modes(torch.device("cuda")):
            assert torch.zeros(1).device.type == "meta"
        assert torch.zeros(1).device.type == "meta"
