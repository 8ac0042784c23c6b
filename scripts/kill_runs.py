"""Kill, stop and resize runs on several processes, and compare their results with those of an undisturbed run.

    python scripts/kill_runs.py kill --times 20
    python scripts/kill_runs.py resize
    python scripts/kill_runs.py torchrun
    python scripts/kill_runs.py grow --times 10
    python scripts/kill_runs.py chaos --times 30

Every row of results.csv except the seconds, and every recovered.npy must be bit for bit equal to those of a run on one
process.

`kill` sends SIGKILL to a random one of two processes at a random moment; the other one continues; then the same command
is started again. `resize` stops a run with SIGTERM and resumes it with another number of processes. `torchrun` uses two
agents with two processes each. `grow` starts with two of three seeds, kills a process at a random moment, adds the
third seed, kills again, and finishes; the results must equal those of the same growth without kills. `chaos` disturbs
runs on two and on four processes in turn: SIGKILL to one or two of them, SIGSTOP for some seconds, a full disk for some
seconds, and failing renames for some seconds; then the same command finishes the run. Its processes are forks of this
one, in which system calls are replaced to make the disk fail. All cases have 12 problems of four shapes, one of which
diverges by construction, and one thread per process.
"""

import argparse
import contextlib
import csv
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from dop_lightning.runs.folder import planned_batches

IMAGES = """
model:
  signal: {class_path: SkipUNet, init_args: {width: 8, scales: 3, input_channels: 8}}
  corruption: {class_path: HadamardCorruption, init_args: {scale: 1.0e-5, tied: false}}
  loss: {class_path: SquaredLoss, init_args: {reduction: mean}}
  tau: 0.5
  alpha: [20, 20, 20, 20, 1.0e+30, 20, 20, 20, 20, 20, 20, 20]
  block: 10
  evaluate_every: 50
data:
  class_path: ImageDataModule
  init_args:
    images: [astronaut, chelsea, coffee, rocket]
    noise: {class_path: dop_lightning.problems.noise.SaltAndPepper, init_args: {ratio: 0.3}}
    seeds: 3
    resize: 32
"""

MATRICES = """
model:
  tau: [2.e-3, 2.e-3, 2.e-3, 2.e-3, 2.e+3, 2.e-3, 2.e-3, 2.e-3, 2.e-3, 2.e-3, 2.e-3, 2.e-3]
  block: 100
  evaluate_every: 1000
data:
  class_path: MatrixDataModule
  init_args:
    n: [20, 25, 30, 35]
    rank: 2
    noise: {class_path: dop_lightning.problems.noise.GrossOutliers, init_args: {ratio: 0.1}}
    seeds: 3
    batch_size: 2
"""

CASES = {"images": (IMAGES, 200), "matrices": (MATRICES, 100_000)}
"""Config and number of iterations, for about ten seconds on one core."""


@dataclass
class Case:
    """A config, and the folder of its runs."""

    name: str
    home: Path
    iterations: int
    more: tuple[str, ...] = ()

    @classmethod
    def make(cls, name: str, home: Path, iterations: int | None) -> "Case":
        config, default = CASES[name]
        (home / f"{name}.yaml").write_text(config)
        return cls(name, home, iterations or default)

    def arguments(self, run: Path, devices: int | None) -> list[str]:
        fit = ["fit", "--config", str(self.home / f"{self.name}.yaml"), "--trainer.accelerator", "cpu"]
        fit += ["--trainer.max_steps", str(self.iterations), "--trainer.default_root_dir", str(run)]
        fit += ["--checkpoint.every_minutes", "0.01", "--progress.lines", "4", *self.more]
        return fit if devices is None else [*fit, "--trainer.devices", str(devices)]

    def with_two_seeds(self) -> "Case":
        """Return the same case with two of the three seeds, and without the rates of the third."""
        rates = []
        for key, value in yaml.safe_load(CASES[self.name][0])["model"].items():
            if isinstance(value, list):  # problems are ordered with seeds innermost
                rates += [f"--model.{key}", str([rate for place, rate in enumerate(value) if place % 3 != 2])]
        return replace(self, more=("--data.seeds", "2", *rates))

    def start(self, run: Path, devices: int, prefix: Sequence[str] = ()) -> subprocess.Popen:
        log = (self.home / f"{run.name}.log").open("a")
        command = [*prefix, sys.executable, "-m", "dop_lightning", *self.arguments(run, devices)]
        return subprocess.Popen(command, env=environment(), stdout=log, stderr=log)

    def finish(self, run: Path, devices: int) -> int:
        """Return the exit status of an undisturbed run."""
        return self.start(run, devices).wait()


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def results_of(run: Path) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    """Return the results of a run: rows of its table without seconds, and recovered arrays."""
    with (run / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return rows, {path.parent.name: path.read_bytes() for path in sorted(run.glob("*/recovered.npy"))}


def difference(run: Path, other: Path) -> str:
    """Describe the differences between two runs; empty if they are equal."""
    (rows, arrays), (rows_of_other, arrays_of_other) = results_of(run), results_of(other)
    unequal = [row["problem"] for row, its in zip(rows, rows_of_other, strict=False) if row != its]
    unequal += [f"{name}/recovered.npy" for name in arrays_of_other if arrays.get(name) != arrays_of_other[name]]
    if len(rows) != len(rows_of_other):
        unequal.append(f"{len(rows)} rows instead of {len(rows_of_other)}")
    return ", ".join(unequal)


def all_have_saved(run: Path) -> bool:
    """Whether more batches are saved than one process has, so that every process has saved one."""
    batches = planned_batches(run)
    if batches is None:
        return False
    return len(list(run.glob("checkpoints/last.ckpt/batch-????.pt"))) > (len(batches) + 1) // 2


def kill(case: Case, times: int, seed: int) -> bool:
    draws, ranks = random.Random(seed), ("first", "second")
    once = case.home / f"{case.name}-once"
    case.finish(once, 1)
    begin = time.monotonic()
    case.finish(case.home / f"{case.name}-two", 2)
    duration = time.monotonic() - begin
    good = not (odd := difference(case.home / f"{case.name}-two", once))
    print(f"{case.name}: 1 process and 2 processes: {'equal' if good else 'UNEQUAL: ' + odd}; {duration:.1f} s on 2")
    for k in range(times):
        run, rank, moment = case.home / f"{case.name}-{k}", draws.randrange(2), draws.uniform(0.2, 1.0) * duration
        process = case.start(run, 2)
        time.sleep(moment)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        victim = family[rank] if rank < len(family) else family[0]
        found = len(list(run.glob("*/result.json")))
        victim.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs(family[1:])  # if the first one was killed, the second one continues alone
        between = len(list(run.glob("*/result.json")))
        status = case.finish(run, 2)
        odd = difference(run, once) if status == 0 else f"exit status {status}"
        good = good and not odd
        print(
            f"{k + 1:3d}  {ranks[family.index(victim)]:<6} killed after {moment:5.1f} s; results: {found:2d} then, "
            f"{between:2d} when the other ended, {len(list(run.glob('*/result.json'))):2d} after the same command: "
            f"{'UNEQUAL: ' + odd if odd else 'equal'}",
            flush=True,
        )
        if not odd:
            shutil.rmtree(run)
    return good


def resize(case: Case) -> bool:
    once, good = case.home / f"{case.name}-once", True
    case.finish(once, 1)
    for first, then in ((2, 1), (1, 2)):
        run = case.home / f"{case.name}-{first}-then-{then}"
        process = case.start(run, first)
        while process.poll() is None and not all_have_saved(run):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        status, stopped = process.wait(), results_of(run)[0]
        done = [row["status"] for row in stopped].count("interrupted")
        again = case.finish(run, then)
        odd = difference(run, once) if (status, again) == (143, 0) else f"exit status {status}, then {again}"
        good = good and not odd
        print(
            f"{case.name}: stopped on {first} (exit status {status}, {done} of {len(stopped)} interrupted), resumed "
            f"on {then}: {'UNEQUAL: ' + odd if odd else 'equal'}",
            flush=True,
        )
    return good


def torchrun(case: Case) -> bool:
    once, run = case.home / f"{case.name}-once", case.home / f"{case.name}-torchrun"
    case.finish(once, 1)
    agents = []
    log = (case.home / f"{run.name}.log").open("a")
    for node in range(2):
        agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
        agent += ["--node-rank", str(node), "--master-addr", "127.0.0.1", "--master-port", "29517"]
        command = [*agent, "-m", "dop_lightning", *case.arguments(run, None)]
        agents.append(subprocess.Popen(command, env=environment(), stdout=log, stderr=log))
    statuses = [agent.wait() for agent in agents]
    odd = difference(run, once) if statuses == [0, 0] else f"exit statuses {statuses}"
    print(f"{case.name}: torchrun, two agents of two processes: {'UNEQUAL: ' + odd if odd else 'equal'}", flush=True)
    return not odd


def grow(case: Case, times: int, seed: int) -> bool:
    draws, small = random.Random(seed), case.with_two_seeds()
    once, good = case.home / f"{case.name}-grown", True
    begin = time.monotonic()
    statuses = [small.finish(once, 2), case.finish(once, 2)]
    duration = (time.monotonic() - begin) / 2
    print(f"{case.name}: grown on 2 processes without kills, exit statuses {statuses}, {duration:.1f} s each")
    for k in range(times):
        run = case.home / f"{case.name}-grown-{k}"
        moments = [draws.uniform(0.2, 1.0) * duration for _ in range(2)]
        for of_start, moment in zip((small, case), moments, strict=True):
            process = of_start.start(run, 2)
            time.sleep(moment)
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
            family[draws.randrange(len(family))].send_signal(signal.SIGKILL)
            process.wait()
            psutil.wait_procs(family[1:])
        status = case.finish(run, 2)
        odd = difference(run, once) if status == 0 else f"exit status {status}"
        good = good and not odd
        killed = " and ".join(f"{moment:.1f}" for moment in moments)
        print(f"{k + 1:3d}  killed after {killed} s: {'UNEQUAL: ' + odd if odd else 'equal'}", flush=True)
        if not odd:
            shutil.rmtree(run)
    return good


@dataclass
class Faults:
    """Make writes fail in all processes of a run while a flag file exists."""

    full: Path
    renaming: Path

    @classmethod
    def install(cls, home: Path) -> "Faults":
        """Replace the system calls in this process, and in processes forked from it."""
        faults = cls(home / "disk-is-full", home / "renaming-fails")
        fsync, rename = os.fsync, os.replace

        def failing_fsync(descriptor: int) -> None:
            if faults.full.exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        def failing_replace(source: Path, target: Path, **more: Any) -> None:
            if faults.renaming.exists():
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
            rename(source, target, **more)

        os.fsync, os.replace = failing_fsync, failing_replace
        return faults


def chaos(case: Case, times: int, seed: int, ranks: Sequence[int]) -> bool:
    from fork_server import ForkedCommand  # imports all of dop

    draws, faults = random.Random(seed), Faults.install(case.home)
    log = case.home / f"{case.name}-chaos.log"

    def begin(run: Path, devices: int) -> ForkedCommand:
        return ForkedCommand(case.arguments(run, devices), {"OMP_NUM_THREADS": "1"}, log)

    once, good = case.home / f"{case.name}-once", True
    begin(once, 1).wait()
    durations = {}
    for devices in ranks:
        run, start = case.home / f"{case.name}-{devices}-undisturbed", time.monotonic()
        begin(run, devices).wait()
        durations[devices] = time.monotonic() - start
        odd = difference(run, once)
        good = good and not odd
        print(
            f"{case.name}, {devices} processes: {durations[devices]:.1f} s, {odd or 'equal to one process'}", flush=True
        )
    count: Counter[tuple[str, str]] = Counter()
    for k in range(times):
        devices, kind = ranks[k % len(ranks)], ("kill", "stop", "kill 2", "full", "rename")[k // len(ranks) % 5]
        run, moment = case.home / f"{case.name}-chaos-{k}", draws.uniform(0.05, 1.0) * durations[devices]
        process = begin(run, devices)
        time.sleep(moment)
        family = _process_tree(process.pid)
        struck = inject_fault(kind, family, faults, draws)
        status = process.wait()
        psutil.wait_procs(family)
        found = len(list(run.glob("*/result.json")))
        halves = [path.name for path in run.rglob(".*.tmp")] if kind in ("full", "rename") else []
        starts, again = 1, status
        while again and starts < 4:
            again, starts = begin(run, devices).wait(), starts + 1
        odd = f"exit status {again}" if again else difference(run, once)
        odd = odd or ", ".join(halves)
        good = good and not odd
        count[kind, "rounds"] += 1
        count[kind, "finished at once"] += starts == 1
        count[kind, "equal"] += not odd
        print(
            f"{k + 1:3d}  {devices} processes, {kind:<6} {struck} at {moment:4.1f} s: status {status}, {found:2d} "
            f"results; {starts} starts: {'UNEQUAL: ' + odd if odd else 'equal'}",
            flush=True,
        )
        if not odd:
            shutil.rmtree(run)
    for kind in dict.fromkeys(kind for kind, _ in count):
        numbers = (count[kind, what] for what in ("rounds", "finished at once", "equal"))
        print(f"| {case.name}, {kind} | {' | '.join(map(str, numbers))} |")
    print(f"tracebacks: {log.read_text().count('Traceback')}")
    return good


def _process_tree(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def inject_fault(kind: str, family: Sequence[psutil.Process], faults: Faults, draws: random.Random) -> str:
    """Disturb a run, and describe what was disturbed."""
    seconds = draws.uniform(0.2, 1.5)
    if kind in ("full", "rename"):
        flag = faults.full if kind == "full" else faults.renaming
        flag.touch()
        time.sleep(seconds)
        flag.unlink()
        return f"{seconds:.1f} s"
    ranks = draws.sample(range(len(family)), min(len(family), 2 if kind == "kill 2" else 1))
    for rank in ranks:
        with contextlib.suppress(psutil.NoSuchProcess):
            family[rank].send_signal(signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
    if kind == "stop":
        time.sleep(seconds)
        for rank in ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                family[rank].send_signal(signal.SIGCONT)
    return "ranks " + ",".join(map(str, ranks))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kill", "resize", "torchrun", "grow", "chaos"))
    parser.add_argument("--times", type=int, default=20, help="number of disturbances; default: %(default)s")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="processes of chaos; default: 2 4")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments; default: %(default)s")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES), help="default: all")
    parser.add_argument("--iterations", type=int, help="number of iterations; default: about ten seconds")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the runs in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        good = True
        for name in options.cases:
            case = Case.make(name, home, options.iterations)
            if options.what == "chaos":
                good = chaos(case, options.times, options.seed, options.ranks) and good
            elif options.what in ("kill", "grow"):
                good = (kill if options.what == "kill" else grow)(case, options.times, options.seed) and good
            else:
                good = (resize if options.what == "resize" else torchrun)(case) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
