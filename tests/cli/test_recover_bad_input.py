"""Invalid input of ``dop recover``: one line, status 2, and no output."""

import errno
import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from dop_lightning.cli.main import main
from tests.images.formats.builders import SIGNATURE, chunk

TINY = ["--width", "2", "--iterations", "2", "--device", "cpu", "--precision", "fp32"]


def bomb() -> bytes:
    """A PNG of a few bytes whose header specifies 2.5 billion pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 50_001)) + chunk(b"IEND", b"")
    return SIGNATURE + content


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a good photograph, and files with something wrong."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    rgb = draw.integers(0, 256, (37, 51, 3), dtype=np.uint8)
    Image.fromarray(rgb).save("photo.png")
    for suffix in ("png", "jpg", "tif", "webp", "bmp"):
        Image.fromarray(rgb).save(f"whole.{suffix}")
        data = Path(f"whole.{suffix}").read_bytes()
        Path(f"cut.{suffix}").write_bytes(data[: len(data) // 2])
        Path(f"text.{suffix}").write_text("This is a letter, not an image.\n")
        Path(f"empty.{suffix}").touch()
        Path(f"whole.{suffix}").unlink()
    floats = draw.random((37, 51, 3))
    np.save("floats.npy", floats)
    Path("cut.npy").write_bytes(Path("floats.npy").read_bytes()[:500])
    np.save("nothing.npy", np.zeros((0, 51)))
    np.save("flat.npy", np.zeros(51))
    np.save("complex.npy", floats + 1j)
    np.save("objects.npy", np.array([[None, "a"], [1, 2]], dtype=object), allow_pickle=True)
    np.save("infinite.npy", np.where(floats > 0.9, np.inf, floats))
    np.save("unseen.npy", np.full((37, 51), np.nan))
    np.save("nan.npy", np.where(floats > 0.9, np.nan, floats))
    np.savez("two.npz", a=floats, b=floats)
    np.save("small.npy", floats[:8])
    Image.fromarray(draw.integers(0, 256, (37, 51, 4), dtype=np.uint8), "CMYK").save("print.jpg")
    tifffile.imwrite("print.tif", draw.integers(0, 256, (37, 51, 4), dtype=np.uint8), photometric="separated")
    Image.new("RGBA", (51, 37)).save("invisible.png")
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save("moving.webp", save_all=True, append_images=frames[1:])
    Image.fromarray(rgb[:, :, 0]).save("grey.png")
    Image.fromarray(rgb[:20]).save("lower.png")
    Image.new("L", (51, 37), 255).save("all.png")
    Image.new("L", (51, 37)).save("none.png")
    Image.new("L", (51, 20), 255).save("low_mask.png")
    Path("bomb.png").write_bytes(bomb())
    Path("bomb.npy").write_bytes(_npy_header((100_000, 100_000)))
    Path("folder.png").mkdir()
    return tmp_path


def _npy_header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + b"\0" * 64


PHOTO = ["photo.png"]

BAD: dict[str, tuple[list[str], str]] = {
    # the image
    "missing": (["nowhere.png"], "nowhere.png: no such file"),
    **{f"cut off {s}": ([f"cut.{s}"], f"cut.{s}: ") for s in ("png", "jpg", "tif", "webp", "bmp", "npy")},
    **{f"text named {s}": ([f"text.{s}"], f"text.{s}: ") for s in ("png", "jpg", "tif", "webp", "bmp")},
    **{f"empty {s}": ([f"empty.{s}"], f"empty.{s}: the file is empty") for s in ("png", "jpg", "tif", "webp", "bmp")},
    "folder without images": (["folder.png"], "folder.png: the folder contains no file with suffix"),
    "0 rows": (["nothing.npy"], "nothing.npy: "),
    "one axis": (["flat.npy"], "flat.npy: "),
    "complex numbers": (["complex.npy"], "complex.npy: "),
    "Python objects": (["objects.npy"], "objects.npy: "),
    "infinite values": (["infinite.npy"], "infinite.npy: "),
    "no observed value": (["unseen.npy"], "unseen.npy: "),
    "several arrays": (["two.npz"], "two.npz: "),
    "CMYK in JPEG": (["print.jpg"], "CMYK"),
    "CMYK in TIFF": (["print.tif"], "CMYK"),
    "all transparent": (["invisible.png"], "invisible.png: "),
    "animation": (["moving.webp"], "moving.webp: "),
    "bomb": (["bomb.png"], "bomb.png: "),
    "bomb of NumPy": (["bomb.npy"], "bomb.npy: "),
    "one of several": ([*PHOTO, "text.png"], "text.png: "),
    "none": ([], "IMAGE"),
    # truth and mask
    "missing truth": ([*PHOTO, "--truth", "nowhere.png"], "nowhere.png: no such file"),
    "truth of another size": ([*PHOTO, "--truth", "lower.png"], "lower.png: the truth must have the size and channels"),
    "grey truth": ([*PHOTO, "--truth", "grey.png"], "51×37 with 3 channels, got 51×37 with 1 channel"),
    "truth with NaN": (["floats.npy", "--truth", "nan.npy"], "nan.npy: the truth must be complete, got "),
    "two truths": ([*PHOTO, "--truth", "photo.png", "grey.png"], "truth must be one file for all, or one per file"),
    "damaged truth": ([*PHOTO, "--truth", "cut.png"], "cut.png: "),
    "missing mask": ([*PHOTO, "--mask", "nowhere.png"], "nowhere.png: no such file"),
    "mask of another size": ([*PHOTO, "--mask", "low_mask.png"], "low_mask.png: "),
    "black mask": ([*PHOTO, "--mask", "none.png"], "none.png: "),
    "two masks": ([*PHOTO, "--mask", "all.png", "all.png"], "mask must be one file for all, or one per file (1), "),
    "damaged mask": ([*PHOTO, "--mask", "text.png"], "text.png: "),
    # numbers
    "no iterations": ([*PHOTO, "--iterations", "0"], "iterations must be a whole number of at least 1, got 0"),
    "negative iterations": ([*PHOTO, "--iterations", "-5"], "iterations must be a whole number of at least 1, got -5"),
    "iterations in words": ([*PHOTO, "--iterations", "many"], "invalid int value: 'many'"),
    **{
        f"alpha {alpha}": ([*PHOTO, f"--alpha={alpha}"], f"alpha must be a finite number above 0, got {alpha}")
        for alpha in ("0.0", "-1.0", "nan", "inf")
    },
    "no width": ([*PHOTO, "--width", "0"], "width must be a whole number of at least 1, got 0"),
    "tile of nothing": ([*PHOTO, "--tile", "0"], "tile must be a whole number of at least 8, got 0"),
    "tile below 8": ([*PHOTO, "--tile", "7"], "tile must be a whole number of at least 8, got 7"),
    "memory in words": ([*PHOTO, "--max-memory", "lots"], "max-memory must be a positive amount such as 8G or 500M"),
    "no memory": ([*PHOTO, "--max-memory", "0"], "max-memory must be a positive amount such as 8G or 500M, got '0'"),
    "too little memory": ([*PHOTO, "--max-memory", "1M"], "max-memory must be at least "),
    "range upside down": (["floats.npy", "--range", "1", "0"], "range"),
    "range of NaN": (["floats.npy", "--range", "nan", "1"], "range"),
    "range of one number": (["floats.npy", "--range", "1"], "--range: expected 2 arguments"),
    "another preset": ([*PHOTO, "--preset", "worst"], "argument --preset: invalid choice: 'worst'"),
    "another device": ([*PHOTO, "--device", "abacus"], "device must be one of auto, cpu, gpu, cuda, mps, got 'abacus'"),
    "another unit of corruption": ([*PHOTO, "--per", "row"], "argument --per: invalid choice: 'row'"),
    "another precision": ([*PHOTO, "--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
    "unknown option": ([*PHOTO, "--colour", "red"], "unrecognized arguments: --colour red"),
    # the output
    "output is a file": ([*PHOTO, "--out", "grey.png"], "grey.png: the folder of a run must be a folder, got a file"),
    "output below a file": ([*PHOTO, "--out", "grey.png/out"], "grey.png is not a folder that you may write to"),
}  # fmt: skip


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_writes_nothing(case: str, folder: Path, dop: Callable[..., Any]) -> None:
    arguments, named = BAD[case]
    before = listing(folder)
    said = dop("recover", *arguments, *tiny_without(arguments), *([] if "--out" in arguments else ["--out", "out"]))
    assert said.status == 2, said
    assert said.err.startswith("dop recover: error: ")
    assert said.err.count("\n") == 1
    assert named in said.err
    assert said.out == ""
    assert listing(folder) == before


def tiny_without(arguments: list[str]) -> list[str]:
    """The options of a tiny run, less those that are given."""
    pairs = zip(TINY[::2], TINY[1::2], strict=True)
    return [word for option, value in pairs if option not in arguments for word in (option, value)]


def test_missing_device_is_refused(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = listing(folder)
    said = dop("recover", "photo.png", "--out", "out", "--device", "cuda", "--iterations", "2")
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert listing(folder) == before


def test_unwritable_output_is_refused(folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "locked").mkdir()
    access = os.access
    monkeypatch.setattr(  # root may write anywhere
        os, "access", lambda path, mode, **o: Path(path).name != "locked" and access(path, mode, **o)
    )
    before = listing(folder)
    said = dop("recover", "photo.png", "--out", "locked/out", *TINY)
    assert said.status == 2
    assert "locked/out: cannot be written, " in said.err
    assert said.err.count("\n") == 1
    assert listing(folder) == before


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_image_is_recovered(level: int, channels: int, folder: Path, dop) -> None:
    pixels = np.full((16, 16, channels), level, dtype=np.uint8).squeeze()
    Image.fromarray(pixels).save("constant.png")
    np.save("constant.npy", np.full((16, 16, channels), float(level)))
    said = dop("recover", "constant.png", "constant.npy", "--out", "out", *TINY)
    assert said.status == 0, said
    with Image.open("out/constant/recovered.png") as image:
        assert image.size == (16, 16)
    recovered = np.load("out/constant-2/recovered.npy")
    assert np.isfinite(recovered).all()
    assert recovered.shape == (16, 16, channels)


@pytest.mark.parametrize("where", ["recovered.png", "result.json", "manifest.json", "batch-0000.pt", "results.csv"])
def test_a_full_disk_leaves_no_half_file(where: str, folder: Path, dop, monkeypatch: pytest.MonkeyPatch) -> None:
    """If any file does not fit on the disk: one line, earlier files stay complete, and the same command resumes."""
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == where:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        said = dop("recover", "photo.png", "--out", "out", *TINY)
    assert said.status == 2
    assert said.err.splitlines()[-1].startswith("dop recover: error: ")
    assert said.err.splitlines()[-1].endswith(f"{where}: No space left on device")
    assert "Traceback" not in said.err
    assert not [name for name in listing(folder) if name.endswith(".tmp") or name.endswith(where)]
    assert main(["recover", "photo.png", "--out", "out", *TINY]) == 0
    assert Path("out/photo/recovered.png").is_file()


@pytest.mark.parametrize("limit", [pytest.param(20_000, marks=pytest.mark.slow), 60_000])
def test_file_size_limit_gives_one_line(limit: int, folder: Path) -> None:
    """The system refuses whatever is written beyond a size, in the middle of a file and in TensorBoard's thread too."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = subprocess.run(
        [sys.executable, "-m", "dop_lightning", "recover", "photo.png", "--out", "out", *TINY, "--width", "8"],
        preexec_fn=limited,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 2
    assert re.match(r"dop recover: error: out/\S+: File too large$", process.stderr.splitlines()[-1])
    assert "Traceback" not in process.stderr
    assert not [name for name in listing(folder) if name.endswith(".tmp")]
    for path in (folder / "out").rglob("*.json"):
        json.loads(path.read_text())
    assert main(["recover", "photo.png", "--out", "out", *TINY, "--width", "8"]) == 0
