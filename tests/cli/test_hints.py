"""Unused GPUs: detection, and the hint that is printed."""

from pathlib import Path

import pytest
import torch
import yaml

from dop_lightning.cli import hints
from dop_lightning.cli.hints import Gpus, idle_gpus, look, no_gpu, unused_gpu

CPU_BUILD = Gpus(nvidia=True, torch="2.13.0+cpu")
OLD_DRIVER = Gpus(nvidia=True, torch="2.13.0", cuda_build="13.0", trouble="The NVIDIA driver on your system is too old")


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        (Gpus(torch="2.13.0+cpu"), []),
        (CPU_BUILD, ["NVIDIA GPU", "PyTorch 2.13.0+cpu is built for the CPU only", "pytorch.org/get-started"]),
        (OLD_DRIVER, ["built for 13.0, cannot use it (The NVIDIA driver on your system is too old)", "newer driver"]),
        (Gpus(nvidia=True, cuda_build="13.0", usable=1), []),
        (Gpus(nvidia=True, cuda_build="13.0", hidden=True), []),
        (Gpus(apple=True, torch="2.13.0"), ["this Mac has a GPU", "macOS 14"]),
        (Gpus(apple=True, torch="2.13.0", usable=1), []),
    ],
)
def test_unusable_gpu(gpus: Gpus, said: list[str]) -> None:
    hint = unused_gpu(gpus)
    assert bool(hint) == bool(said)
    assert all(part in hint for part in said)
    assert "\n" not in hint


def test_reason_for_no_gpu() -> None:
    assert no_gpu(Gpus(torch="2.13.0+cpu")) == "PyTorch 2.13.0+cpu finds no GPU on this machine"
    assert no_gpu(CPU_BUILD) == unused_gpu(CPU_BUILD)
    assert no_gpu(Gpus(nvidia=True, hidden=True)) == "CUDA_VISIBLE_DEVICES hides all GPUs"


@pytest.mark.parametrize(
    ("usable", "used", "batches", "devices"),
    [(8, 1, 40, 8), (8, 1, 3, 3), (8, 2, 40, 8), (8, 8, 40, None), (8, 1, 1, None), (1, 1, 40, None), (0, 0, 40, None)],
)
def test_idle_gpus(usable: int, used: int, batches: int, devices: int | None) -> None:
    hint = idle_gpus(Gpus(usable=usable), used, batches)
    assert bool(hint) == (devices is not None)
    assert devices is None or f"--trainer.devices {devices} " in hint


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["dev/nvidia0"], True),
        (["dev/nvidiactl"], False),
        (["dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"], True),
        (["dev/dxg"], False),
        (["proc/driver/nvidia/version"], False),  # of the host, in a container without its GPUs
        ([], False),
    ],
)
def test_available_gpus(files: list[str], found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    seen = look(tmp_path, {})
    assert (seen.nvidia, seen.torch, seen.trouble, seen.hidden) == (found, torch.__version__, "", False)


@pytest.mark.parametrize(("value", "hidden"), [("", True), ("-1", True), ("0", False), ("0,1", False)])
def test_gpus_may_be_hidden(value: str, hidden: bool, tmp_path: Path) -> None:
    assert look(tmp_path, {"CUDA_VISIBLE_DEVICES": value}).hidden is hidden


def test_pytorch_error_about_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update\nit.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", fail)
    assert look(tmp_path, {}).trouble == "The NVIDIA driver on your system is too old (found version 11040)"


MATRIX = {
    "data": {"class_path": "MatrixDataModule", "init_args": {"n": 6, "rank": 1}},
    "trainer": {"max_steps": 2, "default_root_dir": "out"},
}


@pytest.mark.parametrize(("accelerator", "hinted"), [("auto", True), ("cpu", False)])
def test_cpu_run_mentions_the_gpu_unless_chosen(
    accelerator: str, hinted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dop
) -> None:
    monkeypatch.chdir(tmp_path)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("a GPU is used here")
    monkeypatch.setattr(hints, "look", lambda: CPU_BUILD)
    Path("c.yaml").write_text(yaml.safe_dump(MATRIX))
    said = dop("fit", "--config", "c.yaml", "--trainer.accelerator", accelerator)
    assert said.status == 0
    assert (f"Hint: {unused_gpu(CPU_BUILD)}\n" in said.err) is hinted


def test_missing_requested_gpu_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dop) -> None:
    monkeypatch.chdir(tmp_path)
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("a GPU is used here")
    monkeypatch.setattr(hints, "look", lambda: OLD_DRIVER)
    Path("c.yaml").write_text(yaml.safe_dump(MATRIX))
    for name in ("gpu", "cuda"):
        said = dop("fit", "--config", "c.yaml", "--trainer.accelerator", name)
        assert said.status == 2
        assert said.err == f"dop fit: error: no GPU is available: {unused_gpu(OLD_DRIVER)}\n"
    said = dop("recover", "camera", "--out", "x", "--device", "gpu")
    assert said.err == f"dop recover: error: no GPU is available: {unused_gpu(OLD_DRIVER)}\n"
