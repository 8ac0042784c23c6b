"""Tags of TIFF files: orientation, nodata value, resolution, and metadata."""

import math
from typing import Any

ORIENTATION, COLOUR_MAP, PROFILE, NODATA = 274, 320, 34675, 42113

GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
"""Tags of the georeference of pixels, which is wrong after cropping or resizing."""

_KEPT = (270, 271, 272, ORIENTATION, 285, 305, 306, 315, 316, 700, 33432, 33723, PROFILE, *GEOREFERENCE, 42112, NODATA)
"""Description, make, model, orientation, page name, software, date, artist, computer, XMP, copyright, IPTC, …, GDAL."""


def orientation_of(page: Any) -> int:
    """Return the orientation of the stored pixels, 1 … 8."""
    orientation = int(page.tags[ORIENTATION].value) if ORIENTATION in page.tags else 1
    return orientation if orientation in range(1, 9) else 1


def nodata_of(page: Any) -> float | None:
    """Return the value of GDAL's nodata tag, if it is a number."""
    if NODATA not in page.tags:
        return None
    try:
        nodata = float(str(page.tags[NODATA].value).strip("\0 "))
    except ValueError:
        return None  # some programs write text such as "none"
    return None if math.isnan(nodata) else nodata


def resolution_of(page: Any) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """Return the horizontal and vertical resolution as fractions, and their unit."""
    if 282 not in page.tags or 283 not in page.tags:
        return None
    across, down = page.tags[282].value, page.tags[283].value
    unit = int(page.tags[296].value) if 296 in page.tags else 2
    good = all(len(value) == 2 and min(value) > 0 for value in (across, down)) and unit in (1, 2, 3)
    return (tuple(across), tuple(down), unit) if good else None


def kept_tags(page: Any) -> list[tuple[int, int, int, Any]]:
    """Return the tags that are kept, as (code, type, count, value)."""
    kept: list[tuple[int, int, int, Any]] = []
    for code in _KEPT:
        tag = page.tags.get(code)
        if tag is None or tag.value is None:
            continue
        value: Any = tag.value
        if isinstance(value, str):
            if code == 270 and value.startswith('{"shape": '):
                continue  # written by tifffile to store the shape
            kept.append((code, 2, 0, value.encode()))
            continue
        count = len(value) if isinstance(value, bytes | tuple) else tag.count
        kept.append((code, int(tag.dtype), count, int(value) if code == ORIENTATION else value))
    return kept
