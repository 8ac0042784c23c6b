"""Generate structured damage (rectangles, dust, text, creases) for `measure_damage.py`.

Each class is a noise that corrupts an image ``(C, H, W)`` in [0, 1]. The damage is a function of the generator.
"""

import math
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dop_lightning.problems.noise import Corrupted, Noise
from dop_lightning.problems.noise.draws import uniform

WORDS = ("12.08.1998", "PHOTO ARCHIVE", "'94 7 21", "Summer 2003", "sample image", "NOT FOR SALE", "Lake, 14:35")
"""Dates, captions and watermarks."""

COLOURS = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0), "orange": (1.0, 0.55, 0.1)}
"""RGB colours of text; images with another number of channels use their mean."""


class DeadRectangles(Noise):
    """Axis-aligned rectangles that hide the image.

    Args:
        value: value of all rectangles; ``colour``: one random value per channel; ``noise``: uniform noise.
        count: number of rectangles. Their sides range from 6 pixels to a quarter of the image; rectangles at the border
            are clipped.
    """

    name = "rectangles"

    def __init__(self, value: float | Literal["colour", "noise"] = "colour", count: int = 4) -> None:
        self.value, self.count = value, count

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw four numbers, one per channel, and one per entry of the image for each rectangle."""
        channels, height, width = clean.shape
        for _ in range(self.count):
            row, column, tall, wide = uniform((4,), generator).tolist()
            colour, noise = (uniform(shape, generator).to(clean) for shape in ((channels, 1, 1), clean.shape))
            tall, wide = (int(6 + (side / 4 - 6) * draw) for side, draw in ((height, tall), (width, wide)))
            top, left = int(row * height - tall / 4), int(column * width - wide / 4)
            hit = torch.zeros(clean.shape, dtype=torch.bool)
            hit[:, max(0, top) : max(0, top + tall), max(0, left) : max(0, left + wide)] = True
            values = {"colour": colour.expand(clean.shape), "noise": noise}
            shown = values[self.value] if isinstance(self.value, str) else torch.full_like(clean, self.value)
            running = running.with_replaced(clean, hit, shown)
        return running


class Dust(Noise):
    """Specks (ellipses) and hairs (short curves) of 2 to 12 pixels, in all channels.

    Args:
        ratio: covered fraction of the area.
        value: value v of all specks.
        opacity: o, in (0, 1]; a covered pixel is (1 − o)·x + o·v.
    """

    name = "dust"

    def __init__(self, ratio: float, value: float, opacity: float = 1.0) -> None:
        self.ratio, self.value, self.opacity = ratio, value, opacity

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw seven numbers for each speck: row, column, kind, two sizes, heading and curvature."""
        height, width = clean.shape[1:]
        rows, columns = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
        covered = torch.zeros(height, width, dtype=torch.bool)
        while float(covered.double().mean()) < self.ratio:
            row, column, kind, size, other, heading, bend = uniform((7,), generator).tolist()
            down, right = rows - int(row * height), columns - int(column * width)
            cosine, sine = math.cos(math.pi * heading), math.sin(math.pi * heading)
            if kind < 0.7:
                long = 1 + 4.5 * size**2
                short = long * (0.5 + 0.5 * other)
                along, across = down * sine + right * cosine, down * cosine - right * sine
                hit = (along / long).square() + (across / short).square() <= 1
            else:
                hit = torch.zeros_like(covered)
                y, x, angle = row * height, column * width, 2 * math.pi * heading
                for _ in range(int(6 + 7 * size)):
                    i, j = int(y), int(x)
                    hit[i : i + 1 + (other > 0.5), j : j + 1 + (other > 0.5)] = True
                    y, x, angle = y + math.sin(angle), x + math.cos(angle), angle + 0.3 * (bend - 0.5)
                    if not (0 <= y < height and 0 <= x < width):
                        break
            hit &= ~covered
            covered |= hit
            shown = (1 - self.opacity) * running.observation + self.opacity * self.value
            running = running.with_replaced(clean, hit.expand(clean.shape), shown)
        return running


class Text(Noise):
    """Lines of anti-aliased text in Pillow's default font.

    Args:
        colour: white, black or orange; or a number, which replaces all pixels of the text without blending.
        outline: whether to add an outline of one pixel, black around white or orange, white around black.
        lines: number of lines, of 10 to 24 pixels.
    """

    name = "text"

    def __init__(self, colour: str | float, outline: bool = False, lines: int = 3) -> None:
        self.colour, self.outline, self.lines = colour, outline, lines

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Draw four numbers for each line: the words, row, column and size."""
        channels, height, width = clean.shape
        for _ in range(self.lines):
            words, row, column, size = uniform((4,), generator).tolist()
            font = ImageFont.load_default(size=10 + int(15 * size))
            text = WORDS[int(words * len(WORDS))]
            left, top, right, bottom = font.getbbox(text)
            at = (
                2 - left + int(column * max(1, width - (right - left) - 4)),
                2 - top + int(row * max(1, height - (bottom - top) - 4)),
            )
            fill, whole = (self._drawn(text, at, font, (height, width), stroke) for stroke in (0, int(self.outline)))
            hit = (whole > 0.02).expand(clean.shape)  # lower coverage is invisible
            if isinstance(self.colour, str):
                ink = _channels(COLOURS[self.colour], channels)
                edge = 1 - _channels(COLOURS["black" if self.colour == "black" else "white"], channels)
                shown = (1 - whole) * running.observation + whole * edge if self.outline else running.observation
                shown = (1 - fill) * shown + fill * ink
            else:
                shown = torch.full_like(clean, self.colour)
            running = running.with_replaced(clean, hit, shown)
        return running

    @staticmethod
    def _drawn(
        text: str, at: tuple[int, int], font: ImageFont.FreeTypeFont, shape: tuple[int, int], stroke: int
    ) -> Tensor:
        """Return the coverage of each pixel, in [0, 1]."""
        page = Image.new("L", (shape[1], shape[0]), 0)
        ImageDraw.Draw(page).text(at, text, fill=255, font=font, stroke_width=stroke)
        return torch.from_numpy(np.asarray(page, dtype=np.float32) / 255)


def _channels(colour: tuple[float, ...], channels: int) -> Tensor:
    values = torch.tensor(colour) if channels == len(colour) else torch.tensor(colour).mean().expand(channels)
    return values.view(-1, 1, 1)
