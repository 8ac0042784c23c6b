"""Measure time, CPU time, peak memory, first preview and Ctrl-C of `dop recover` on a large photograph.

    python scripts/measure_large.py                                      # 4000×3000, preset instant
    python scripts/measure_large.py --damage hot
    python scripts/measure_large.py --size 6000 4000 --preset default --stop 60     # Ctrl-C after a minute

The photograph is a mosaic of full-resolution crops of 400×300 pixels of the colour photographs of scikit-image. The
damage is 30 % salt and pepper (`salt`), or 0.5 % hot values, independently per channel (`hot`). Needs Linux.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

CELL = (300, 400)
"""(H, W) of a crop; all photographs are at least as large."""

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field")

PAUSE = 0.05
"""Seconds between two polls of the process."""


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return ``(height, width, 3)``, uint8: crops of :data:`PHOTOGRAPHS`, half of them mirrored."""
    from skimage import data

    rng = np.random.default_rng(seed)
    photos = [np.asarray(getattr(data, name)())[..., :3] for name in PHOTOGRAPHS]
    whole = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, CELL[0]):
        for left in range(0, width, CELL[1]):
            photo = photos[rng.integers(len(photos))]
            row, column = (int(rng.integers(photo.shape[axis] - CELL[axis] + 1)) for axis in (0, 1))
            crop = photo[row : row + CELL[0], column : column + CELL[1]]
            crop = crop[:, ::-1] if rng.integers(2) else crop
            place = whole[top : top + CELL[0], left : left + CELL[1]]
            place[:] = crop[: place.shape[0], : place.shape[1]]
    return whole


def damaged(clean: np.ndarray, damage: str, seed: int = 1) -> np.ndarray:
    """Return the photograph with ``salt``, 30 % of its values 0 or 255, or ``hot``, 0.5 % of them from 200 to 255."""
    rng = np.random.default_rng(seed)
    found = clean.copy()
    places = rng.random(clean.shape, dtype=np.float32) < (0.3 if damage == "salt" else 0.005)
    count = int(places.sum())
    found[places] = 255 * rng.integers(2, size=count) if damage == "salt" else rng.integers(200, 256, size=count)
    return found


def peak_memory(pid: int) -> int:
    """Return the peak memory of a process so far in bytes, or 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0]) if "VmHWM:" in status else 0


def modified(path: Path) -> int:
    """Return the modification time of a file, or 0 if it has been removed."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Return the PSNR of uint8 images in dB."""
    error = np.mean([np.square(a.astype(np.float32) - b).mean() for a, b in zip(image, clean, strict=True)])
    return float(10 * np.log10(255**2 / error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/measure_large"))
    parser.add_argument("--size", type=int, nargs=2, default=(4000, 3000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--damage", choices=("salt", "hot"), default="salt")
    parser.add_argument("--preset", default="instant")
    parser.add_argument("--stop", type=float, metavar="SECONDS", help="send SIGINT (Ctrl-C) after this time")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="options of dop recover; must be last")
    options = parser.parse_args()

    width, height = options.size
    load = os.getloadavg()[0]
    run = options.out / f"{options.preset}-{options.damage}-{width}x{height}"
    if run.exists():
        parser.error(f"{run} must not exist; remove it, or pass --out")
    clean = photograph(height, width)
    photo = options.out / f"{options.damage}-{width}x{height}.png"
    photo.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(damaged(clean, options.damage)).save(photo, compress_level=1)

    command = [sys.executable, "-m", "dop_lightning", "recover", str(photo), "--out", str(run)]
    command += ["--preset", options.preset, *options.options]
    start = time.monotonic()
    process = subprocess.Popen(command)
    peak, stopped = 0, 0.0
    seen: dict[str, float] = {}
    previews: set[int] = set()
    while process.poll() is None:
        now = time.monotonic() - start
        peak = max(peak, peak_memory(process.pid))
        for label, pattern in (("first preview", "*/preview.png"), ("first tile", "*/tiles/*/result.json")):
            if label not in seen and run.is_dir() and next(run.glob(pattern), None) is not None:
                seen[label] = now
        previews |= {stamp for path in run.glob("*/preview.png") if (stamp := modified(path))}
        if options.stop is not None and now >= options.stop and not stopped:
            stopped = now
            os.kill(process.pid, signal.SIGINT)
        time.sleep(PAUSE)
    seconds = time.monotonic() - start
    print(f"{width}×{height}, {options.damage}, {options.preset}: exit status {process.returncode}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime  # depends less on other processes
    print(f"{seconds:.1f} s, CPU time {cpu:.1f} s, peak memory {peak / 2**30:.2f} GiB, load {load:.1f} before")
    for label, when in seen.items():
        print(f"{label} after {when:.1f} s")
    print(f"{len(previews)} previews")
    if stopped:
        print(f"Ctrl-C after {stopped:.1f} s took {seconds - stopped:.1f} s")
    recovered = run / photo.stem / "recovered.png"
    if recovered.is_file():
        with Image.open(recovered) as image:
            print(f"PSNR {psnr(np.array(image), clean):.2f} dB")


if __name__ == "__main__":
    main()
