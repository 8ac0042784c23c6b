"""Create the photographs of `data/` from those of scikit-image: crop, resize (Lanczos), save as PNG.

    python scripts/make_samples.py

The pictures are free of copyright; `data/README.md` lists their sources.
"""

from pathlib import Path
from typing import NamedTuple

import skimage.data
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "data"


class Sample(NamedTuple):
    box: tuple[int, int, int, int]  # crop (left, top, right, bottom) in pixels of the original
    size: tuple[int, int]  # (width, height) of the sample


SAMPLES = {
    "astronaut": Sample(box=(24, 0, 352, 328), size=(128, 128)),
    "camera": Sample(box=(20, 20, 468, 468), size=(128, 128)),
    "chelsea": Sample(box=(30, 0, 428, 300), size=(150, 113)),
    "coffee": Sample(box=(80, 0, 480, 400), size=(128, 128)),
    "rocket": Sample(box=(106, 0, 533, 427), size=(128, 128)),
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (box, size) in SAMPLES.items():
        original = Image.fromarray(getattr(skimage.data, name)())
        sample = original.resize(size, Image.Resampling.LANCZOS, box=box)
        path = FOLDER / f"{name}.png"
        sample.save(path, optimize=True)
        print(f"{path.name}: {sample.height}×{sample.width} {sample.mode}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
