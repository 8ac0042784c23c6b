"""The images a user means: files, folders, patterns, and the photographs that come with the package."""

from pathlib import Path

from dop_lightning.foundation.bundled import bundled_folder
from dop_lightning.foundation.find import Patterns, find_files
from dop_lightning.images.formats.fits_hdu import FITS_SUFFIXES, split_hdu, split_pattern

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy", ".npz"),
    *FITS_SUFFIXES,
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
    ``IMAGE_SUFFIXES``. ``frame.fits[1]`` and ``*.fits[SCI]`` name one HDU of a FITS file: the paths returned end in
    the same brackets.

    Raises:
        ValueError: an entry names nothing.

    >>> [path.name for path in find_images(["camera", "coffee"])]
    ['camera.png', 'coffee.png']
    """
    folder = sample_folder()
    samples = {name: folder / f"{name}.png" for name in sample_names()}
    entries = [patterns] if isinstance(patterns, str | Path) else list(patterns)
    split = [split_pattern(entry) for entry in entries]
    if not any(hdu for _, hdu in split):
        return find_files(entries, IMAGE_SUFFIXES, samples)
    found: dict[Path, Path] = {}
    for entry, hdu in split:
        for file in find_files(entry, IMAGE_SUFFIXES, samples):
            path = file.with_name(f"{file.name}[{hdu}]") if hdu else file
            found.setdefault(path.absolute(), path)
    return list(found.values())


def image_name(path: Path) -> str:
    """Return the name of an image: that of its file without suffix, and the HDU where the path names one.

    >>> image_name(Path("night/frame.fits[SCI,1]")), image_name(Path("photo.png"))
    ('frame[SCI,1]', 'photo')
    """
    file, hdu = split_hdu(path)
    return f"{file.stem}[{hdu}]" if hdu else path.stem
