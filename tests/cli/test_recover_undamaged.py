"""``dop recover --undamaged``: values that are known to be undamaged are returned unchanged."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a photograph with white pixels, and a picture of their positions."""
    monkeypatch.chdir(tmp_path)
    pixels = np.fromfunction(lambda i, j, k: 80 + i + j + 5 * k, (40, 40, 3)).astype(np.uint8)
    random = np.random.default_rng(0)
    pixels[random.random((40, 40)) < 0.05] = 255
    pixels[5, 5], pixels[30, 30] = 255, 0
    known = np.zeros((40, 40), dtype=np.uint8)
    known[4:10, 4:10] = 255
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(known).save("known.png")
    return tmp_path


def test_undamaged_values_are_kept(folder: Path) -> None:
    command = ["recover", "photo.png", "--preset", "instant"]
    assert main([*command, "--out", "plain"]) == 0
    assert main([*command, "--undamaged", "known.png", "--out", "told"]) == 0
    given, plain, told = (
        np.asarray(Image.open(p)) for p in ("photo.png", "plain/photo/recovered.png", "told/photo/recovered.png")
    )
    assert plain[5, 5].max() < 200
    assert np.array_equal(told[4:10, 4:10], given[4:10, 4:10])
    assert told[30, 30].min() > 100


def test_errors_are_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recover", "photo.png", "--preset", "paper", "--undamaged", "known.png", "--out", "out"]) == 2
    assert capsys.readouterr().err == (
        "dop recover: error: --undamaged is not supported by the preset paper, got 'known.png'\n"
    )
    Image.new("L", (3, 3), 255).save("small.png")
    assert main(["recover", "photo.png", "--undamaged", "small.png", "--out", "out"]) == 2
    assert "small.png: the mask must have the size of the image, 40×40, got 3×3" in capsys.readouterr().err
    assert not Path("out").exists()
