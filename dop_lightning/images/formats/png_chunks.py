"""Chunks of PNG files.

A chunk consists of its length, its type of four letters, its content, and a checksum.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

Chunk = tuple[str, bytes]


class Header(NamedTuple):
    """The chunk IHDR; ``colour`` is one of the types above."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool

    @property
    def planes(self) -> int:
        """Number of samples per stored pixel."""
        return {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}[self.colour]


def chunk_heads(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """Yield the type and length of each chunk, with the file positioned at its content; callers may move it."""
    position = len(SIGNATURE)
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind.decode("latin-1"), length
        position += 12 + length


def write_chunks(file: BinaryIO, chunks: Sequence[Chunk]) -> None:
    """Write a PNG that consists of these chunks."""
    file.write(SIGNATURE)
    for kind, content in chunks:
        code = kind.encode("latin-1")
        file.write(struct.pack(">I", len(content)) + code + content + struct.pack(">I", zlib.crc32(code + content)))
