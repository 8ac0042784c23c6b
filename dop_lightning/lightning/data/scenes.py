"""Scenes: videos and folders of frames, to be taken apart into background and foreground."""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.foundation.checks import at_least
from dop_lightning.foundation.names import legible
from dop_lightning.foundation.units import format_bytes, parse_bytes
from dop_lightning.images.formats import write_pixels
from dop_lightning.images.pictures import comparison
from dop_lightning.lightning.data.base import RecoveryDataModule, Source
from dop_lightning.matrices.scenes import Frames, find_frames
from dop_lightning.matrices.scenes.background import background_of, median_frame
from dop_lightning.matrices.scenes.layers import layers, write_layers
from dop_lightning.matrices.scenes.masks import WEAK
from dop_lightning.problems.noise import Noise
from dop_lightning.problems.problem import Attribute, Problem, Sensing
from dop_lightning.problems.randomness import stream

ENOUGH = 45.0
"""Up to so many frames the rate of theory is taken; see :func:`scene_alpha`."""


def scene_alpha(pixels: int, frames: int) -> float:
    """α of a scene, ``c·√max(p, f)`` with ``c = √(f/45)`` between 1 and 2.

    With c = 1, the rate of theory, who lingers in the scene leaves a shadow in the background. With a larger one, what
    changes in a small part of it for a while, such as a lamp, counts as moving; the more frames there are, the smaller
    a part is enough.
    """
    return min(2.0, max(1.0, math.sqrt(frames / ENOUGH))) * math.sqrt(max(pixels, frames))


LEAST_FRAMES = 8
"""Frames that must be looked at to tell what moves."""

ALIKE = 2
"""Levels of 255 by which the channels of a grey scene that is stored in colour may differ."""


class Scene(Source):
    """Frames of a camera that stands still, as a matrix with a column a frame.

    What is recovered is the change of the background against the median frame, at some of the entries of some of the
    frames; see :mod:`dop_lightning.matrices.scenes.background` for how all others follow.

    Args:
        frames: the frames.
        most_frames: how many are looked at, evenly spread.
        most_pixels: how many entries of each (pixels times channels), drawn at random where there are more.
        memory: bytes that the frames looked at may take.
        pictures: whether a picture a frame is written.

    Raises:
        ValueError: memory is not enough for eight frames.
    """

    data_range = 1.0

    def __init__(self, frames: Frames, most_frames: int, most_pixels: int, memory: int, pictures: bool) -> None:
        self.frames = frames
        self.name = frames.path.stem
        self._most_frames, self._most_pixels = most_frames, most_pixels
        self._memory, self._pictures = memory, pictures
        self._looked_at: np.ndarray | None = None
        self.grey = False

    @property
    def attributes(self) -> dict[str, Attribute]:
        """``scene``: the name of the video or folder."""
        return {"scene": legible(self.name)}

    def _load(self) -> np.ndarray:
        """The frames looked at, ``(f, P)``."""
        if self._looked_at is None:
            size = math.prod(self.frames.shape) * self.frames.dtype.itemsize
            afford = self._memory // size
            least = min(LEAST_FRAMES, len(self.frames))
            if afford < least:
                raise ValueError(
                    f"memory must be at least {format_bytes(least * size)} for {least} frames of {self.frames.path}, "
                    f"got {format_bytes(self._memory)}"
                )
            count = min(len(self.frames), self._most_frames, afford)
            self._numbers = np.linspace(0, len(self.frames) - 1, count).round().astype(int).tolist()
            chosen = self.frames.chosen(self._numbers)
            self.grey = chosen.shape[1] == 3 and _is_grey(chosen, self.frames.white)
            self._looked_at = np.ascontiguousarray(chosen[:, :1] if self.grey else chosen).reshape(count, -1)
            self._median = median_frame(self._looked_at, self.frames.white)
        return self._looked_at

    def _pixels(self, seed: int) -> Tensor | None:
        entries = self._load().shape[1]
        if entries <= self._most_pixels:
            return None
        return torch.randperm(entries, generator=stream(seed, "sensing"))[: self._most_pixels].sort().values

    def signal(self, seed: int) -> Tensor:
        """What the frames looked at differ from their median by, ``(p, f)``."""
        looked_at, pixels = self._load(), self._pixels(seed)
        chosen = slice(None) if pixels is None else pixels.numpy()
        values = torch.from_numpy(looked_at[:, chosen].T.astype(np.float32)) / self.frames.white
        return values.sub_(self._median[chosen][:, None])

    def problem(self, noise: Noise, seed: int, sensing: Sensing | None = None) -> Problem:
        """As of any source, with a ratio of the rates for scenes."""
        problem = super().problem(noise, seed, sensing)
        return replace(problem, alpha=scene_alpha(*problem.signal_shape))

    def write(self, folder: Path, outcome: Outcome) -> bool:
        """Write background, foreground and mask of all frames, and pictures of the frame with the largest mask.

        The scores of the outcome get ``mask_threshold``, the median over the entries of the weak threshold in units of
        the range of a frame, and ``mask_share``, the share of the pixels that are in the mask.

        Raises:
            WritingStopped: :attr:`is_stopped` has returned true.
        """
        seed, alpha = outcome.problem.seed, outcome.alpha or 1.0
        looked_at = self._load()
        background = background_of(
            looked_at,
            self.frames.white,
            self._median,
            outcome.signal.float(),
            alpha,
            self._pixels(seed),
            self._numbers,
        )
        parts = layers(self.frames, background, self.grey, looked_at if len(looked_at) == len(self.frames) else None)
        written = write_layers(folder, self.frames, parts, self._pictures, self.is_stopped)
        names = {"frame": "observation", "background": "recovered", "foreground": "corruption"}
        for layer, picture in written.busiest.items():
            write_pixels(folder / f"{names[layer]}.png", picture)
        write_pixels(folder / "comparison.png", comparison(list(written.busiest.items())))
        outcome.scores["mask_threshold"] = WEAK * float(background.noise.median())
        outcome.scores["mask_share"] = written.share
        return True


def _is_grey(frames: np.ndarray, white: float) -> bool:
    least, largest = frames.min(axis=1), frames.max(axis=1)
    return bool((largest - least).max() <= ALIKE / 255 * white)


class SceneDataModule(RecoveryDataModule):
    """Videos and folders of frames × seeds.

    The camera is to stand still. What becomes of it is in the folder of each problem: ``background.mp4``,
    ``foreground.mp4`` (the values of the frame inside of the mask, black elsewhere), ``mask.mp4``, ``comparison.mp4``,
    and a picture a frame in folders of the first three names.

    Args:
        scenes: videos, and folders of pictures of one size, each of which is a scene.
        grey: whether to make frames grey; scenes that are grey are taken so anyhow.
        pictures: whether to write a picture a frame.
        most_frames: frames that are looked at, evenly spread, at least 2; the others follow from these.
        most_pixels: entries of a frame that are looked at, drawn at random, at least 1; the others follow.
        memory: what the frames looked at may take, such as ``2G``: fewer are looked at where that is less.
        seeds: seeds, or how many.
        batch_size: scenes of one shape in one batch, at most.

    Raises:
        ValueError: a scene is none, or an argument is out of range.
        ImportError: a video without PyAV.
    """

    growing = RecoveryDataModule.growing | {"scenes"}

    def __init__(
        self,
        scenes: str | list[str],
        grey: bool = False,
        pictures: bool = True,
        most_frames: int = 300,
        most_pixels: int = 8192,
        memory: str = "1G",
        seeds: int | list[int] = 1,
        batch_size: int | Literal["auto"] | None = 1,
    ) -> None:
        super().__init__(None, seeds, batch_size)
        self.scenes = [scenes] if isinstance(scenes, str) else scenes
        self.grey = grey
        self.pictures = pictures
        self.most_frames = at_least("most_frames", most_frames, 2)
        self.most_pixels = at_least("most_pixels", most_pixels, 1)
        self.memory = parse_bytes(memory, "memory")

    def sources(self) -> Sequence[Source]:
        """One a scene."""
        found = [find_frames(scene, self.grey) for scene in self.scenes]
        for trouble in (frames.trouble for frames in found if frames.trouble):
            print(trouble, file=sys.stderr)
        return [Scene(frames, self.most_frames, self.most_pixels, self.memory, self.pictures) for frames in found]
