"""Check that the first look finds no outliers near their surroundings in undamaged pictures.

    python scripts/check_first_look.py

The pictures are three crops of 256x256 pixels of each picture of scikit-image, without and with normal noise, and as
JPEG files. The exit status is 1 if the distance beyond which entries are far is reduced in one of them.
"""

import argparse
import io
import sys
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import first_look
from dop_lightning.engine.steps.clean_entries.values import FAR_DISTANCE

NAMES = (
    *("astronaut", "binary_blobs", "brick", "camera", "cell", "checkerboard", "chelsea", "clock", "coffee", "coins"),
    *("colorwheel", "grass", "gravel", "horse", "hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms"),
    *("moon", "page", "retina", "rocket", "shepp_logan_phantom", "stereo_motorcycle", "text"),
)
SIDE = 256
PLACES = (0.0, 0.5, 1.0)
NOISES = (0.02, 0.05, 0.1)
QUALITY = 60


def picture(name: str) -> np.ndarray:
    """Return a picture of scikit-image, ``(H, W, C)``, in [0, 1]."""
    from skimage import data

    found = data.binary_blobs(rng=0) if name == "binary_blobs" else getattr(data, name)()
    values = np.asarray(found[0] if isinstance(found, tuple) else found)
    values = values[..., :3] if values.ndim == 3 else values[..., None]
    return values.astype(np.float32) / (255 if values.max() > 1 else 1)


def versions(values: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    """Yield a crop ``(C, H, W)`` without noise, with noise, and as a JPEG file."""
    clean = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
    yield "clean", clean
    for noise in NOISES:
        grain = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        yield f"noise {noise}", (clean + noise * grain).clamp(0, 1)
    file = io.BytesIO()
    Image.fromarray((255 * values).round().astype(np.uint8).squeeze()).save(file, "JPEG", quality=QUALITY)
    decoded = np.asarray(Image.open(file), dtype=np.float32).reshape(values.shape) / 255
    yield "JPEG", torch.from_numpy(decoded.transpose(2, 0, 1).copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", default=NAMES, metavar="NAME")
    options = parser.parse_args()
    count = wrong = 0
    for name in options.names:
        whole = picture(name)
        for place in PLACES:
            top, left = (int(place * max(0, length - SIDE)) for length in whole.shape[:2])
            for label, y in versions(whole[top : top + SIDE, left : left + SIDE]):
                look = first_look(y)
                count += 1
                if look.distance < FAR_DISTANCE:
                    wrong += 1
                    print(f"{name}, crop at {place}, {label}: {look.distance:.3f}, {look.share:.2f} of them outliers")
    print(f"{count - wrong} of {count} keep the distance {FAR_DISTANCE}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
