"""Fixtures for the figures of the paper, with tiny configs."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from dop_lightning.paper.figures import configs
from tests.paper.figures.builders import write_tiny


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write tiny configs of a figure at scale small, and return their folder: ``tiny("2a")``."""

    def write(name: str) -> Path:
        own = write_tiny(name, tmp_path / "configs")
        monkeypatch.setattr(configs, "config_folder", lambda: tmp_path / "configs")
        return own

    return write


@pytest.fixture
def made(tiny: Callable[[str], Path], dop, tmp_path: Path):
    """Create a figure at a tiny size, and return the output and the rows of its table."""

    def make(name: str) -> tuple[str, list[dict[str, str]]]:
        tiny(name)
        said = dop("figure", name, "--out", str(tmp_path / name), "--device", "cpu")
        assert said.status == 0, said.err
        with Image.open(tmp_path / name / f"{name}.png") as image:
            assert image.width > 800
            assert len(set(image.convert("L").tobytes())) > 20
        assert (tmp_path / name / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with (tmp_path / name / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            return said.out, list(csv.DictReader(file))

    return make
