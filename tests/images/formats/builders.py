"""Image files of every kind, made without the code that reads them."""

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

Write = Callable[[Path, int, int], None]


def ramp(height: int, width: int, channels: int = 1, dtype: Any = np.uint8, top: float = 255) -> np.ndarray:
    """``(H, W, C)``: from 0 to ``top`` in rows and columns, another way in each channel, with a little noise."""
    rows, columns = np.mgrid[:height, :width]
    planes = []
    for k in range(channels):
        slope = (rows * (1 + k) + columns * (1 + k % 2)).astype(float)
        plane = slope / max(1, slope.max())
        planes.append(1 - plane if k % 2 else plane)
    values = np.stack(planes, axis=2) * 0.96 + np.random.default_rng(height).random((height, width, channels)) * 0.04
    return np.rint(values * top).astype(dtype) if np.dtype(dtype).kind in "iu" else (values * top).astype(dtype)


def half_transparent(height: int, width: int, dtype: Any = np.uint8) -> np.ndarray:
    """``(H, W)``: invisible above the diagonal, and of every level below; the last pixel is visible."""
    alpha = ramp(height, width, dtype=dtype, top=np.iinfo(dtype).max)[..., 0]
    rows, columns = np.mgrid[:height, :width]
    alpha[columns > rows * width / height] = 0
    alpha[-1, -1] = 7
    return alpha


def colours(n: int) -> np.ndarray:
    """``(n, 3)``, no two of them equal."""
    return np.stack([(np.arange(n) * step + 11) % 256 for step in (1, 7, 83)], axis=1).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------- PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of ``(H, W, S)``; ``chunks`` come before the pixels."""
    passes = [(0, 0, 1, 1)]
    if interlaced:  # first row, first column, and steps, of Adam7
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    data = b""
    for top, left, down, across in passes:
        part = samples[top::down, left::across]
        if part.size:
            data += b"".join(b"\0" + packed(row, depth) for row in part)
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    middle = b"".join(chunks)
    return SIGNATURE + chunk(b"IHDR", header) + middle + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def packed(row: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def _png(depth: int, colour: int, key: bool = False, **options: Any) -> Write:
    channels = {GREY: 1, GREY_ALPHA: 1, RGB: 3, RGB_ALPHA: 3}[colour]
    dtype = np.uint16 if depth == 16 else np.uint8

    def write(path: Path, height: int, width: int) -> None:
        samples = ramp(height, width, channels, dtype, 60000 if depth == 16 else 2**depth - 1)
        chunks = []
        if colour in (GREY_ALPHA, RGB_ALPHA):
            samples = np.dstack([samples, half_transparent(height, width, dtype)])
        if key:
            levels = samples[0, 0] if samples.size > channels else 1 - samples[0, 0] % 2
            chunks = [chunk(b"tRNS", levels.astype(">u2").tobytes())]
        path.write_bytes(png(samples, depth, colour, *chunks, **options))

    return write


def _png_palette(depth: int, alphas: bytes = b"", n: int | None = None, **options: Any) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        table = colours(n or 2**depth)
        indices = ramp(height, width, 1, np.uint8, len(table) - 1)
        indices[0, 0], indices[-1, -1] = 0, len(table) - 1
        chunks = [chunk(b"PLTE", table.tobytes()), *([chunk(b"tRNS", alphas)] if alphas else [])]
        path.write_bytes(png(indices, depth, PALETTE, *chunks, **options))

    return write


# ---------------------------------------------------------------------------------------------------------------- BMP


def bmp(rows: np.ndarray, width: int, bits: int, table: bytes = b"", masks: bytes = b"") -> bytes:
    """A BMP of packed rows ``(H, bytes)``, from the top down."""
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    offset = 54 + len(masks) + len(table)
    header = struct.pack(
        "<IiiHHIIiiII", 40 + len(masks), width, -len(rows), 1, bits, 3 * bool(masks), 0, 2835, 2834, 0, 0
    )
    return b"BM" + struct.pack("<IHHI", offset + rows.size, 0, 0, offset) + header + masks + table + rows.tobytes()


def _bmp_palette(bits: int) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        indices = ramp(height, width, 1, np.uint8, 2**bits - 1)
        rows = np.stack([np.frombuffer(packed(row, bits), np.uint8) for row in indices])
        table = np.pad(colours(2**bits)[:, ::-1], ((0, 0), (0, 1))).tobytes()
        path.write_bytes(bmp(rows, width, bits, table))

    return write


def _bmp_alpha(path: Path, height: int, width: int) -> None:
    pixels = np.dstack([ramp(height, width, 3), half_transparent(height, width)])
    masks = struct.pack("<IIII4s48x", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
    path.write_bytes(bmp(pixels[..., [2, 1, 0, 3]].reshape(height, -1), width, 32, masks=masks))


# ------------------------------------------------------------------------------------------------------ the other kinds


def _pillow(mode: str, **options: Any) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        if mode == "1":
            image = Image.fromarray(ramp(height, width)[..., 0] > 127)
        else:
            samples = ramp(height, width, 1 if mode == "L" else 3)
            if mode == "RGBA":
                samples = np.dstack([samples, half_transparent(height, width)])
            image = Image.fromarray(samples[..., 0] if mode == "L" else samples)
        image.save(path, **options)

    return write


def _tiff(
    dtype: Any, channels: int = 1, top: float = 1.0, alpha: bool = False, separate: bool = False, **o: Any
) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        samples = ramp(height, width, channels, dtype, top)
        if np.dtype(dtype).kind == "b":
            samples = ramp(height, width, channels) > 127
        if alpha:
            samples = np.dstack([samples, half_transparent(height, width, dtype)])
        options = {"photometric": "rgb" if channels == 3 else "minisblack", "metadata": None, **o}
        if samples.shape[2] == 1:
            tifffile.imwrite(path, samples[..., 0], **options)
            return
        options["planarconfig"] = "separate" if separate else "contig"
        tifffile.imwrite(path, np.moveaxis(samples, 2, 0) if separate else samples, **options)

    return write


def _tiff_pages(dtype: Any, channels: int, top: float, **options: Any) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        samples = ramp(height, width, channels, dtype, top)
        with tifffile.TiffWriter(path) as writer:
            for k in range(channels):
                writer.write(samples[..., k], photometric="minisblack", metadata=None, contiguous=False, **options)

    return write


def _tiff_palette(bits: int, **options: Any) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        indices = ramp(height, width, 1, np.uint8, 2**bits - 1)[..., 0]
        table = (colours(2**bits).T.astype(np.uint16) * 257).ravel()
        indices = indices.astype(bool) if bits == 1 else indices
        coding = {"bitspersample": bits} if 1 < bits < 8 else options
        tags = [(320, 3, table.size, table, True)]
        tifffile.imwrite(path, indices, photometric="palette", metadata=None, extratags=tags, **coding)

    return write


def _numpy(
    dtype: Any, axes: str, channels: int = 3, top: float = 1.0, order: Any = "C", key: str = "", **o: Any
) -> Write:
    def write(path: Path, height: int, width: int) -> None:
        samples = ramp(height, width, channels, np.dtype(dtype).newbyteorder("="), top)
        if np.dtype(dtype).kind == "b":
            samples = ramp(height, width, channels) > 127
        array = {"HW": samples[..., 0], "HWC": samples, "CHW": np.moveaxis(samples, 2, 0)}[axes]
        array = np.asarray(array, dtype=dtype, order=order)
        with path.open("wb") as file:
            if key:
                compression = zipfile.ZIP_DEFLATED if o.get("compressed") else zipfile.ZIP_STORED
                with zipfile.ZipFile(file, "w", compression) as archive, archive.open(f"{key}.npy", "w") as member:
                    np.save(member, array)
            else:
                np.save(file, array)

    return write


KINDS: dict[str, tuple[str, Write]] = {
    **{f"png-grey-{depth}": (".png", _png(depth, GREY)) for depth in (1, 2, 4, 8, 16)},
    **{f"png-grey-{depth}-key": (".png", _png(depth, GREY, key=True)) for depth in (1, 2, 4, 8, 16)},
    **{f"png-rgb-{depth}": (".png", _png(depth, RGB)) for depth in (8, 16)},
    **{f"png-rgb-{depth}-key": (".png", _png(depth, RGB, key=True)) for depth in (8, 16)},
    **{f"png-grey-alpha-{depth}": (".png", _png(depth, GREY_ALPHA)) for depth in (8, 16)},
    **{f"png-rgb-alpha-{depth}": (".png", _png(depth, RGB_ALPHA)) for depth in (8, 16)},
    **{f"png-palette-{depth}": (".png", _png_palette(depth)) for depth in (1, 2, 4, 8)},
    **{f"png-palette-{depth}-alpha": (".png", _png_palette(depth, b"\0\x80")) for depth in (1, 2, 4, 8)},
    "png-palette-of-200": (".png", _png_palette(8, bytes(range(0, 250, 25)), n=200)),
    **{f"png-interlaced-{depth}": (".png", _png(depth, GREY, interlaced=True)) for depth in (1, 4, 16)},
    "png-interlaced-rgb": (".png", _png(8, RGB, interlaced=True)),
    "png-interlaced-rgb-alpha-16": (".png", _png(16, RGB_ALPHA, interlaced=True)),
    "png-interlaced-palette": (".png", _png_palette(4, interlaced=True)),
    "jpeg-grey": (".jpg", _pillow("L")),
    "jpeg-rgb": (".jpg", _pillow("RGB")),
    "webp-lossless": (".webp", _pillow("RGB", lossless=True)),
    "webp-lossless-alpha": (".webp", _pillow("RGBA", lossless=True, exact=True)),
    "webp-lossy": (".webp", _pillow("RGB", quality=60)),
    "webp-lossy-alpha": (".webp", _pillow("RGBA", quality=60)),
    "bmp-1": (".bmp", _pillow("1")),
    "bmp-grey": (".bmp", _pillow("L")),
    "bmp-rgb": (".bmp", _pillow("RGB")),
    "bmp-rgb-alpha": (".bmp", _bmp_alpha),
    **{f"bmp-palette-{bits}": (".bmp", _bmp_palette(bits)) for bits in (1, 4, 8)},
    "tiff-bool": (".tif", _tiff(bool)),
    "tiff-bool-white-is-0": (".tif", _tiff(bool, photometric="miniswhite", compression="packbits")),
    "tiff-uint8": (".tif", _tiff("u1", top=255)),
    "tiff-uint8-white-is-0": (".tif", _tiff("u1", top=255, photometric="miniswhite")),
    "tiff-uint16-white-is-0": (".tif", _tiff("u2", top=60000, photometric="miniswhite", compression="lzw")),
    "tiff-uint8-4-bits": (".tif", _tiff("u1", top=15, bitspersample=4)),
    "tiff-uint16-12-bits": (".tif", _tiff("u2", 3, top=4095, bitspersample=12)),
    "tiff-uint8-rgb-lzw": (".tif", _tiff("u1", 3, 255, compression="lzw", predictor=2)),
    "tiff-uint8-rgb-alpha": (".tif", _tiff("u1", 3, 255, alpha=True, extrasamples=(2,))),
    "tiff-uint8-premultiplied": (".tif", _tiff("u1", 3, 255, alpha=True, extrasamples=(1,), separate=True)),
    "tiff-uint8-grey-alpha": (".tif", _tiff("u1", 1, 255, alpha=True, extrasamples=(2,))),
    "tiff-uint8-rgb-x": (".tif", _tiff("u1", 4, 255, photometric="rgb", extrasamples=(0,))),
    "tiff-uint16-rgb-alpha": (".tif", _tiff("u2", 3, 60000, alpha=True, extrasamples=(2,), compression="zstd")),
    "tiff-uint16": (".tif", _tiff("u2", top=60000, byteorder=">", compression="adobe_deflate", predictor=2)),
    "tiff-uint16-separate": (".tif", _tiff("u2", 3, 60000, separate=True, compression="packbits")),
    "tiff-uint16-tiled": (".tif", _tiff("u2", 3, 60000, tile=(16, 32), compression="lzma", bigtiff=True)),
    "tiff-int16": (".tif", _tiff("i2", top=-30000)),
    "tiff-int8": (".tif", _tiff("i1", 2, top=-100, compression="lzw")),
    "tiff-uint32": (".tif", _tiff("u4", top=2**23)),
    "tiff-float16": (".tif", _tiff("f2", 3, compression="adobe_deflate", predictor=3)),
    "tiff-float32": (".tif", _tiff("f4", top=1000)),
    "tiff-float32-predicted": (".tif", _tiff("f4", 3, top=1000, compression="lzw", predictor=3, byteorder=">")),
    "tiff-float64": (".tif", _tiff("f8", 3, top=-5)),
    "tiff-bands": (".tif", _tiff("u2", 7, 60000)),
    "tiff-bands-separate": (".tif", _tiff("f4", 5, separate=True, compression="zstd", predictor=3)),
    "tiff-two-bands": (".tif", _tiff("u1", 2, 255)),
    "tiff-pages": (".tif", _tiff_pages("u2", 6, 60000, compression="lzw")),
    "tiff-pages-float": (".tif", _tiff_pages("f4", 2, 1.0)),
    "tiff-jpeg": (".tif", _tiff("u1", 3, 255, compression="jpeg")),
    **{f"tiff-palette-{bits}": (".tif", _tiff_palette(bits, compression="lzw")) for bits in (1, 4, 8)},
    "npy-uint8": (".npy", _numpy("u1", "HW", top=255)),
    "npy-bool": (".npy", _numpy(bool, "HWC")),
    "npy-uint16": (".npy", _numpy(">u2", "CHW", top=60000)),
    "npy-int32": (".npy", _numpy("i4", "HWC", 5, top=-(2**23), order="F")),
    "npy-float16": (".npy", _numpy("f2", "HW")),
    "npy-float32": (".npy", _numpy(">f4", "CHW", 4, top=-9)),
    "npy-float64": (".npy", _numpy("f8", "HWC", top=1e-3)),
    "npz-stored": (".npz", _numpy("f4", "HWC", key="file")),
    "npz-compressed": (".npz", _numpy("u2", "CHW", 2, top=60000, key="x", compressed=True)),
}  # fmt: skip
"""The suffix of a file, and what writes it, of each kind × depth × mode."""


def build(folder: Path, kind: str, height: int = 8, width: int = 11) -> Path:
    suffix, write = KINDS[kind]
    path = folder / f"in-{kind}{suffix}"
    write(path, height, width)
    return path
