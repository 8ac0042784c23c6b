"""Run `dop recover` on hundreds of damaged image files, and check that it never crashes, hangs or leaves stray files.

    python scripts/fuzz_images.py               # 500 files, minutes
    python scripts/fuzz_images.py --files 50 --seed 7 --keep /tmp/fuzz

Each file is a mutation of one of many formats: flipped bits, truncation, bytes overwritten, inserted or repeated, the
header of another format, or extreme numbers in the header. Each file runs in a separate process with limits on time and
memory. Two outcomes are allowed: a recovery (status 0), or a refusal with status 2, one line on stderr and no output
folder.
"""

import argparse
import io
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SECONDS = 120
"""Time limit in seconds; files of this size are recovered within seconds."""

MEMORY = 6 * 2**30
"""Maximum growth of the address space of a process, in bytes."""

OPTIONS = ["--width", "2", "--iterations", "2", "--device", "cpu", "--precision", "fp32"]


def pixels(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def by_pillow(array: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(array)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def by_tifffile(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def by_numpy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def by_numpy_zipped(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, image=array)
    return file.getvalue()


def bases() -> dict[str, bytes]:
    """Return a small file of each format."""
    exif = Image.Exif()
    exif[0x0112] = 6
    floats = np.random.default_rng(0).random((20, 24, 3), dtype=np.float32)
    grey, colour, clear = pixels(20, 24), pixels(20, 24, 3), pixels(20, 24, 4)
    return {
        "grey.png": by_pillow(grey, "PNG"),
        "rgb.png": by_pillow(colour, "PNG", exif=exif, icc_profile=b"x" * 200, dpi=(72, 72)),
        "rgba.png": by_pillow(clear, "PNG"),
        "palette.png": by_pillow(colour, "PNG", "P", transparency=3),
        "bits.png": by_pillow(grey, "PNG", "1"),
        "grey16.png": by_pillow(pixels(20, 24, dtype=np.uint16), "PNG"),
        "grey.jpg": by_pillow(grey, "JPEG"),
        "rgb.jpg": by_pillow(colour, "JPEG", exif=exif, progressive=True),
        "rgb.bmp": by_pillow(colour, "BMP"),
        "palette.bmp": by_pillow(colour, "BMP", "P"),
        "lossy.webp": by_pillow(colour, "WEBP"),
        "lossless.webp": by_pillow(clear, "WEBP", lossless=True, exif=exif),
        "grey.tif": by_pillow(grey, "TIFF"),
        "lzw.tif": by_pillow(colour, "TIFF", compression="tiff_lzw"),
        "jpeg.tif": by_pillow(colour, "TIFF", compression="jpeg"),
        "palette.tif": by_pillow(colour, "TIFF", "P"),
        "rgb16.tif": by_tifffile(pixels(20, 24, 3, dtype=np.uint16), photometric="rgb", compression="zlib"),
        "bands.tif": by_tifffile(floats.repeat(2, axis=2), photometric="minisblack", planarconfig="contig"),
        "pages.tif": by_tifffile(pixels(5, 20, 24), photometric="minisblack"),
        "tiled.tif": by_tifffile(pixels(40, 48), tile=(16, 16)),
        "float.npy": by_numpy(floats),
        "levels.npy": by_numpy(pixels(20, 24, dtype=np.uint16)),
        "archive.npz": by_numpy_zipped(floats),
    }


def flip(data: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(data)
    reach = len(data) if draw.random() < 0.5 else min(len(data), 128)
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        damaged[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def overwrite(data: bytes, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(data)), draw.randrange(1, 64)
    return data[:start] + draw.randbytes(length) + data[start + length :]


def extremes(data: bytes, draw: random.Random) -> bytes:
    number = draw.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF])
    form = draw.choice(["<I", ">I"]) if number > 0xFFFF else draw.choice(["<I", ">I", "<H", ">H"])
    start = draw.randrange(min(len(data), 200))
    return data[:start] + struct.pack(form, number) + data[start + struct.calcsize(form) :]


def another_header(others: list[bytes], data: bytes, draw: random.Random) -> bytes:
    length = draw.choice([4, 8, 12, 26, 64])
    return draw.choice(others)[:length] + data[length:]


def insert(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + draw.randbytes(draw.randrange(1, 32)) + data[start:]


def repeat(data: bytes, draw: random.Random) -> bytes:
    start, length = draw.randrange(len(data)), draw.randrange(1, 200)
    return data[: start + length] + data[start : start + length] + data[start + length :]


def mutations(files: list[bytes]) -> list[Callable[[bytes, random.Random], bytes]]:
    return [flip, flip, cut, overwrite, extremes, extremes, insert, repeat, partial(another_header, files)]


def recover(folder: Path, file: str) -> tuple[str, str]:
    """Run `dop recover` in a child process, and return its outcome and its output."""
    log = folder.with_suffix(".said")
    child = os.fork()
    if child == 0:
        status = 70
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(folder)
            in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
            from dop_lightning.cli.main import main

            status = main(["recover", file, "--out", "out", *OPTIONS])
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + SECONDS
    while True:
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs", log.read_text(errors="replace")
        time.sleep(0.002)
    text = log.read_text(errors="replace")
    log.unlink()
    return check_outcome(folder, file, os.waitstatus_to_exitcode(code), text), text


def check_outcome(folder: Path, file: str, status: int, text: str) -> str:
    """Return ``recovered``, ``refused``, or a description of the failure."""
    stray = {path.name for path in folder.iterdir()} - {file, "out"}
    if "Traceback" in text:
        return "traceback"
    if stray:
        return f"stray files {sorted(stray)}"
    if status == 0:
        return "recovered" if (folder / "out" / Path(file).stem / "result.json").is_file() else "no result"
    if status != 2:
        return f"status {status}"
    if not text.startswith("dop recover: error: ") or text.count("\n") != 1:
        return "more than one line"
    return "half-written output" if (folder / "out").exists() else "refused"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="keep failing files in this folder")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    import dop_lightning.cli.configs.recover  # noqa: F401 — import once for all children

    files = bases()
    draw = random.Random(options.seed)
    outcomes: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(options.files):
        name = list(files)[number % len(files)]
        mutation = draw.choice(mutations(list(files.values())))
        data = mutation(files[name], draw)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "work"
            folder.mkdir()
            (folder / name).write_bytes(data)
            outcome, log = recover(folder, name)
        outcomes[outcome] += 1
        if outcome not in ("recovered", "refused"):
            print(
                f"{number}: {name} by {getattr(mutation, '__name__', 'another header')}: {outcome}\n{log[-2000:]}",
                flush=True,
            )
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{number}-{name}").write_bytes(data)
    bad = sum(count for outcome, count in outcomes.items() if outcome not in ("recovered", "refused"))
    print(f"{options.files} files in {time.monotonic() - began:.0f} s: {dict(outcomes)}; {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
