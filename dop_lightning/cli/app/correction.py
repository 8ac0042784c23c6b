"""Convert a corrected map, painted with the brush, to masks of ``dop recover``.

Shapes: h×w pixels of the painted layer, H×W pixels of the photograph.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dop_lightning.foundation.atomic import atomic_bytes

NOTHING, DAMAGED, UNDAMAGED = 0, 1, 2
"""Values of a layer."""

LARGEST_LAYER = 2048
"""Maximum number of pixels per side of a layer; larger photographs are painted on at a smaller scale."""


def read_layer(data: bytes, height: int, width: int, shape: tuple[int, int]) -> np.ndarray:
    """Scale a painted layer to the size of the photograph.

    Args:
        data: ``h·w`` bytes, row by row, each :data:`NOTHING`, :data:`DAMAGED` or :data:`UNDAMAGED`.
        height: h.
        width: w.
        shape: (H, W).

    Returns:
        uint8 ``(H, W)``, by nearest neighbours.

    Raises:
        ValueError: the layer has the wrong size, the wrong number of bytes, or invalid values.
    """
    rows, columns = shape
    scale = min(1.0, LARGEST_LAYER / max(rows, columns))
    expected = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    if (height, width) != expected:
        raise ValueError(f"the layer must have {expected[1]}×{expected[0]} pixels, got {width}×{height}")
    if len(data) != height * width:
        raise ValueError(f"the layer must have {height * width} bytes, got {len(data)}")
    layer = np.frombuffer(data, dtype=np.uint8).reshape(height, width)
    if layer.max() > UNDAMAGED:
        raise ValueError(f"the layer must have values from 0 to {UNDAMAGED}, got {layer.max()}")
    from_rows = np.minimum((np.arange(rows) + 0.5) * height / rows, height - 1).astype(int)
    from_columns = np.minimum((np.arange(columns) + 0.5) * width / columns, width - 1).astype(int)
    return layer[from_rows][:, from_columns]


def write_masks(layer: np.ndarray, mask: Path, undamaged: Path) -> tuple[bool, bool]:
    """Write pixels painted as damaged as missing (black in ``mask``), and those painted as clean as ``undamaged``.

    Args:
        layer: ``(H, W)``, see :func:`read_layer`.
        mask: file for ``--mask``.
        undamaged: file for ``--undamaged``, white where painted as clean.

    Returns:
        Whether each of the two files was written; files without painted pixels are not.

    Raises:
        ValueError: all pixels are painted as damaged.
    """
    if (layer == DAMAGED).all():
        raise ValueError("the corrected map marks the whole photograph as damaged: leave some pixels unmarked")
    found = (bool((layer == DAMAGED).any()), bool((layer == UNDAMAGED).any()))
    if found[0]:
        _write(mask, layer != DAMAGED)
    if found[1]:
        _write(undamaged, layer == UNDAMAGED)
    return found


def _write(path: Path, flags: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.where(flags, 255, 0).astype(np.uint8)).save(buffer, format="PNG")
    atomic_bytes(path, buffer.getvalue())
