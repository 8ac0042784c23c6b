"""Name one HDU of a FITS file, as cfitsio and IRAF do.

``frame.fits[1]`` is an HDU by its number, ``frame.fits[SCI]`` by EXTNAME, ``frame.fits[SCI,2]`` by EXTNAME and EXTVER.
"""

import glob
import re
from pathlib import Path
from typing import NamedTuple

from dop_lightning.foundation.user_paths import user_path

FITS_SUFFIXES = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz")

_BRACKETS = re.compile(r"(?P<file>.+\.(?:fits|fit|fts)(?:\.gz|\.fz)?)\[(?P<hdu>[^\[\]/]+)\]", re.IGNORECASE)


class HDUName(NamedTuple):
    """Which HDU of a file is meant, by its number or by its name.

    Attributes:
        number: counted from 0, the primary HDU.
        name: EXTNAME, in upper case.
        version: EXTVER; ``None`` for any.
    """

    number: int | None
    name: str = ""
    version: int | None = None


def split_hdu(path: str | Path) -> tuple[Path, str]:
    """Split ``frame.fits[1]`` into the file and the text in the brackets, empty without brackets.

    A file whose name really ends in brackets is itself.

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
    """Split an entry of a list of files: :func:`split_hdu` of a file, a folder or a pattern.

    A pattern that matches files as a whole is itself: ``frame.fit[s]``.
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
    """Parse the text in the brackets.

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
