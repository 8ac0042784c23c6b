"""Replace the values of an image: round them, use the colours of its palette, and avoid its transparent colour.

Shapes: H × W pixels, C channels, n colours of a palette.
"""

from dataclasses import replace

import numpy as np

from dop_lightning.images.formats.raster import Palette, Raster

_PIXELS_AT_ONCE = 1 << 14
"""Number of pixels at a time: the distances to all colours of a palette are 256 numbers per pixel."""


def repaint(raster: Raster, colours: np.ndarray, kept: np.ndarray | None = None) -> Raster:
    """Replace the colours of an image by ``colours``, and keep everything else.

    Integers are rounded and clipped to their bits. With a palette, each pixel gets the nearest colour among the entries
    with its alpha; its current entry is preferred if it is equally near. Pixels with the transparent colour keep it,
    and other pixels that would equal it are changed by one level. Samples with the ``nodata`` value keep it.

    Args:
        raster: the image.
        colours: ``(H, W, C)``, finite, in the units of the file.
        kept: bool ``(H, W, C)``, true for unchanged values, whose samples are kept bit for bit.
    """
    if raster.palette is not None:
        return replace(raster, samples=_palette_indices(raster.samples, raster.palette, colours))
    samples = quantised(colours, raster)
    if kept is not None:
        samples = np.where(kept, raster.samples, samples)
    if raster.key is not None:
        samples = _avoid_key_colour(samples, raster, raster.key)
    if raster.nodata is not None:
        samples = np.where(raster.has_nodata(), raster.samples, samples)
    return replace(raster, samples=samples)


def quantised(colours: np.ndarray, raster: Raster) -> np.ndarray:
    """Convert values in the units of the file, of any shape, to the number format and the bits of an image."""
    dtype = raster.samples.dtype
    low, high = raster.limits
    if dtype.kind == "f":
        return np.clip(colours, low, high).astype(dtype)
    rounded = np.rint(colours)
    # The largest 64-bit integers are not floats: 2^63 − 1 and 2^64 − 1 would be rounded up and wrap around.
    top = rounded >= float(high)
    samples = np.where(top, 0.0, np.maximum(rounded, float(low))).astype(dtype)
    samples[top] = high
    return samples


def _palette_indices(samples: np.ndarray, entries_of: Palette, colours: np.ndarray) -> np.ndarray:
    palette = entries_of.colours.astype(np.float32)  # (n, 3)
    alphas = np.full(len(palette), 255, dtype=np.uint8) if entries_of.alphas is None else entries_of.alphas
    pixels = np.clip(np.rint(colours), 0, 255).astype(np.float32).reshape(-1, 3)
    own = samples.reshape(-1)
    result = own.copy()
    for alpha in np.unique(alphas[own]):
        entries = np.flatnonzero(alphas == alpha)
        chosen = np.flatnonzero(alphas[own] == alpha)
        for start in range(0, len(chosen), _PIXELS_AT_ONCE):
            part = chosen[start : start + _PIXELS_AT_ONCE]
            # Squared distances up to a constant per pixel; exact in float32, since they are integers up to 255².
            distances = (palette[entries] ** 2).sum(1) - 2 * pixels[part] @ palette[entries].T  # (pixels, entries)
            nearest = entries[distances.argmin(1)]
            kept = palette[own[part]]
            as_near = (kept**2).sum(1) - 2 * (kept * pixels[part]).sum(1) <= distances.min(1)
            result[part] = np.where(as_near, own[part], nearest)
    return result.reshape(samples.shape)


def _avoid_key_colour(samples: np.ndarray, raster: Raster, key: tuple[int, ...]) -> np.ndarray:
    keyed = raster.has_key()  # (H, W)
    hits = (samples == np.array(key)).all(axis=2) & ~keyed
    samples = np.where(keyed[..., None], raster.samples, samples)
    neighbour = key[-1] - 1 if key[-1] > 0 else 1
    samples[hits, -1] = neighbour
    return samples
