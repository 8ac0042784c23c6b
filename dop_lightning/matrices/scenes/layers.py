"""Background, foreground and mask of a scene, as videos and as one picture per frame."""

import contextlib
import importlib.util
import io
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from dop_lightning.foundation.atomic import write_batch
from dop_lightning.foundation.terminal import is_terminal
from dop_lightning.images.formats import write_image
from dop_lightning.images.pictures import Picture, comparison
from dop_lightning.matrices.scenes.background import Background
from dop_lightning.matrices.scenes.folder import FolderFrames
from dop_lightning.matrices.scenes.frames import Frames
from dop_lightning.matrices.scenes.masks import candidates, connected_masks, evidence
from dop_lightning.matrices.scenes.video import VideoFrames, VideoWriter

LAYERS = ("background", "foreground", "mask")
"""Layers; each is written as a video and as a folder of pictures."""

AT_ONCE = 2**23
"""Entries of the frames that are processed and written at once."""

RUN_LENGTH = 3
"""zlib's strategy Z_RLE for pictures: a quarter of the default's time at the same size."""

PROGRESS_INTERVAL = 10.0
"""Seconds between progress lines if standard error is not a terminal."""


class Layers(NamedTuple):
    """Layers of consecutive frames.

    Attributes:
        first: index of the first frame, from 0.
        frames: ``(F, C, H, W)`` in [0, 1].
        backgrounds: ``(F, C, H, W)`` in [0, 1].
        masks: true for moving pixels, bool ``(F, H, W)``.
    """

    first: int
    frames: Tensor
    backgrounds: Tensor
    masks: Tensor

    @property
    def foregrounds(self) -> Tensor:
        """Frames inside the masks and 0 elsewhere, ``(F, C, H, W)``."""
        return torch.where(self.masks[:, None], self.frames, 0)


@dataclass
class Written:
    """Summary of what :func:`write_layers` has written.

    Attributes:
        share: fraction of the pixels of all frames that are in the mask.
        busiest: ``frame``, ``background`` and ``foreground`` of the frame with the largest mask.
    """

    share: float = 0.0
    busiest: dict[str, Picture] = field(default_factory=dict)


class WritingStopped(Exception):
    """Writing was stopped before all frames were written."""


class _Found(NamedTuple):
    """Frames whose masks are not known yet, because they depend on the next frame."""

    frames: Tensor
    backgrounds: Tensor
    weak: Tensor
    strong: Tensor

    def followed_by(self, other: "_Found") -> "_Found":
        """Return these frames, followed by others."""
        return _Found(*(torch.cat(pair) for pair in zip(self, other, strict=True)))

    def last_two(self) -> "_Found":
        """Return the last two frames, or the only one."""
        return _Found(*(part[-2:] for part in self))


def layers(
    frames: Frames, background: Background, grey: bool = False, decoded: np.ndarray | None = None
) -> Iterator[Layers]:
    """Yield the layers of all frames, a few frames at a time.

    Args:
        frames: the frames.
        background: background of their scene.
        grey: whether to use only the first channel of colour frames, for grey frames whose channels are equal.
        decoded: all frames, ``(F, P)``, if they are in memory, to avoid reading them again.
    """
    shape = (1, *frames.shape[1:]) if grey else frames.shape
    step = max(1, min(64, AT_ONCE // int(np.prod(shape))))
    noise = background.noise.view(shape)
    coming, number = iter(frames if decoded is None else decoded.reshape(-1, *shape)), 0
    held: _Found | None = None  # the last two frames of the previous part: one is done, the other needs the next frame
    done = 0
    while some := list(itertools.islice(coming, step)):
        y = torch.from_numpy(np.stack([frame[:1] if grey else frame for frame in some]).astype(np.float32))
        y = y.flatten(1).div_(frames.white)
        behind = background.of(y, range(number, number + len(some)))
        y, behind = y.view(-1, *shape), behind.view(-1, *shape)
        weak, strong = candidates(evidence(y - behind, noise))
        found = _Found(y, behind, weak, strong)
        number += len(some)
        if held is not None:
            found = held.followed_by(found)
        yield from _layers(found, number - len(found.frames), slice(done, len(found.frames) - 1))
        held = found.last_two()
        done = len(held.frames) - 1
    if held is not None:
        yield from _layers(held, number - len(held.frames), slice(done, len(held.frames)))


def _layers(found: _Found, first: int, part: slice) -> Iterator[Layers]:
    """Yield the layers of a part of the frames, unless it is empty."""
    if part.start < part.stop:
        masks = connected_masks(found.weak, found.strong)
        yield Layers(first + part.start, found.frames[part], found.backgrounds[part], masks[part])


def write_layers(
    folder: Path,
    frames: Frames,
    parts: Iterator[Layers],
    pictures: bool,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Written:
    """Write ``background.mp4``, ``foreground.mp4``, ``mask.mp4``, ``comparison.mp4``, and one picture per frame.

    The pictures are ``background/NAME.png``, ``foreground/NAME.png`` and ``mask/NAME.png``. If the frames are files,
    backgrounds and foregrounds have the format of these files. The foreground equals the frame inside the mask and is
    black elsewhere; the mask is 255 inside and 0 elsewhere. Pictures are written in batches with one disk
    synchronisation each. Videos appear under their names once they are complete. For a folder of pictures, videos are
    skipped if PyAV is not installed.

    Args:
        folder: output folder.
        frames: frames of the scene.
        parts: their layers.
        pictures: whether to write one picture per frame.
        is_stopped: called before each batch; writing stops if it returns true.

    Raises:
        WritingStopped: ``is_stopped`` has returned true. Pictures that were already written are kept.
        OSError: a file cannot be written.
    """
    result, most, inside = Written(), -1.0, 0.0
    videos = isinstance(frames, VideoFrames) or importlib.util.find_spec("av") is not None
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(VideoWriter(folder / f"{name}.mp4", frames.rate))
            for name in (*LAYERS, "comparison")
            if videos
        }
        progress = stack.enter_context(_Progress(folder.name, len(frames)))
        for part in parts:
            if is_stopped():
                raise WritingStopped
            shown = _layer_pictures(part)
            if pictures:
                _write_pictures(folder, frames, part, shown)
            for k, mask in enumerate(part.masks):
                one = {name: batch[k] for name, batch in shown.items()}
                share = float(mask.float().mean())
                inside += share
                panels = {name: one[name] for name in ("frame", "background", "foreground")}
                if share > most:
                    result.busiest, most = panels, share
                for name, writer in writers.items():
                    writer.write(comparison(list(panels.items())) if name == "comparison" else one[name])
            progress.add(len(part.masks))
    result.share = inside / len(frames)
    return result


class _Progress:
    """Progress bar on a terminal, otherwise occasional lines."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._count = name, total, 0
        self._bar = tqdm(desc=f"Writing {name}", total=total, unit="frame", disable=not is_terminal(sys.stderr))
        self._last = time.monotonic()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, count: int) -> None:
        """Count frames that have been written."""
        self._count += count
        self._bar.update(count)
        if self._bar.disable and time.monotonic() - self._last >= PROGRESS_INTERVAL:
            print(f"Writing {self._name}: {self._count}/{self._total} frames", file=sys.stderr)
            self._last = time.monotonic()


def _layer_pictures(part: Layers) -> dict[str, np.ndarray]:
    """Return the pictures of all layers, uint8 ``(F, H, W)`` or ``(F, H, W, 3)``."""
    frames, backgrounds = (_to_levels(values) for values in (part.frames, part.backgrounds))
    masks = part.masks.numpy()
    inside = masks if frames.ndim == 3 else masks[..., None]
    foregrounds = np.where(inside, frames, np.uint8(0))
    levels = masks.astype(np.uint8) * np.uint8(255)
    return {"frame": frames, "background": backgrounds, "foreground": foregrounds, "mask": levels}


def _to_levels(values: Tensor) -> np.ndarray:
    levels = (values * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return levels[..., 0].numpy() if levels.shape[-1] == 1 else levels.contiguous().numpy()


def _write_pictures(folder: Path, frames: Frames, part: Layers, shown: dict[str, np.ndarray]) -> None:
    names = [frames.frame_name(part.first + k) for k in range(len(part.masks))]
    files = {}
    own = isinstance(frames, FolderFrames) and part.frames.shape[1:] == frames.shape and not frames.is_plain
    for name in LAYERS:
        if own and isinstance(frames, FolderFrames) and name != "mask":
            values = part.backgrounds if name == "background" else part.foregrounds
            for stem, one in zip(names, values, strict=True):
                write_image(folder / name / f"{stem}{frames.format.suffix}", one, frames.format)
            continue
        for stem, picture in zip(names, shown[name], strict=True):
            content = io.BytesIO()
            Image.fromarray(picture).save(content, format="PNG", compress_type=RUN_LENGTH)
            files[folder / name / f"{stem}.png"] = content.getvalue()
    write_batch(files)
