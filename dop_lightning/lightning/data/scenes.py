"""Scene data: videos and folders of frames, to be separated into background and foreground."""

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
from dop_lightning.foundation.names import printable
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

MAX_THEORY_FRAMES = 45.0
"""Maximum number of frames for which the theoretical rate is used; see :func:`scene_alpha`."""


def scene_alpha(pixels: int, frames: int) -> float:
    """Return α of a scene, ``c·√max(p, f)``, with ``c = √(f/45)`` clipped to [1, 2].

    With c = 1, the theoretical rate, a person who stays in the scene for a while leaves a shadow in the background.
    With a larger c, temporary changes of a small part of the scene, such as a lamp, count as foreground. The more
    frames there are, the smaller the required part.
    """
    return min(2.0, max(1.0, math.sqrt(frames / MAX_THEORY_FRAMES))) * math.sqrt(max(pixels, frames))


MIN_FRAMES = 8
"""Minimum number of selected frames for the detection of motion."""

MAX_GREY_DIFFERENCE = 2
"""Maximum difference between the channels of a grey scene that is stored in colour, in levels of 255."""


class Scene(Source):
    """Frames of a static camera, as a matrix with one column per frame.

    The signal is the difference between the background and the median frame, at a subset of entries and frames. See
    :mod:`dop_lightning.matrices.scenes.background` for its extension to all others.

    Args:
        frames: the frames.
        most_frames: maximum number of selected frames, evenly spaced.
        most_pixels: maximum number of selected entries per frame (pixels times channels), drawn at random.
        memory: maximum memory of the selected frames in bytes.
        pictures: whether to write one picture per frame.

    Raises:
        ValueError: the memory is insufficient for eight frames.
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
        return {"scene": printable(self.name)}

    def _load(self) -> np.ndarray:
        """Return the selected frames, ``(f, P)``."""
        if self._looked_at is None:
            size = math.prod(self.frames.shape) * self.frames.dtype.itemsize
            afford = self._memory // size
            least = min(MIN_FRAMES, len(self.frames))
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

    def _sampled_pixels(self, seed: int) -> Tensor | None:
        entries = self._load().shape[1]
        if entries <= self._most_pixels:
            return None
        return torch.randperm(entries, generator=stream(seed, "sensing"))[: self._most_pixels].sort().values

    def signal(self, seed: int) -> Tensor:
        """Return the differences between the selected frames and their median, ``(p, f)``."""
        looked_at, pixels = self._load(), self._sampled_pixels(seed)
        chosen = slice(None) if pixels is None else pixels.numpy()
        values = torch.from_numpy(looked_at[:, chosen].T.astype(np.float32)) / self.frames.white
        return values.sub_(self._median[chosen][:, None])

    def problem(self, noise: Noise, seed: int, sensing: Sensing | None = None) -> Problem:
        """Create a problem, see :meth:`~dop_lightning.lightning.data.Source.problem`, with the α of a scene."""
        problem = super().problem(noise, seed, sensing)
        return replace(problem, alpha=scene_alpha(*problem.signal_shape))

    def write(self, folder: Path, outcome: Outcome) -> bool:
        """Write background, foreground and mask of all frames, and pictures of the frame with the largest mask.

        Adds two scores to the outcome: ``mask_threshold``, the median over the entries of the weak threshold in units
        of the range of a frame, and ``mask_share``, the fraction of pixels in the mask.

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
            self._sampled_pixels(seed),
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
    return bool((largest - least).max() <= MAX_GREY_DIFFERENCE / 255 * white)


class SceneDataModule(RecoveryDataModule):
    """Videos and folders of frames × seeds.

    The camera must be static. The results are in the folder of each problem: ``background.mp4``, ``foreground.mp4``
    (the values of the frame inside the mask, black elsewhere), ``mask.mp4``, ``comparison.mp4``, and one picture per
    frame in folders for the first three.

    Args:
        scenes: videos, and folders of pictures of one size, each of which is a scene.
        grey: whether to convert frames to grey; grey scenes stored in colour are always converted.
        pictures: whether to write one picture per frame.
        most_frames: maximum number of selected frames, evenly spaced, at least 2; the background of the other frames is
            computed from them.
        most_pixels: maximum number of selected entries of a frame, drawn at random, at least 1; the background of the
            other entries is computed from them.
        memory: maximum memory of the selected frames, such as ``2G``; fewer frames are selected if necessary.
        seeds: seeds, or their number.
        batch_size: maximum number of scenes of one shape in a batch.

    Raises:
        ValueError: a file or folder is not a scene, or an argument is out of range.
        ImportError: a video cannot be read without PyAV.
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
        """Return one source per scene."""
        found = [find_frames(scene, self.grey) for scene in self.scenes]
        for trouble in (frames.trouble for frames in found if frames.trouble):
            print(trouble, file=sys.stderr)
        return [Scene(frames, self.most_frames, self.most_pixels, self.memory, self.pictures) for frames in found]
