"""Compare scene separation with TensorLy's robust PCA and with background subtractors, and time long scenes.

    python scripts/compare_scenes.py compare VIDEO      # time, and error against the median frame
    python scripts/compare_scenes.py long --frames 3000 # a synthetic scene with known background: time, memory, error
    python scripts/compare_scenes.py masks              # synthetic scenes with known masks: F-measure

`masks` generates the scenes of `synthetic_scenes.py`, separates each with `dop separate`, and prints the F-measure of
the masks over all frames and pixels, and the CPU time including that of child processes.
`long` generates a video of a room with lamps that switch on and off and with moving balls, runs `dop separate` on it,
and compares the background video with the truth. Memory is the peak memory of the process of the command.
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
from PIL import Image
from synthetic_scenes import make_scene, write_scene

from dop_lightning.engine import run_to_end
from dop_lightning.foundation.machine import set_threads
from dop_lightning.lightning.data import SceneDataModule
from dop_lightning.matrices.scenes import VideoFrames, VideoWriter, find_frames
from dop_lightning.matrices.scenes.masks import candidates, connected_masks, evidence
from dop_lightning.matrices.scenes.regression import robust_deviation
from dop_lightning.matrices.separation import BLOCK, SCENE


def error(background: np.ndarray, median: np.ndarray) -> float:
    """Return the relative error of a background ``(frames, entries)`` with respect to the median frame."""
    return float(np.linalg.norm(background - median) / (len(background) ** 0.5 * np.linalg.norm(median)))


def compare(video: Path) -> None:
    """Compare our defaults with TensorLy's robust PCA on one matrix of all frames."""
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
    """Print one line."""
    print(f"  {name:<40} {seconds:7.2f} s  error {wrong:.4f}  largest change {np.abs(change).max():.2f}")


def room(index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a frame of a synthetic scene, and its background, ``(H, W, 3)``."""
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
    """Separate a long scene with the command."""
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


def f_measure(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall over all frames and pixels."""
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def best_fixed(residuals: np.ndarray, truth: np.ndarray) -> float:
    """Return the best F-measure of `|r| > t` in any channel with a 5×5 median filter, over thresholds t in levels.

    This is an oracle: t is chosen with the truth.
    """
    import cv2

    largest = np.abs(residuals).max(axis=-1)
    thresholds = (5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100)
    filtered = (np.stack([cv2.medianBlur((frame > t).astype(np.uint8), 5) for frame in largest]) for t in thresholds)
    return max(f_measure(found > 0, truth) for found in filtered)


def same_rule(residuals: np.ndarray, truth: np.ndarray) -> float:
    """Return the F-measure of the mask of `dop separate` computed from other residuals `(F, H, W, 3)` in levels."""
    r = torch.from_numpy(residuals.transpose(0, 3, 1, 2).astype(np.float32)) / 255
    noise = robust_deviation(r.flatten(1).mT).clamp_min(1 / 255).view(r.shape[1:])
    found = [candidates(evidence(part, noise)) for part in r.split(16)]
    weak, strong = (torch.cat(parts) for parts in zip(*found, strict=True))
    return f_measure(connected_masks(weak, strong).numpy(), truth)


def subtracted(name: str, frames: np.ndarray, truth: np.ndarray) -> float:
    """Return the F-measure of OpenCV's MOG2 or KNN with default settings and a 5×5 median filter.

    Shadows count as background. The model processes the frames twice; the masks of the second pass are evaluated.
    """
    import cv2

    model = getattr(cv2, f"createBackgroundSubtractor{name}")()
    for frame in frames:
        model.apply(frame)
    found = [cv2.medianBlur((model.apply(frame) == 255).astype(np.uint8), 5) for frame in frames]
    return f_measure(np.stack(found) > 0, truth)


def masks(seeds: int, count: int, height: int, width: int) -> None:
    """Print one line per synthetic scene."""
    print("seed   dop   |S| best t   median frame: best t   same rule   MOG2    KNN   CPU s")
    for seed in range(seeds):
        scene = make_scene(count, height, width, seed)
        with tempfile.TemporaryDirectory() as temporary:
            write_scene(scene, Path(temporary))
            out = Path(temporary) / "out"
            command = [sys.executable, "-m", "dop_lightning", "separate", str(Path(temporary) / "frames")]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            found, background = (
                np.stack([np.asarray(Image.open(file)) for file in sorted((out / "frames" / name).iterdir())])
                for name in ("mask", "background")
            )
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        from_dop = scene.frames.astype(np.int16) - background
        from_median = scene.frames - np.median(scene.frames, axis=0).astype(np.int16)
        mog2, knn = (subtracted(name, scene.frames, scene.masks) for name in ("MOG2", "KNN"))
        print(
            f"{seed:4d}  {f_measure(found > 0, scene.masks):.3f}  {best_fixed(from_dop, scene.masks):11.3f}  "
            f"{best_fixed(from_median, scene.masks):21.3f}  {same_rule(from_median, scene.masks):10.3f}  "
            f"{mog2:5.3f}  {knn:5.3f}  {seconds:6.1f}",
            flush=True,
        )


def main() -> None:
    """Run the subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("compare").add_argument("video", type=Path)
    made = verbs.add_parser("long")
    made.add_argument("--frames", type=int, default=3000)
    made.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    made.add_argument("--max-memory", default="1G")
    made.add_argument("--out", type=Path, help="keep the videos in this folder")
    known = verbs.add_parser("masks")
    known.add_argument("--seeds", type=int, default=5)
    known.add_argument("--frames", type=int, default=300)
    known.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    options = parser.parse_args()
    set_threads()
    if options.verb == "masks":
        masks(options.seeds, options.frames, *options.size)
    elif options.verb == "compare":
        compare(options.video)
    else:
        long(options.frames, *options.size, options.max_memory, options.out)


if __name__ == "__main__":
    main()
