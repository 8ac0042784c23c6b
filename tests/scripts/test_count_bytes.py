"""The bytes of an iteration on a GPU, counted on the meta device."""

import sys
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

SCRIPT = "count_bytes"


def test_limits_are_respected(script: ModuleType) -> None:
    for (case, variant), bar in script.BARS.items():
        preset, side, width = case.split(":")
        assert script.count(preset, int(side), int(width), variant).failures(bar) == [], (case, variant)


def test_earlier_defects_are_counted(script: ModuleType) -> None:
    """A regression changes every number."""
    before, after = (script.count("best", 512, 128, variant) for variant in ("as it was", "plain"))
    assert before.traffic.total / 1e9 == pytest.approx(13.4, abs=0.2)
    assert after.traffic.total / 1e9 == pytest.approx(8.9, abs=0.2)
    assert before.kept / 2**20 == pytest.approx(1253, abs=2)
    failures = before.failures(script.BARS["best:512:128", "plain"])
    assert [failure.split(",")[0].lstrip("0123456789. ") for failure in failures] == [
        "GB", "MiB kept", "launches", "empty pads", "large float32 arrays",
    ]  # fmt: skip


def test_fused_operations_keep_the_budget(script: ModuleType) -> None:
    """Of the default method at 512×512, width 128: 6.5 GB, 900 MiB kept for the backward pass, 300 launches."""
    found = script.count("best", 512, 128, "fused")
    assert found.traffic.total <= 6.5e9
    assert found.kept <= 900 * 2**20
    assert found.launches <= 300
    names = ["pad", "activate", "activate_backward", "join", "join_backward"]
    assert [found.traffic.count[f"dop_lightning::{name}"] for name in names] == [1, 15, 15, 5, 5]
    assert not found.traffic.count["aten::native_batch_norm"]


def test_bytes_of_operations(script: ModuleType) -> None:
    x = torch.empty(1, 8, 4, 4, device="meta").contiguous(memory_format=torch.channels_last)
    weight = torch.empty(8, 8, 3, 3, device="meta").contiguous(memory_format=torch.channels_last)
    size = 4 * 8 * 16
    cases = [
        (lambda: x.permute(0, 2, 3, 1)[..., :3], 0, 0),  # views
        (lambda: x + 1, size, size),
        (lambda: x.add_(x[:, :, :1, :1]), size + 4 * 8, size),
        (lambda: torch.empty_like(x), 0, 0),
        (lambda: x.zero_(), 0, size),
        (lambda: x.copy_(x.sum()), size + 4, size + 4),
        (lambda: x + x[:, :, :1, :1].expand_as(x), size + 4 * 8, size),  # in memory once
        (lambda: F.conv2d(x, weight), size + 4 * 576, 4 * 8 * 4),
        (lambda: F.conv2d(x.contiguous(), weight), 3 * size + 4 * 576, 2 * size + 4 * 8 * 4),  # two copies
        (lambda: F.batch_norm(x, None, None, training=True), 2 * size, size),
        (lambda: F.pad(x, (1, 1, 1, 1), mode="reflect"), 2 * size, size + 4 * 8 * 36),
    ]
    for work, read, written in cases:
        with script.Traffic(10**6) as traffic:
            work()
        assert (traffic.read, traffic.written) == (read, written), list(traffic.count)


def test_autocast_of_cuda(script: ModuleType) -> None:
    x, weight = torch.empty(1, 2, 4, 4, device="meta"), torch.empty(2, 2, 1, 1, device="meta")
    with script.CudaAutocast("meta"):
        made = F.conv2d(x, weight)
        assert made.dtype == torch.bfloat16
        assert F.interpolate(made, scale_factor=2).dtype == torch.float32
        assert F.pad(made, (1, 1, 1, 1), mode="reflect").dtype == torch.bfloat16
        with script.CudaAutocast("meta", enabled=False):
            assert F.interpolate(made, scale_factor=2).dtype == torch.bfloat16
        assert F.interpolate(made, scale_factor=2).dtype == torch.float32
    assert F.conv2d(x, weight).dtype == torch.float32


def test_command(script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["count_bytes.py", "--cases", "default:64:4", "--by-name"])
    assert script.main() == 0
    said = capsys.readouterr().out
    assert "| default:64:4 | plain | 0." in said
    assert "aten::convolution_backward" in said
    monkeypatch.setitem(script.BARS, ("default:64:4", "plain"), script.Bar(1.0, 0.5, 440))
    assert script.main() == 1
    assert "default:64:4, plain: " in capsys.readouterr().out
