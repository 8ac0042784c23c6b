"""The pixels of PNG files beyond those that Pillow decodes and encodes: of 16 bits, and packed.

Shapes: H × W pixels, S samples of a pixel.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dop_lightning.images.formats.packing import pack_rows
from dop_lightning.images.formats.png_chunks import PALETTE, Chunk, Header, chunk_heads, write_chunks

_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""The passes of an interlaced image: first row and column, and the steps from there."""


def decode_16(path: Path, header: Header) -> np.ndarray:
    """The samples of 16 bits, ``(H, W, S)``: each pass of an interlaced image, or the whole, as an image of its own."""
    from imagecodecs import png_decode

    passes = _ADAM7 if header.interlaced else ((0, 0, 1, 1),)
    pixels = np.zeros((header.height, header.width, header.planes), dtype=np.uint16)
    data = _inflated(path, sum(_filtered_size(pixels[slices]) for slices in map(_slices, passes)))
    start = 0
    for slices in map(_slices, passes):
        part = pixels[slices]
        if part.size:
            end = start + _filtered_size(part)
            rows, columns, planes = part.shape
            head = struct.pack(">IIBBBBB", columns, rows, 16, header.colour, 0, 0, 0)
            image = io.BytesIO()
            write_chunks(image, [("IHDR", head), ("IDAT", zlib.compress(data[start:end], level=0)), ("IEND", b"")])
            pixels[slices] = png_decode(image.getvalue()).reshape(rows, columns, planes)
            start = end
    return pixels


def _slices(first: tuple[int, int, int, int]) -> tuple[slice, slice]:
    top, left, down, across = first
    return slice(top, None, down), slice(left, None, across)


def _filtered_size(part: np.ndarray) -> int:
    """Bytes of the rows of a pass, each after the number of its filter."""
    return len(part) + 2 * part.size if part.size else 0


def _inflated(path: Path, size: int) -> bytes:
    """The first ``size`` bytes of pixels."""
    decompress = zlib.decompressobj()
    data = bytearray()
    with path.open("rb") as file:
        for kind, length in chunk_heads(file):
            if kind == "IDAT":
                content, check = file.read(length), file.read(4)
                if check != struct.pack(">I", zlib.crc32(b"IDAT" + content)):
                    raise ValueError("a checksum is wrong")
                # No more than is needed: a small file may hold very much.
                if len(data) < size:
                    data += decompress.decompress(content, max_length=size - len(data))
    if len(data) < size:
        raise ValueError(f"{size} bytes of pixels expected, {len(data)} there")
    return bytes(data)


def encode(pixels: np.ndarray, bits: int, colour: int) -> Iterator[Chunk]:
    """The chunks of a PNG of these pixels; its header comes first."""
    if bits < 8 or colour == PALETTE:
        height, width = pixels.shape[:2]
        # Each row starts with its filter: none, as the standard advises for indices and few bits.
        rows = np.pad(pack_rows(pixels[..., 0], bits), ((0, 0), (1, 0)))
        yield "IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
        yield "IDAT", zlib.compress(rows.tobytes())
        return
    squeezed = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if bits == 16:
        from imagecodecs import png_encode

        content = io.BytesIO(png_encode(squeezed))
    else:
        content = io.BytesIO()
        Image.fromarray(squeezed).save(content, format="PNG")
    for kind, length in chunk_heads(content):
        yield kind, content.read(length)
