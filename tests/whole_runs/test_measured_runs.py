"""Whole runs on images with measurements of another size: files, predictions and comparisons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SMALL = [
    *("--model.signal.init_args.width", "4", "--model.signal.init_args.scales", "2"),
    *("--model.block", "2", "--model.evaluate_every", "2", "--trainer.max_steps", "4", "--trainer.accelerator", "cpu"),
    *("--tensorboard.images_every", "1"),
]


def size(path: Path) -> tuple[int, int]:
    """Width and height."""
    with Image.open(path) as image:
        return image.size


def fit(dop: Callable[..., Any], run: Path, *options: str) -> None:
    config = ["--config", "configs/superresolution.yaml", "--trainer.default_root_dir", str(run)]
    said = dop("fit", *config, *SMALL, *options)
    assert said.status == 0, said.err


def test_superresolution_of_a_sample(dop, tmp_path: Path) -> None:
    fit(dop, tmp_path, "--data.resize", "16")
    (folder,) = [path.parent for path in tmp_path.glob("*/result.json")]
    assert folder.name == "astronaut-downsampling-2-bicubic-salt-and-pepper-0.2-seed0"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert {"psnr", "ssim", "best_psnr", "relative_error_corruption", "true_density"} <= set(result)
    assert "input_psnr" not in result  # the observation has another size
    assert result["attributes"]["sensing"] == "downsampling"
    assert size(folder / "recovered.png") == (16, 16)
    assert size(folder / "corruption.png") == (8, 8)
    assert np.load(folder / "recovered.npy").shape == (3, 16, 16)
    width, height = size(folder / "comparison.png")
    assert width > 4 * 240 > height > 240  # four panels, the small ones enlarged to the size of the others

    written = (folder / "recovered.png").read_bytes()
    (folder / "recovered.png").unlink()
    assert dop("predict", "--config", str(tmp_path / "config.yaml")).status == 0
    assert (folder / "recovered.png").read_bytes() == written
    said = dop("validate", "--config", str(tmp_path / "config.yaml"))
    assert said.status == 0
    assert "psnr" in said.out.lower()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_superresolution_of_a_file(suffix: str, dop, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 10, 3), dtype=np.uint8)
    file = tmp_path / f"small{suffix}"
    np.save(file, pixels) if suffix == ".npy" else Image.fromarray(pixels).save(file)
    run = tmp_path / "run"
    own = ["--data.images", str(file), "--data.noise", "null", "--data.resize", "null"]
    fit(dop, run, *own)
    written = run / "small" / f"recovered{suffix}"
    if suffix == ".npy":
        again = np.load(written)
        assert (again.shape, again.dtype) == ((14, 20, 3), np.uint8)
    else:
        assert size(written) == (20, 14)
    assert size(run / "small" / "recovered.png") == (20, 14)
    fit(dop, run, *own)  # a finished run is left as it is
    said = dop("fit", "--config", "configs/superresolution.yaml", *SMALL, *own, "--data.tile", "8")
    assert said.status != 0
    assert "tile must be null with sensing" in said.err


def test_kernels_and_physics_from_the_command_line(dop, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.png"
    Image.fromarray(np.array([[0, 9, 0], [9, 99, 0], [0, 9, 0]], dtype=np.uint8)).save(kernel)
    rows = "[[0, 1, 0], [1, 4, 1], [0, 1, 0]]"
    for number, sensing in enumerate(
        (
            f"{{class_path: dop_lightning.model.operators.Blur, init_args: {{kernel: {kernel}}}}}",
            f"{{class_path: dop_lightning.model.operators.Blur, init_args: {{kernel: {rows}, boundary: valid}}}}",
            "{class_path: dop_lightning.model.operators.MotionBlur, init_args: {length: 5, angle: 30}}",
            "{class_path: dop_lightning.model.operators.Physics, init_args: {physics: torch.nn.Identity}}",
            "{class_path: dop_lightning.model.operators.Physics, init_args: "
            "{physics: tests.whole_runs.test_measured_runs.Half, "
            "arguments: {weight: {call: torch.tensor, arguments: {data: 0.5}}}}}",
        )
    ):
        config = tmp_path / f"{number}.yaml"
        config.write_text(f"data:\n  init_args:\n    resize: 16\n    sensing: {sensing}\n", encoding="utf-8")
        if "Identity" in sensing:
            said = dop("fit", "--config", "configs/blur.yaml", "--config", str(config), *SMALL)
            assert "physics must be linear, with the methods A and A_adjoint" in said.err
            continue
        run = tmp_path / f"run{number}"
        said = dop(
            *("fit", "--config", "configs/blur.yaml", "--config", str(config), *SMALL),
            *("--trainer.default_root_dir", str(run)),
        )
        assert said.status == 0, said.err
        assert len(list(run.glob("*/recovered.png"))) == 1
        assert dop("predict", "--config", str(run / "config.yaml")).status == 0


class Half:
    """Every second row, weighted."""

    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def A(self, x: Any) -> Any:
        return self.weight * x[..., ::2, :]

    def A_adjoint(self, y: Any) -> Any:
        x = y.new_zeros(*y.shape[:-2], 2 * y.shape[-2], y.shape[-1])
        x[..., ::2, :] = self.weight * y
        return x
