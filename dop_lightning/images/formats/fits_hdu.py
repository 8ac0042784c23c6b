"""Names of single HDUs of FITS files, with the syntax of cfitsio and IRAF.

``frame.fits[1]`` selects an HDU by number, ``frame.fits[SCI]`` by EXTNAME, ``frame.fits[SCI,2]`` by EXTNAME and EXTVER.
"""

import glob
import re
from pathlib import Path
from typing import NamedTuple

from dop_lightning.foundation.user_paths import user_path

FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz")

_BRACKETS = re.compile(r"(?P<file>.+\.(?:fits|fit|fts)(?:\.gz|\.fz)?)\[(?P<hdu>[^\[\]/]+)\]", re.IGNORECASE)


class HDUName(NamedTuple):
    """Selection of an HDU by number or name.

    Attributes:
        number: number of the HDU, 0 for the primary one; ``None`` to select by name.
        name: EXTNAME in upper case.
        version: EXTVER; ``None`` for any.
    """

    number: int | None
    name: str = ""
    version: int | None = None


def split_hdu(path: str | Path) -> tuple[Path, str]:
    """Split ``frame.fits[1]`` into the file and the text in brackets, which is empty without brackets.

    The path of an existing file whose name ends in brackets is not split.

    >>> file, hdu = split_hdu("frame.fits[SCI,1]")
    >>> file.name, hdu, split_hdu("photo[1].png")[1]
    ('frame.fits', 'SCI,1', '')
    """
    path = Path(path)
    match = _BRACKETS.fullmatch(path.name)
    if match is None or path.exists():
        return path, ""
    return path.with_name(match["file"]), match["hdu"].strip()


def split_pattern(entry: str | Path) -> tuple[str, str]:
    """Split a file, folder or pattern like :func:`split_hdu`.

    A pattern that matches files with its brackets, such as ``frame.fit[s]``, is not split.
    """
    text = str(entry)
    match = _BRACKETS.fullmatch(text)
    if match is None:
        return text, ""
    whole = user_path(text)
    matches = [name for name in glob.glob(str(whole)) if name.lower().endswith(FITS_SUFFIXES)]  # noqa: PTH207
    if whole.exists() or matches:
        return text, ""
    return match["file"], match["hdu"]


def parse_hdu(text: str) -> HDUName:
    """Parse the text in brackets.

    >>> parse_hdu("1")
    HDUName(number=1, name='', version=None)
    >>> parse_hdu("sci, 2")
    HDUName(number=None, name='SCI', version=2)
    """
    if text.isdecimal():
        return HDUName(int(text))
    name, _, version = text.rpartition(",")
    if name and version.strip().isdecimal():
        return HDUName(None, name.strip().upper(), int(version))
    return HDUName(None, text.strip().upper())
