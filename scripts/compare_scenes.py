"""Scenes, taken apart: against TensorLy's robust PCA on the same matrix, and with thousands of frames.

    python scripts/compare_scenes.py compare VIDEO      # time, and error against the median frame
    python scripts/compare_scenes.py long --frames 3000 # a made scene with known background: time, memory, error

`long` makes a video of a room whose lamps go on and off, with balls that move in it, hands it to `dop separate`, and
compares the background video with the truth. Memory is the most that the process of the command has had at once.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from dop_lightning.engine import run_to_end
from dop_lightning.foundation.machine import set_threads
from dop_lightning.lightning.data import SceneDataModule
from dop_lightning.matrices.scenes import VideoFrames, VideoWriter, find_frames
from dop_lightning.matrices.separation import BLOCK, SCENE


def error(background: np.ndarray, median: np.ndarray) -> float:
    """Relative error of a background ``(frames, entries)`` against the median frame, in every frame."""
    return float(np.linalg.norm(background - median) / (len(background) ** 0.5 * np.linalg.norm(median)))


def compare(video: Path) -> None:
    """Our defaults and TensorLy's robust PCA, on one matrix of all frames."""
    from tensorly.decomposition import robust_pca

    frames = np.stack(list(find_frames(video, grey=True)))
    matrix = frames.reshape(len(frames), -1).astype(np.float32) / 255
    median = np.median(matrix, axis=0)
    print(f"{video.name}: {matrix.shape[0]} frames of {matrix.shape[1]} pixels, {torch.get_num_threads()} threads")
    data = SceneDataModule(str(video), grey=True)
    begin = time.perf_counter()
    data.setup()
    (problem,) = data.problems
    ending = run_to_end(SCENE.recipe().method(), problem, SCENE.iterations, block=BLOCK)
    low_rank = ending.evaluation.signal[0].numpy().T + median
    seconds = time.perf_counter() - begin
    show("dop separate", seconds, error(low_rank, median), low_rank - median)
    for what, weight in (("its defaults, reg_E = 1", 1.0), ("reg_E = 1/√max(n, m)", max(matrix.shape) ** -0.5)):
        begin = time.perf_counter()
        low_rank, _ = robust_pca(matrix, reg_E=weight)
        show(f"TensorLy, {what}", time.perf_counter() - begin, error(low_rank, median), low_rank - median)


def show(name: str, seconds: float, wrong: float, change: np.ndarray) -> None:
    """One line."""
    print(f"  {name:<40} {seconds:7.2f} s  error {wrong:.4f}  largest change {np.abs(change).max():.2f}")


def room(index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame of a made scene, and its background, ``(H, W, 3)``."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    day = 0.55 + 0.1 * np.sin(2 * np.pi * index / 1000)
    colour = (
        np.stack([x / width, y / height, 1 - x / width], axis=2) * 0.5 + 0.1 * ((x // 16 + y // 16) % 2)[:, :, None]
    )
    background = day * colour
    if index // 200 % 2:  # a lamp
        lamp = 0.35 * np.exp(-((x - width / 4) ** 2 + (y - height / 4) ** 2) / (0.2 * width) ** 2)
        background = background + lamp[:, :, None]
    frame = background.copy()
    for ball, (speed, size, hue) in enumerate([(2.1, 0.06, (1, 0, 0)), (3.3, 0.04, (1, 1, 1)), (0.9, 0.08, (0, 0, 0))]):
        at = (index * speed + 100 * ball) % (1.4 * width) - 0.2 * width
        frame[(x - at) ** 2 + (y - height * (0.3 + 0.2 * ball)) ** 2 < (size * width) ** 2] = hue
    to_levels = lambda values: np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)  # noqa: E731
    return to_levels(frame), to_levels(background)


def long(count: int, height: int, width: int, limit: str, out: Path | None) -> None:
    """A scene of many frames through the command."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = out or Path(temporary)
        video = folder / "room.mp4"
        with VideoWriter(video, Fraction(25)) as writer:
            for index in range(count):
                writer.write(room(index, height, width)[0])
        run = folder / "scene"
        begin = time.perf_counter()
        command = [sys.executable, "-m", "dop_lightning", "separate", str(video), "--out", str(run)]
        subprocess.run([*command, "--no-pictures", "--max-memory", limit], check=True)
        seconds = time.perf_counter() - begin
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        floats = f"{count * height * width * 3 * 4 / 2**30:.1f} GiB as floats"
        print(f"{count} frames of {width}×{height} in colour ({floats}): {seconds:.0f} s, {memory:.2f} GiB")
        wrong, worst = [], 0.0
        for index, frame in enumerate(VideoFrames(run / "room" / "background.mp4")):
            difference = frame.transpose(1, 2, 0).astype(float) - room(index, height, width)[1]
            wrong.append(float((difference**2).mean()))
            worst = max(worst, wrong[-1])
        print(f"background against the truth: {10 * np.log10(255**2 / np.mean(wrong)):.1f} dB, ", end="")
        print(f"the worst frame {10 * np.log10(255**2 / worst):.1f} dB")


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("compare").add_argument("video", type=Path)
    made = verbs.add_parser("long")
    made.add_argument("--frames", type=int, default=3000)
    made.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    made.add_argument("--max-memory", default="1G")
    made.add_argument("--out", type=Path, help="keep the videos there")
    options = parser.parse_args()
    set_threads()
    if options.verb == "compare":
        compare(options.video)
    else:
        long(options.frames, *options.size, options.max_memory, options.out)


if __name__ == "__main__":
    main()
