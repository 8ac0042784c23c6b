"""Measure how soon each verb of ``dop`` exits after Ctrl-C or SIGTERM, and check that the same command then resumes.

    python scripts/time_interrupts.py --out interrupts
    python scripts/time_interrupts.py --out interrupts --cases recover separate-mapped --moments 8

Each case runs once undisturbed. Then it is started again, and gets SIGINT or SIGTERM in turn, at moments spread evenly
over the duration of the undisturbed run. The table has the longest time from the signal to the end of the process, and
the processor time in this interval, which does not depend on other programs. After that, the same command must produce
the files of the undisturbed run bit for bit. The exit status is 1 if a process took longer than ``--most`` seconds of
wall time and a third of that in processor time (otherwise it waited for other processes of a busy machine), exited with
a status other than 130 or 143, printed a traceback, or left different files.

Processes are forks of a process that has imported all modules. With ``--spawn`` they are new processes, so that imports
are interrupted, too.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
from PIL import Image
from skimage import data

MATRIX = """
model: {tau: 2.e-3, block: 100, evaluate_every: 1000}
data:
  class_path: MatrixDataModule
  init_args:
    n: [20, 25, 30, 35]
    rank: 2
    noise: {class_path: dop_lightning.problems.noise.GrossOutliers, init_args: {ratio: 0.1}}
    seeds: 3
    batch_size: 2
trainer: {max_steps: 40000}
"""

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}

PATIENCE = 600.0
"""Maximum seconds from a signal to the end of a process, after which it is killed."""


@dataclass(frozen=True)
class Case:
    """A command; ``{in}`` is the folder of its inputs, ``{out}`` that of its results.

    Args:
        arguments: arguments of ``dop``.
        has_state: whether the same command resumes it, so that the files of both runs are compared.
    """

    arguments: str
    has_state: bool = True

    def words(self, inputs: Path, out: Path) -> list[str]:
        return self.arguments.replace("{in}", str(inputs)).replace("{out}", str(out)).split()


CASES = {
    "recover": Case("recover {in}/picture.png --out {out} --iterations 3"),
    "recover-quick": Case("recover {in}/small.png --out {out} --preset quick --iterations 40"),
    "recover-instant": Case("recover {in}/picture.png --out {out} --preset instant"),
    "recover-tiles": Case("recover {in}/small.png --out {out} --tile 48 --width 16 --iterations 20"),
    "recover-instant-tiles": Case("recover {in}/picture.png --out {out} --preset instant --tile 128"),
    "recover-folder": Case("recover {in}/pictures --out {out} --width 16 --iterations 20"),
    "recover-mask": Case("recover {in}/small.png --mask {in}/mask.png --out {out} --width 16 --iterations 40"),
    "separate": Case("separate {in}/matrix.npy --out {out}"),
    "separate-convex": Case("separate {in}/matrix.npy --out {out} --method convex"),
    "separate-dop": Case("separate {in}/narrow.npy --out {out} --method dop --iterations 4000"),
    "separate-mapped": Case("separate {in}/tall.npy --out {out} --max-memory 24M --method projections"),
    "separate-ranks": Case("separate {in}/tall.npy --out {out} --devices 2"),
    "separate-scene": Case("separate {in}/frames --out {out}"),
    "fit": Case("fit --config {in}/matrix.yaml --trainer.default_root_dir {out}"),
    "fit-2": Case("fit --config {in}/matrix.yaml --trainer.default_root_dir {out} --trainer.devices 2"),
    "sweep": Case("sweep --config {in}/matrix.yaml --axis data.init_args.rank=1,2 --out {out} --jobs 2"),
    "figure": Case("figure 1a --out {out}", has_state=False),
    "table": Case("table {in}/run", has_state=False),
    "report": Case("report {in}/run", has_state=False),
    "status": Case("status {in}/run", has_state=False),
    "verify": Case("verify {in}/run", has_state=False),
    "doctor": Case("doctor", has_state=False),
}


class Process(Protocol):
    """The common interface of ``subprocess.Popen`` and forks."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


def environment() -> dict[str, str]:
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def make_inputs(folder: Path, size: int) -> None:
    """Write pictures of ``size`` pixels and smaller, matrices, frames, a config and a finished run."""
    draws = np.random.default_rng(0)
    folder.mkdir(parents=True)
    photograph = data.astronaut()

    def damaged(pixels: int) -> Image.Image:
        picture = photograph[:pixels, :pixels].copy()
        outliers = draws.random(picture.shape) < 0.2
        picture[outliers] = draws.integers(0, 2, outliers.sum()) * 255
        return Image.fromarray(picture)

    damaged(size).save(folder / "picture.png")
    damaged(size // 4).save(folder / "small.png")
    Image.fromarray((draws.random((size // 4, size // 4)) < 0.8).astype(np.uint8) * 255).save(folder / "mask.png")
    (folder / "pictures").mkdir()
    (folder / "frames").mkdir()
    for k in range(3):
        damaged(size // 8).save(folder / "pictures" / f"{k}.png")
    for k in range(24):
        frame = photograph[: size // 2, : size // 2].copy()
        frame[4 * k : 4 * k + 24, 40:64] = 255
        Image.fromarray(frame).save(folder / "frames" / f"{k:02d}.png")
    for name, n, m in (("matrix", 2 * size, 2 * size), ("narrow", size // 2, size // 2), ("tall", 40 * size, 256)):
        matrix = draws.standard_normal((n, 4)) @ draws.standard_normal((4, m))
        outliers = draws.random(matrix.shape) < 0.1
        matrix[outliers] += 20 * draws.standard_normal(outliers.sum())
        np.save(folder / f"{name}.npy", matrix.astype(np.float32))
    (folder / "matrix.yaml").write_text(MATRIX)
    fit = Case("fit --config {in}/matrix.yaml --trainer.default_root_dir {in}/run --trainer.max_steps 2000")
    if start(fit, folder, folder / "run", is_forked=False).wait():
        raise RuntimeError(f"the run in {folder} failed")


def start(case: Case, inputs: Path, out: Path, is_forked: bool) -> Process:
    log, words = out.parent / f"{out.name}.log", case.words(inputs, out)
    if is_forked:
        from fork_server import ForkedCommand  # imports all of dop

        return ForkedCommand(words, environment(), log)
    command = [sys.executable, "-m", "dop_lightning", *words]
    with log.open("a") as file:
        return subprocess.Popen(command, env={**os.environ, **environment()}, stdout=file, stderr=file)


def processor_seconds(process: Process) -> float:
    """Return the processor seconds of a process and its running children."""
    total = 0.0
    try:
        parent = psutil.Process(process.pid)
        for each in (parent, *parent.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
    except psutil.Error:
        pass
    return total


@dataclass(frozen=True)
class End:
    """Effect of a signal: seconds of wall time and of processor time until the end, and exit status."""

    number: signal.Signals
    moment: float
    wall: float
    processor: float
    status: int


def interrupt(process: Process, number: signal.Signals, moment: float, again: float | None) -> End | None:
    """Send a signal after some seconds, and optionally again later; ``None`` if the process had already ended."""
    try:
        process.wait(moment)
        return None
    except subprocess.TimeoutExpired:
        pass
    before, begin = processor_seconds(process), time.monotonic()
    process.send_signal(number)
    if again is not None:
        time.sleep(again)
        process.send_signal(number)
    used = before
    while process.poll() is None:
        used = max(used, processor_seconds(process))
        if time.monotonic() - begin > PATIENCE:
            process.kill()
        time.sleep(0.02)
    return End(number, moment, time.monotonic() - begin, used - before, process.poll() or 0)


def results_of(out: Path) -> dict[str, bytes]:
    """Return the arrays and pictures of a run, by name."""
    files = [path for kind in ("*.npy", "*.png") for path in out.rglob(kind)]
    own = [path for path in files if "checkpoints" not in path.parts and path.name != "preview.png"]
    return {str(path.relative_to(out)): path.read_bytes() for path in own}


def measure(name: str, case: Case, home: Path, options: argparse.Namespace) -> bool:
    """Interrupt a case at each moment, and print its row of the table."""
    inputs, once, moments, is_forked = home / "inputs", home / f"{name}-once", options.moments, not options.spawn
    begin = time.monotonic()
    if status := start(case, inputs, once, is_forked).wait():
        print(f"| {name} | exited with status {status}, see {once}.log |", flush=True)
        return False
    duration, expected = time.monotonic() - begin, results_of(once)
    ends, odd = [], []
    for k in range(moments):
        out = home / f"{name}-{k}"
        number = (signal.SIGINT, signal.SIGTERM)[k % 2]
        process = start(case, inputs, out, is_forked)
        end = interrupt(process, number, duration * (k + 0.5) / moments, options.again)
        log = home / f"{out.name}.log"
        text = log.read_text()
        if end is not None:
            ends.append(end)
            if end.wall > options.most and end.processor > options.most / 3:
                odd.append(f"{end.wall:.1f} s ({end.processor:.1f} s of processor time) at {end.moment:.1f} s")
            if end.status not in (STATUS[number], 0):
                odd.append(f"status {end.status} after {number.name} at {end.moment:.1f} s")
        if "Traceback" in text:
            odd.append(f"traceback, see {log}")
        if list(out.rglob(".*.tmp")):
            odd.append(f"half-written files in {out}")
        if case.has_state and (end is not None or process.returncode):
            status = start(case, inputs, out, is_forked).wait()
            if status or results_of(out) != expected:
                odd.append(f"UNEQUAL (status {status}) after {number.name} at {duration * (k + 0.5) / moments:.1f} s")
        if not odd:
            shutil.rmtree(out, ignore_errors=True)
    wall, processor = (max((getattr(end, key) for end in ends), default=0.0) for key in ("wall", "processor"))
    then = "; ".join(odd) or ("equal" if case.has_state else "good")
    print(f"| {name} | {duration:.1f} | {len(ends)} | {wall:.1f} | {processor:.1f} | {then} |", flush=True)
    return not odd


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for inputs and runs; must not exist")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    parser.add_argument("--moments", type=int, default=6, help="signals per case; default: %(default)s")
    parser.add_argument("--most", type=float, default=3.0, help="maximum seconds until the end; default: %(default)s")
    parser.add_argument(
        "--size", type=int, default=512, help="side of the largest picture in pixels; default: %(default)s"
    )
    parser.add_argument("--again", type=float, help="send the signal again after this time; default: never")
    parser.add_argument("--spawn", action="store_true", help="start new processes instead of forks")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore SIGINT
    make_inputs(options.out / "inputs", options.size)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    print("| case | undisturbed, s | signals | longest exit, s | processor time, s | same command |")
    print("| --- | ---: | ---: | ---: | ---: | --- |", flush=True)
    good = [measure(name, CASES[name], options.out, options) for name in options.cases]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
