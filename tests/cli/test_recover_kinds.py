"""Every format, depth, mode and size through ``dop recover``: the result has those of the input.

Results are read with Pillow, tifffile and NumPy, not with the code under test.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dop_lightning.cli.main import main
from tests.images.formats.builders import KINDS, build

SIZES = [(8, 8), (37, 51), *(pytest.param(size, marks=pytest.mark.slow) for size in [(64, 64), (67, 91)])]
TINY = ["--width", "1", "--iterations", "1", "--device", "cpu", "--precision", "fp32"]
INSTANT = ["--preset", "instant", "--device", "cpu"]
"""Options of the second size: files are the same without a network, in half of the time."""

LOSSY = {"jpeg-grey", "jpeg-rgb", "webp-lossy", "webp-lossy-alpha"}
"""Formats that are returned as PNG."""


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_outputs_are_of_the_kinds_of_the_inputs(size: tuple[int, int], tmp_path: Path) -> None:
    """All kinds of one size in one run, so that it is made once, whatever the number of workers."""
    (tmp_path / "in").mkdir()
    for kind in KINDS:
        build(tmp_path / "in", kind, *size)
    options = INSTANT if size == (37, 51) else TINY
    assert main(["recover", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options]) == 0
    different = {}
    for kind, (suffix, *_) in KINDS.items():
        result = tmp_path / "out" / f"in-{kind}" / f"recovered{'.png' if kind in LOSSY else suffix}"
        look = LOOKS.get(result.suffix, photograph)
        before, after = look(tmp_path / "in" / f"in-{kind}{suffix}"), look(result)
        if not (after.pop("size") == before.pop("size") == size and after == before):
            different[kind] = before, after
    assert not different


def photograph(path: Path) -> dict[str, Any]:
    """Size, mode, depth, alpha and palette of a PNG, JPEG, WebP or BMP."""
    data = path.read_bytes()
    with Image.open(path) as image:
        image.load()
        # Pillow reports the depth of neither PNG nor BMP
        bits = data[24] if image.format == "PNG" else data[28] if image.format == "BMP" else 8
        found = {
            "size": (image.height, image.width),
            "mode": image.mode,
            "bits": bits,
            "palette": image.getpalette(),
            "transparency": image.info.get("transparency"),
            "alpha": image.getchannel("A").tobytes() if "A" in image.getbands() else None,
        }
    if found["mode"] == "RGB" and bits == 16:
        found["colour type"] = data[25]
    return found


def tiff(path: Path) -> dict[str, Any]:
    """Size, number format, channels and coding of a TIFF."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        samples = file.asarray()
        separate = page.samplesperpixel > 1 and page.planarconfig == 2
        alpha = None
        if page.extrasamples and page.extrasamples[-1] in (1, 2):
            alpha = (samples[-1] if separate else samples[..., -1]).tolist()
        return {
            "size": (page.imagelength, page.imagewidth),
            "dtype": page.dtype,
            "shape": samples.shape,
            "bits": page.bitspersample,
            "pages": len(file.pages),
            # JPEG in a TIFF is lossy, so colours are returned as RGB rather than as YCbCr
            "photometric": "RGB" if page.photometric.name == "YCBCR" else page.photometric.name,
            "separate": separate,
            "extrasamples": page.extrasamples,
            "colormap": None if page.colormap is None else page.colormap.tolist(),
            "alpha": alpha,
        }


def array(path: Path) -> dict[str, Any]:
    """Size, number format, axes and key of a NumPy file."""
    loaded = np.load(path)
    keys = list(loaded.files) if path.suffix == ".npz" else None
    values = loaded[keys[0]] if keys else loaded
    shape = values.shape
    first = values.ndim == 3 and shape[0] < shape[2]
    return {
        "size": shape[1:] if first else shape[:2],
        "shape": shape,
        "dtype": values.dtype,
        "bits": values.dtype.itemsize,
        "keys": keys,
    }


LOOKS: dict[str, Callable[[Path], dict[str, Any]]] = {".tif": tiff, ".npy": array, ".npz": array}


# ------------------------------------------------------------------------------------------------------------- metadata

PROFILE = b"a colour profile of no meaning" * 9


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_orientation_profile_and_resolution_are_kept(
    suffix: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "A maker"
    path = tmp_path / f"photo{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"dpi": (300, 300)}
    Image.fromarray(pixels).save(path, exif=exif, icc_profile=PROFILE, **options)
    assert main(["recover", str(path), "--out", str(tmp_path / "out"), *TINY]) == 0
    result = tmp_path / "out" / "photo" / f"recovered{'.png' if suffix == '.jpg' else suffix}"
    with Image.open(path) as before, Image.open(result) as after:
        assert after.size == before.size
        assert before.size == (
            (9, 14) if suffix == ".tif" and orientation > 4 else (14, 9)
        )  # Pillow turns TIFFs itself
        assert after.getexif()[0x0112] == orientation
        assert after.getexif()[0x010F] == "A maker"
        assert after.info["icc_profile"] == PROFILE
        if "dpi" in before.info:
            assert after.info["dpi"] == pytest.approx(before.info["dpi"], abs=0.02)
    upright = (14, 9) if orientation < 5 else (9, 14)
    with Image.open(tmp_path / "out" / "photo" / "corruption.png") as picture:
        assert picture.size == upright
    recovered = np.load(tmp_path / "out" / "photo" / "recovered.npy")
    assert recovered.shape == (3, upright[1], upright[0])
