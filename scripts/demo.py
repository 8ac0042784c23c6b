"""Restore a photograph with half of its values set to black or white, and write the result to demo/.

    make demo

The script corrupts a bundled photograph, then runs this command:

    dop recover demo/destroyed.png --truth data/astronaut.png --out demo/run --iterations 400
"""

import argparse
import csv
import shutil
import sys
from pathlib import Path

from dop_lightning.cli.main import main as dop
from dop_lightning.images.formats import find_images, read_image, write_image
from dop_lightning.problems.noise import SaltAndPepper
from dop_lightning.problems.randomness import stream


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", default="astronaut", help="a bundled photograph or a file; default: %(default)s")
    parser.add_argument("--ratio", type=float, default=0.5, help="fraction of corrupted values; default: %(default)s")
    parser.add_argument("--iterations", type=int, default=400, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="default: %(default)s")
    options = parser.parse_args()
    photo = find_images(options.photo)[0]
    clean, _, form = read_image(photo)
    options.out.mkdir(parents=True, exist_ok=True)
    destroyed = options.out / "destroyed.png"
    damage = SaltAndPepper(options.ratio).corrupt(clean, stream(0, "corruption"))
    write_image(destroyed, damage.observation, form)
    run = options.out / "run"
    if (run / "manifest.json").is_file():  # from a previous demo
        shutil.rmtree(run)
    command = ["recover", str(destroyed), "--truth", str(photo), "--out", str(run)]
    command += ["--iterations", str(options.iterations)]
    print(f"{options.ratio:.0%} of the values of {photo.name} were set to black or white: {destroyed}")
    print(f"dop {' '.join(command)}", flush=True)
    status = dop(command)
    if status:
        return status
    with (run / "results.csv").open(newline="") as file:
        result = next(csv.DictReader(file))
    gain = float(result["psnr"]) - float(result["input_psnr"])
    picture = options.out / "comparison.png"
    shutil.copy(run / "destroyed" / "comparison.png", picture)
    print(f"Gain: {gain:.1f} dB. Observation, result and corruption map: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
