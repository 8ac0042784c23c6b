"""Background and foreground of a scene, as videos and as a picture a frame."""

import contextlib
import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dop_lightning.images.formats import write_image, write_pixels
from dop_lightning.images.pictures import Picture, comparison, image_picture
from dop_lightning.matrices.scenes.background import Background
from dop_lightning.matrices.scenes.folder import FolderFrames
from dop_lightning.matrices.scenes.frames import Frames
from dop_lightning.matrices.scenes.video import VideoFrames, VideoWriter

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
    coming, number = iter(frames), 0
    while some := list(itertools.islice(coming, step)):
        y = torch.from_numpy(np.stack([frame[:1] if grey else frame for frame in some]).astype(np.float32))
        y = y.flatten(1) / frames.white
        behind = background.of(y)
        front = (y - behind).abs_().mul_(gain).clamp_(max=1)
        for k in range(len(y)):
            yield Layers(number + k, *(part[k].view(shape) for part in (y, behind, front)))
        number += len(some)


def write_layers(folder: Path, frames: Frames, parts: Iterator[Layers], pictures: bool) -> dict[str, Picture]:
    """Write ``background.mp4``, ``foreground.mp4``, ``comparison.mp4``, and a picture a frame.

    Pictures are ``background/NAME.png`` and ``foreground/NAME.png``, the background in the format of the frame where
    that is a file of its own. Videos of a folder of pictures need PyAV, and are left out without it.

    Args:
        folder: where to.
        frames: what is taken apart.
        parts: their layers.
        pictures: whether to write a picture a frame.

    Returns:
        ``frame``, ``background`` and ``foreground`` of the frame with the most in its foreground.
    """
    busiest: dict[str, Picture] = {}
    most = -1.0
    videos = isinstance(frames, VideoFrames) or importlib.util.find_spec("av") is not None
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(VideoWriter(folder / f"{name}.mp4", frames.rate))
            for name in (*LAYERS, "comparison")
            if videos
        }
        quiet = not sys.stderr.isatty()
        for part in tqdm(parts, desc=f"Writing {folder.name}", total=len(frames), unit="frame", disable=quiet):
            shown = {name: image_picture(getattr(part, name)) for name in ("frame", *LAYERS)}
            if (going_on := float(part.foreground.mean())) > most:
                busiest, most = shown, going_on
            for name in LAYERS:
                if videos:
                    writers[name].write(shown[name])
                if pictures:
                    _write_picture(folder / name, frames, part, name, shown[name])
            if videos:
                writers["comparison"].write(comparison(list(shown.items())))
    return busiest


def _write_picture(folder: Path, frames: Frames, part: Layers, name: str, shown: Picture) -> None:
    stem = frames.frame_name(part.number)
    if name == "background" and isinstance(frames, FolderFrames) and part.background.shape == frames.shape:
        write_image(folder / f"{stem}{frames.format.suffix}", part.background, frames.format)
    else:
        write_pixels(folder / f"{stem}.png", shown)
