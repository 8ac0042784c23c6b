"""Pack samples of fewer than 8 bits, as in PNG and BMP: several per byte, the first in the highest bits.

Shapes: H × W pixels.
"""

import numpy as np


def pack_rows(samples: np.ndarray, bits: int) -> np.ndarray:
    """Pack the samples of each row, and pad its last byte with 0.

    Args:
        samples: ``(H, W)``, less than 2^bits.
        bits: 1, 2, 4 or 8.

    Returns:
        ``(H, ⌈W·bits/8⌉)``, uint8.

    >>> pack_rows(np.array([[1, 0, 3, 2, 1]]), 2).tolist()
    [[78, 64]]
    """
    each = 8 // bits
    samples = np.pad(samples.astype(np.uint8), ((0, 0), (0, -samples.shape[1] % each)))
    grouped = samples.reshape(len(samples), -1, each)  # (H, bytes, samples of a byte)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return np.bitwise_or.reduce(grouped << shifts, axis=2)
