"""PNG files of any depth and colour type. Chunks of metadata are kept unchanged.

Pillow decodes up to 8 bits; because it reduces 16-bit colour to 8 bits, imagecodecs decodes 16 bits. imagecodecs would
convert a colour key to alpha, and prints warnings to standard error, so it only receives plain pixels.

Shapes: H × W pixels, C channels.
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from dop_lightning.images.formats.png_chunks import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    Chunk,
    Header,
    chunk_heads,
    write_chunks,
)
from dop_lightning.images.formats.png_pixels import decode_16, encode
from dop_lightning.images.formats.raster import Palette, Raster, Unsuitable, check_size, upright_shape

_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 3, GREY_ALPHA: 1, RGB_ALPHA: 3}
_DEPTHS = {GREY: (1, 2, 4, 8, 16), PALETTE: (1, 2, 4, 8)}

COLOUR_CHUNKS = ("cICP", "iCCP", "sRGB", "gAMA", "cHRM")
"""Chunks that define the colour space, which must precede the palette."""

_OTHER_CHUNKS = ("pHYs", "eXIf", "tEXt", "zTXt", "iTXt")


def shape(path: Path) -> tuple[int, int, int]:
    """Return (C, H, W) of an upright PNG file."""
    with path.open("rb") as file:
        header, _ = _scan(file)
    with Image.open(path, formats=("PNG",)) as image:
        return upright_shape(_CHANNELS[header.colour], header.height, header.width, orientation_of(image))


def read(path: Path) -> Raster:
    """Read a PNG file."""
    with path.open("rb") as file:
        header, chunks = _scan(file)
    with Image.open(path, formats=("PNG",)) as image:
        orientation = orientation_of(image)
        pixels = decode_16(path, header) if header.depth == 16 else np.array(image)
    if header.colour == GREY and header.depth in (2, 4):
        pixels = pixels // (255 // (2**header.depth - 1))  # Pillow scales the levels to 8 bits
    pixels = pixels.reshape(header.height, header.width, -1)
    alpha = None
    if header.colour in (GREY_ALPHA, RGB_ALPHA):
        pixels, alpha = pixels[..., :-1], pixels[..., -1]
    palette, key = _palette(header, chunks), None
    if header.colour in (GREY, RGB) and "tRNS" in chunks:
        # Only the lowest ``depth`` bits are significant.
        key = tuple(level % 2**header.depth for level in struct.unpack(f">{pixels.shape[2]}H", chunks["tRNS"]))
    metadata = {"chunks": chunks["kept"]}
    return Raster(".png", pixels, header.depth, alpha, palette, key, None, orientation, metadata)


def write(file: BinaryIO, raster: Raster) -> None:
    """Write a PNG with the depth and colour type of the image."""
    colour = PALETTE if raster.palette is not None else {1: GREY, 3: RGB}[raster.channels]
    pixels = raster.samples
    if raster.alpha is not None:
        pixels, colour = np.dstack([pixels, raster.alpha]), {GREY: GREY_ALPHA, RGB: RGB_ALPHA}[colour]
    # The colour profile does not apply to converted channels.
    dropped = ("iCCP", "cICP") if raster.metadata.get("converted") else ()
    kept: list[Chunk] = [chunk for chunk in raster.metadata["chunks"] if chunk[0] not in dropped]
    data = [(kind, content) for kind, content in encode(pixels, raster.bits, colour) if kind in ("IHDR", "IDAT")]
    chunks = [data[0], *(chunk for chunk in kept if chunk[0] in COLOUR_CHUNKS)]
    if raster.palette is not None:
        chunks.append(("PLTE", raster.palette.colours.tobytes()))
        if raster.palette.alphas is not None:
            # Opaque entries at the end may be omitted.
            chunks.append(("tRNS", raster.palette.alphas.tobytes().rstrip(b"\xff") or b"\xff"))
    if raster.key is not None:
        chunks.append(("tRNS", struct.pack(f">{len(raster.key)}H", *raster.key)))
    chunks += [chunk for chunk in kept if chunk[0] not in COLOUR_CHUNKS]
    write_chunks(file, [*chunks, *data[1:], ("IEND", b"")])


def metadata_chunks(image: Image.Image) -> list[Chunk]:
    """Return the profile, EXIF, XMP and resolution of an image of another format as PNG chunks."""
    chunks = []
    if profile := image.info.get("icc_profile"):
        chunks.append(("iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if dpi := image.info.get("dpi"):
        across, down = (round(float(value) / 0.0254) for value in dpi)
        if 0 < across < 2**31 and 0 < down < 2**31:
            chunks.append(("pHYs", struct.pack(">IIB", across, down, 1)))
    if exif := image.info.get("exif"):
        chunks.append(("eXIf", exif.removeprefix(b"Exif\0\0")))
    if xmp := image.info.get("xmp"):
        chunks.append(("iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp))
    return chunks


def orientation_of(image: Image.Image) -> int:
    """Return the orientation, 1 … 8, from the EXIF data of an image, otherwise from its XMP."""
    orientation = image.getexif().get(0x0112, 1)
    return orientation if orientation in range(1, 9) else 1


def _scan(file: BinaryIO) -> tuple[Header, dict]:
    """Return the header and the contents of the relevant chunks, except pixels; ``kept`` are chunks of metadata."""
    found: dict = {"kept": []}
    header = None
    for kind, length in chunk_heads(file):
        if kind == "IHDR":
            width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", file.read(13))
            header = Header(width, height, depth, colour, bool(interlaced))
            if header.colour not in _CHANNELS or header.depth not in _DEPTHS.get(header.colour, (8, 16)):
                raise ValueError(f"invalid combination of {header.depth} bits and colour type {header.colour}")
            check_size(_CHANNELS[header.colour], header.height, header.width)
        elif kind == "acTL":
            frames = struct.unpack(">I", file.read(4))[0]
            if frames > 1:
                raise Unsuitable(f"an image must not be an animation, got {frames} frames; save one of them")
        elif kind in ("PLTE", "tRNS"):
            found.setdefault(kind, file.read(length))
        elif kind in COLOUR_CHUNKS or kind in _OTHER_CHUNKS:
            content, check = file.read(length), file.read(4)
            # Damaged chunks that do not affect the pixels are skipped, as decoders do.
            if check == struct.pack(">I", zlib.crc32(kind.encode() + content)):
                found["kept"].append((kind, content))
    if header is None:
        raise ValueError("the header is missing")
    return header, found


def _palette(header: Header, chunks: dict) -> Palette | None:
    if header.colour != PALETTE:
        return None
    colours = np.frombuffer(chunks["PLTE"], dtype=np.uint8).reshape(-1, 3)
    if "tRNS" not in chunks:
        return Palette(colours)
    alphas = np.full(len(colours), 255, dtype=np.uint8)
    given = np.frombuffer(chunks["tRNS"], dtype=np.uint8)[: len(colours)]
    alphas[: len(given)] = given
    return Palette(colours, alphas)
