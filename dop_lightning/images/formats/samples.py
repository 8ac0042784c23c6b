"""The images a user means: files, folders, patterns, and the photographs that come with the package."""

from pathlib import Path

from dop_lightning.foundation.bundled import bundled_folder
from dop_lightning.foundation.find import Patterns, find_files

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy", ".npz"),
    *(".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz"),
)


def sample_folder() -> Path:
    """Where the bundled photographs are: inside an installed package, in ``data/`` of a checkout."""
    return bundled_folder("samples", "data")


def sample_names() -> list[str]:
    """The names by which :func:`find_images` knows the bundled photographs.

    >>> sample_names()
    ['astronaut', 'camera', 'chelsea', 'coffee', 'rocket']
    """
    return sorted(path.stem for path in sample_folder().glob("*.png"))


def find_images(patterns: Patterns) -> list[Path]:
    """List the images that ``patterns`` name: files, folders, patterns with ``*``, names of samples.

    See :func:`~dop_lightning.foundation.find.find_files`; folders and patterns give files with one of
    ``IMAGE_SUFFIXES``.

    Raises:
        ValueError: an entry names nothing.

    >>> [path.name for path in find_images(["camera", "coffee"])]
    ['camera.png', 'coffee.png']
    """
    folder = sample_folder()
    return find_files(patterns, IMAGE_SUFFIXES, {name: folder / f"{name}.png" for name in sample_names()})
