"""Find images by file, folder, pattern, or name of a bundled photograph."""

from pathlib import Path

from dop_lightning.foundation.bundled import bundled_folder
from dop_lightning.foundation.find import Patterns, find_files
from dop_lightning.images.formats.fits_hdu import FITS_SUFFIXES, split_hdu, split_pattern

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".npy", ".npz"),
    *FITS_SUFFIXES,
)


def sample_folder() -> Path:
    """Return the folder of the bundled photographs: inside an installed package, or ``data/`` of a checkout."""
    return bundled_folder("samples", "data")


def sample_names() -> list[str]:
    """Return the names of the bundled photographs, which :func:`find_images` accepts.

    >>> sample_names()
    ['astronaut', 'camera', 'chelsea', 'coffee', 'rocket']
    """
    return sorted(path.stem for path in sample_folder().glob("*.png"))


def find_images(patterns: Patterns) -> list[Path]:
    """List the images of ``patterns``: files, folders, patterns with ``*``, and names of samples.

    See :func:`~dop_lightning.foundation.find.find_files`; folders and patterns match files with one of
    ``IMAGE_SUFFIXES``. ``frame.fits[1]`` and ``*.fits[SCI]`` select one HDU of a FITS file; the returned paths end in
    the same brackets.

    Raises:
        ValueError: an entry matches no image.

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
    """Return the name of an image: the file name without suffix, followed by the HDU if the path selects one.

    >>> image_name(Path("night/frame.fits[SCI,1]")), image_name(Path("photo.png"))
    ('frame[SCI,1]', 'photo')
    """
    file, hdu = split_hdu(path)
    return f"{file.stem}[{hdu}]" if hdu else path.stem
