"""Background and foreground of a scene, as videos and as a picture a frame."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dop_lightning.background import Background
from dop_lightning.files.frames.base import Frames
from dop_lightning.files.frames.folder import FolderFrames
from dop_lightning.files.frames.video import VideoFrames, VideoWriter
from dop_lightning.files.images import write_image, write_pixels
from dop_lightning.files.pictures import Picture, comparison

LAYERS = ("background", "foreground")

AT_ONCE = 2**23
"""Entries of the frames that are taken apart at once."""

STRONGEST = 8.0
"""The foreground is brightened by this factor at most."""


class Layers(NamedTuple):
    """One frame taken apart.

    Attributes:
        number: of the frame, from 0 on.
        frame: ``(C, H, W)`` in [0, 1].
        background: likewise.
        foreground: |frame − background|, brightened, likewise.
    """

    number: int
    frame: Tensor
    background: Tensor
    foreground: Tensor


def gain_of(corruption: Tensor) -> float:
    """What |s| is multiplied with to be seen: its 99.9th percentile becomes white, if that takes no more than 8."""
    flat = corruption.abs().flatten()
    strong = float(flat.kthvalue(max(1, round(0.999 * flat.numel()))).values)
    return float(np.clip(1 / max(strong, 1e-9), 1.0, STRONGEST))


def layers(frames: Frames, background: Background, gain: float, grey: bool = False) -> Iterator[Layers]:
    """Take all frames apart, a few at a time.

    Args:
        frames: the frames.
        background: of their scene.
        gain: see :func:`gain_of`.
        grey: whether of frames in colour the first channel alone is taken: all are equal.
    """
    shape = (1, *frames.shape[1:]) if grey else frames.shape
    step = max(1, min(64, AT_ONCE // int(np.prod(shape))))
    waiting: list[np.ndarray] = []
    index = 0

    def apart() -> Iterator[Layers]:
        y = torch.from_numpy(np.stack(waiting).astype(np.float32)).flatten(1) / frames.white
        behind = background.of(y)
        front = (y - behind).abs_().mul_(gain).clamp_(max=1)
        for k in range(len(y)):
            yield Layers(index + k, *(part[k].view(shape) for part in (y, behind, front)))

    for frame in frames:
        waiting.append(frame[:1] if grey else frame)
        if len(waiting) == step:
            yield from apart()
            index += step
            waiting = []
    if waiting:
        yield from apart()


def write_layers(folder: Path, frames: Frames, parts: Iterator[Layers], pictures: bool) -> Layers:
    """Write ``background.mp4``, ``foreground.mp4``, ``comparison.mp4``, and a picture a frame.

    Pictures are ``background/NAME.png`` and ``foreground/NAME.png``, the background in the format of the frame where
    that is a file of its own. Videos of a folder of pictures need PyAV, and are left out without it.

    Args:
        folder: where to.
        frames: what is taken apart.
        parts: their layers.
        pictures: whether to write a picture a frame.

    Returns:
        The frame with the most in its foreground.
    """
    busiest: list[Layers] = []
    videos = isinstance(frames, VideoFrames) or importlib.util.find_spec("av") is not None
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(VideoWriter(folder / f"{name}.mp4", frames.rate))
            for name in (*LAYERS, "comparison")
            if videos
        }
        quiet = not sys.stderr.isatty()
        for part in tqdm(parts, desc=f"Writing {folder.name}", total=len(frames), unit="frame", disable=quiet):
            if not busiest or part.foreground.mean() > busiest[0].foreground.mean():
                busiest = [part]
            shown = {name: picture_of(getattr(part, name)) for name in ("frame", *LAYERS)}
            for name in LAYERS:
                if videos:
                    writers[name].write(shown[name])
                if pictures:
                    _write_picture(folder / name, frames, part, name, shown[name])
            if videos:
                writers["comparison"].write(comparison(list(shown.items())))
    return busiest[0]


def _write_picture(folder: Path, frames: Frames, part: Layers, name: str, shown: Picture) -> None:
    stem = frames.frame_name(part.number)
    if name == "background" and isinstance(frames, FolderFrames) and part.background.shape == frames.shape:
        write_image(folder / f"{stem}{frames.format.suffix}", part.background, frames.format)
    else:
        write_pixels(folder / f"{stem}.png", shown)


def picture_of(values: Tensor) -> Picture:
    """``(C, H, W)`` in [0, 1] as uint8, ``(H, W)`` or ``(H, W, 3)``."""
    levels = values.mul(255).round_().clamp_(0, 255).to(torch.uint8).numpy()
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(levels.transpose(1, 2, 0))
