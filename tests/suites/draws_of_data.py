"""Strategies for files, noises, measurements and data modules with random settings."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from dop_lightning.images.formats import write_pixels
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, VectorDataModule
from dop_lightning.model.operators import (
    BoxBlur,
    CommutingMeasurements,
    Downsampling,
    GaussianBlur,
    GaussianMeasurements,
    MotionBlur,
)
from dop_lightning.problems.noise import (
    GaussianNoise,
    GrossOutliers,
    MissingEntries,
    Mixture,
    Occlusion,
    RandomValuedImpulse,
    SaltAndPepper,
)
from tests.suites.draws import (
    NO_COUNT,
    RARELY,
    RATIO,
    SIDE,
    Drawn,
    Part,
    count,
    of,
    one_or_several,
    parts,
    positive,
    sometimes,
    usually,
    word,
)

ADDED = [parts(GrossOutliers, {"ratio": RATIO}, std=positive(1.0, 10.0)), parts(GaussianNoise, {"std": positive(0.1)})]
MISSING = parts(MissingEntries, {"ratio": RATIO})
PER = word("entry", "pixel")
REPLACED = [
    parts(SaltAndPepper, {"ratio": RATIO}, per=PER, low=usually(of(0.0), of(2.0))),
    parts(RandomValuedImpulse, {"ratio": RATIO}, per=PER),
    parts(Occlusion, {"ratio": RATIO}, value=usually(of(0.5), of(math.nan))),
    parts(MissingEntries, {"ratio": RATIO}, per=PER),
]


def noises(*kinds: Drawn) -> Drawn:
    """Draw one noise, a mixture, a list, or none."""
    one = st.one_of(*kinds)
    mixed = st.lists(one, min_size=1, max_size=2).map(lambda both: Part(_mixture, {"parts": both}))
    return st.one_of(st.none(), one, one, one_or_several(one), mixed)


def _mixture(parts: Sequence[Part]) -> Mixture:
    return Mixture([part() for part in parts])


ARRAYS: dict[str, Callable[[np.random.Generator], Any]] = {
    "whole.npy": lambda random: random.standard_normal((6, 6)),
    "again.npy": lambda random: random.standard_normal((6, 6)),
    "wide.npy": lambda random: random.standard_normal((3, 9)).astype(np.float32),
    "one.npy": lambda random: np.ones((1, 1)),
    "zero.npy": lambda random: np.zeros((5, 4)),
    "gaps.npy": lambda random: np.where(random.random((7, 7)) < 0.3, np.nan, random.standard_normal((7, 7))),
    "huge.npy": lambda random: 1e30 * random.standard_normal((4, 4)).astype(np.float32),
    "larger.npy": lambda random: 1e300 * random.standard_normal((4, 4)),
    "tiny.npy": lambda random: 1e-40 * random.standard_normal((4, 4)),
    "counts.npy": lambda random: random.integers(0, 9, (5, 5)),
}
NO_MATRICES: dict[str, Callable[[np.random.Generator], Any]] = {
    "none.npy": lambda random: np.full((3, 3), np.nan),
    "infinite.npy": lambda random: np.full((3, 3), np.inf),
    "cube.npy": lambda random: np.zeros((2, 3, 4)),
    "empty.npy": lambda random: np.zeros((0, 3)),
}
PIXELS: dict[str, Callable[[np.random.Generator], Any]] = {
    "grey.png": lambda random: random.integers(0, 256, (8, 8, 1)).astype(np.uint8),
    "colour.png": lambda random: random.integers(0, 256, (16, 12, 3)).astype(np.uint8),
    "second.png": lambda random: random.integers(0, 256, (16, 12, 3)).astype(np.uint8),
    "black.png": lambda random: np.zeros((9, 8, 1), np.uint8),
    "dot.png": lambda random: np.full((1, 1, 1), 200, np.uint8),
    "thin.png": lambda random: random.integers(0, 256, (1, 16, 3)).astype(np.uint8),
    "floats.npy": lambda random: random.random((8, 9)).astype(np.float32),
    "doubles.npy": lambda random: random.random((8, 8, 3)),
    "bands.npy": lambda random: random.random((10, 11, 5)).astype(np.float32),
    "holes.npy": lambda random: np.where(random.random((10, 8)) < 0.3, np.nan, random.random((10, 8))),
    "beyond.npy": lambda random: 1e30 * random.random((8, 8)).astype(np.float32),
}
NO_IMAGES: dict[str, Callable[[np.random.Generator], Any]] = {
    "lost.npy": lambda random: np.full((8, 8), np.nan),
    "line.npy": lambda random: np.zeros(8),
}
ALL_FILES = [*ARRAYS, *NO_MATRICES, *PIXELS, *NO_IMAGES]


def write_files(folder: Path) -> None:
    """Write the files that configurations read: ``arrays`` and ``pixels`` in ``folder``."""
    random = np.random.default_rng(0)
    for kind, files in (("arrays", ARRAYS | NO_MATRICES), ("pixels", PIXELS | NO_IMAGES)):
        (folder / kind).mkdir(parents=True)
        for name, make in files.items():
            if name.endswith(".npy"):
                np.save(folder / kind / name, make(random))
            else:
                write_pixels(folder / kind / name, make(random).squeeze())


SEEDS = usually(of(1, 2, 3, [7, 2**40]), of(0, [5, 5], []), 30)
BATCH = usually(of(None, 1, 2), NO_COUNT)
GAUSSIAN = parts(
    GaussianMeasurements, {"measurements": count(1, 20)}, symmetric=of(False, True), storage=of("auto", "seeds")
)
FOR_MATRICES = st.one_of(GAUSSIAN, parts(CommutingMeasurements, {"measurements": count(1, 20)}))
BOUNDARY = word("reflect", "circular", "valid")
FOR_IMAGES = st.one_of(
    GAUSSIAN,
    parts(GaussianBlur, {"std": positive(0.5, 3.0)}, boundary=BOUNDARY),
    parts(BoxBlur, {"width": usually(of(1, 3, 9), of(2, 0))}, boundary=BOUNDARY),
    parts(MotionBlur, {"length": positive(1, 4.5)}, angle=of(30.0), boundary=BOUNDARY),
    parts(Downsampling, {"factor": usually(of(2, 4), of(1, 3))}, filter=word("bicubic", "gaussian", "box")),
)


SYNTHETIC = parts(
    MatrixDataModule,
    {"n": one_or_several(SIDE), "rank": usually(of(1, 1, 2), of(0, 13, 5)), "dtype": word("float32", "float64")},
    columns=sometimes(SIDE),
    noise=noises(*ADDED, MISSING),
    seeds=SEEDS,
    batch_size=BATCH,
    sensing=sometimes(one_or_several(FOR_MATRICES)),
    alphas=sometimes(usually(of(1.0, [0.5, 2.0]), of([], [1.0, 1.0], 0.0))),
)
MATRIX_FILES = parts(
    MatrixDataModule,
    {"files": st.lists(usually(of(*ARRAYS), of(*NO_MATRICES), 20), min_size=1, max_size=2)},
    noise=noises(*ADDED, MISSING),
    seeds=SEEDS,
    batch_size=BATCH,
    key=sometimes(of("x"), RARELY),
    sensing=sometimes(FOR_MATRICES, RARELY),
)
VECTORS = parts(
    VectorDataModule,
    {"n": SIDE, "nonzeros": usually(of(1), of(0, 13, 5)), "dtype": word("float32", "float64")},
    noise=noises(*ADDED, MISSING),
    seeds=SEEDS,
    batch_size=BATCH,
    sensing=sometimes(GAUSSIAN),
)
IMAGES = parts(
    ImageDataModule,
    {"images": st.lists(usually(of(*PIXELS), of(*NO_IMAGES), 20), min_size=1, max_size=2)},
    noise=noises(*REPLACED, *ADDED),
    seeds=SEEDS,
    batch_size=BATCH,
    resize=sometimes(usually(of(8, 13, [8, 10]), of(0, -1, [8])), 8),
    crop=sometimes(usually(of(8, [7, 9]), of(0, 100, [8, 9, 10])), 8),
    channels=usually(of("as_is"), of("grey", "rgb", "other"), 6),
    tile=sometimes(usually(of(8), of(4, 1.5)), 6),
    overlap=sometimes(of(0, 2, 8), 20),
    sensing=sometimes(FOR_IMAGES, 6),
    value_range=sometimes(usually(of((0.0, 1.0), (0, 255)), of((1.0, 0.0), (0.0, math.nan))), 8),
)
