"""The corrected map of a photograph: what the brush has painted, as the masks of ``dop recover``.

Shapes: h×w the layer that the page paints on, H×W the photograph.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dop_lightning.foundation.atomic import write_atomically

NOTHING, DAMAGED, UNDAMAGED = 0, 1, 2
"""Values of a layer."""

LARGEST_LAYER = 2048
"""Most pixels of a side of a layer; photographs that are larger are painted on at a smaller scale."""


def read_layer(data: bytes, height: int, width: int, shape: tuple[int, int]) -> np.ndarray:
    """Return a painted layer at the size of the photograph.

    Args:
        data: ``h·w`` bytes, row by row, each one of :data:`NOTHING`, :data:`DAMAGED` and :data:`UNDAMAGED`.
        height: h.
        width: w.
        shape: (H, W).

    Returns:
        uint8 ``(H, W)``, the nearest pixel of the layer each.

    Raises:
        ValueError: the layer has another number of bytes, other values or other proportions.
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
    """Write what is painted as damaged as missing (black in ``mask``), and the rest as white in ``undamaged``.

    Args:
        layer: ``(H, W)``, see :func:`read_layer`.
        mask: file of ``--mask``.
        undamaged: file of ``--undamaged``.

    Returns:
        Whether each of the two files was written; a file without any painted pixel is not.

    Raises:
        ValueError: all pixels are painted as damaged.
    """
    if (layer == DAMAGED).all():
        raise ValueError("the corrected map marks the whole photograph as damaged: leave some pixels to go by")
    found = (bool((layer == DAMAGED).any()), bool((layer == UNDAMAGED).any()))
    if found[0]:
        _write(mask, layer != DAMAGED)
    if found[1]:
        _write(undamaged, layer == UNDAMAGED)
    return found


def _write(path: Path, flags: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.where(flags, 255, 0).astype(np.uint8)).save(buffer, format="PNG")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
