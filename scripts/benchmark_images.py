"""Compare the speed and memory of image recovery with those of plain PyTorch code.

Both sides compute Eq. 10, interleaved block by block in one run (see interleaved.py). The framework runs as ``dop
recover`` configures it, through the Trainer with the standard callbacks, and evaluates every 100 iterations. The loop
by hand uses the network in its straightforward form (see plain_unet.py). On a CPU, it runs in a separate process that
waits while the framework is running, because ``dop`` changes how its process allocates memory. ``--tuned`` applies the
same change to the loop by hand.

    OMP_NUM_THREADS=2 python scripts/benchmark_images.py
    OMP_NUM_THREADS=2 python scripts/benchmark_images.py --sizes --memory 512:128
    python scripts/benchmark_images.py --device cuda --sizes 512:128 --batch 16 [--out DIR]

The exit status is 1 if one of the cases below misses its requirement. Other sizes have no requirement.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from interleaved import Loop, clock, time_interleaved
from jsonargparse import ArgumentParser
from measure_memory import peak_of_process
from plain_unet import Apart, by_hand

from dop_lightning.cli import recover as recover_options
from dop_lightning.cli.configs import recover
from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.descent import BatchState
from dop_lightning.foundation.machine import set_threads
from dop_lightning.lightning.data import ImageDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.problems.noise import SaltAndPepper
from dop_lightning.problems.problem import ProblemBatch

LEAST = {
    ("cpu", "bf16", "256:128"): 3.0,
    ("cpu", "bf16", "128:64"): 2.0,
    ("cpu", "fp32", "256:128"): 1.2,
    ("cpu", "fp32", "128:64"): 1.2,
    ("cuda", "bf16", "512:128"): 4.0,
}
"""Required speedup over the loop by hand, by device, precision and size:width."""

MAX_MS = {("cuda", "bf16", "512:128"): 5.0}
"""Maximum milliseconds per iteration on an H100; measure_gpu.py requires more of an H200."""

MEMORY = 0.6
"""Maximum memory in bf16, as a fraction of that of the loop by hand."""

MIN_TOGETHER = 6.0
"""Required speedup of a batch of 16 over its problems one after the other, on a GPU."""

BOTH = ["bf16", "fp32"]
DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"sizes": ["256:128", "128:64"], "iterations": 40, "warm_up": 1, "precision": BOTH, "memory": []},
    "cuda": {"sizes": ["512:128"], "iterations": 600, "warm_up": 100, "precision": BOTH, "memory": ["512:128"]},
}

# ------------------------------------------------------------------------------------------------------- the framework


def make_module(size: int, width: int, precision: str, device: str) -> DoubleOverparameterization:
    """Return the module that ``dop recover`` configures for an image of this size."""
    options = ["--out", "unused", "--width", str(width), "--precision", precision, "--device", device]
    settings, _ = recover.config(recover_options.parser().parse_args(["astronaut", *options]))
    model = {**settings["model"], "block": recover.block_length(size**2, width, device)}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(DoubleOverparameterization, "model")
    return parser.instantiate_classes(parser.parse_object({"model": model})).model


def make_data(size: int, seeds: int = 1) -> ImageDataModule:
    data = ImageDataModule("astronaut", noise=SaltAndPepper(0.5), resize=(size, size), seeds=seeds, batch_size=None)
    data.setup()
    return data


def make_state(problems: ProblemBatch, size: int, width: int, precision: str) -> BatchState:
    """Return the state of a batch as in the module, without a Trainer."""
    module = make_module(size, width, precision, problems.device.type)
    assert isinstance(module.tau, float)
    return BatchState(module.method, problems, module.tau, module.alpha)


# ----------------------------------------------------------------------------------------------------------- the cases


def speed(size: int, width: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure milliseconds per iteration of both, and their ratio."""
    case = (options.device, precision, f"{size}:{width}")
    data = make_data(size)
    module = partial(make_module, size, width, precision, options.device)
    with contextlib.ExitStack() as stack:
        bare = partial(by_hand, width=width)
        if options.device == "cpu":
            apart = stack.enter_context(Apart(data.batches[0].observation[:1], width, options.tuned))

            def bare(_: ProblemBatch) -> Loop:
                return apart

        turn = partial(time_interleaved, module, data, bare, options.iterations, options.device, options.warm_up)
        times = [turn() for _ in range(options.rounds)]
    ours, bare = (statistics.median(t) * 1e3 for t in zip(*times, strict=True))
    ratios = sorted(by_hand / framework for framework, by_hand in times)
    row = {
        "case": f"{size}×{size}, width {width}, {precision}",
        "by_hand_ms": bare,
        "dop_ms": ours,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "least": LEAST.get(case),
        "most_ms": MAX_MS.get(case),
    }
    row["kept"] = row["ratio"] >= LEAST.get(case, 0) and ours <= MAX_MS.get(case, float("inf"))
    return row


def memory(size: int, width: int, precision: str, device: str) -> dict[str, Any]:
    """Measure the peak memory of both in bytes, less the memory in use before; on a CPU each in a separate process."""

    def peak(which: str) -> int:
        if device == "cpu":
            command = [sys.executable, __file__, "--peak", which, str(size), str(width), precision]
            return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run_one(which, size, width, precision, device, iterations=60)
        return torch.cuda.max_memory_allocated() - before

    bare, ours = peak("by_hand"), peak("dop")
    row = {"case": f"memory {size}×{size}, width {width}, {precision}", "by_hand": bare, "dop": ours}
    row["ratio"] = ours / bare
    row["most"] = MEMORY if precision == "bf16" else None
    row["kept"] = row["most"] is None or row["ratio"] <= row["most"]
    return row


def run_one(which: str, size: int, width: int, precision: str, device: str, iterations: int) -> None:
    """Run some iterations of one of the two."""
    problems = make_data(size).batches[0].to(device)
    loop: Loop = (
        by_hand(problems, width) if which == "by_hand" else make_state(problems, size, width, precision).advance
    )
    loop(iterations)


def peak_on_cpu(which: str, size: int, width: int, precision: str) -> int:
    """Return the peak memory of this process in bytes, less that of a small image: libraries, threads and kernels."""
    run_one(which, 64, width, precision, "cpu", iterations=2)
    before = peak_of_process()
    run_one(which, size, width, precision, "cpu", iterations=2)
    return peak_of_process() - before


def compare_batch(count: int, size: int, width: int, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the problems in one batch with the same problems one after the other."""
    (problems,) = make_data(size, count).batches
    problems = problems.to(options.device)
    block = recover.block_length(size**2, width, options.device)
    batch = make_state(problems, size, width, precision)
    alone = make_state(problems.select([0]), size, width, precision)
    for state in (batch, alone):
        state.advance(max(options.warm_up, block))
    ratios = []
    for _ in range(options.rounds):
        seconds = []
        for state in (batch, alone):
            begin = clock(options.device)
            state.advance(block)
            seconds.append((clock(options.device) - begin) / block)
        ratios.append(count * seconds[1] / seconds[0])
    least = MIN_TOGETHER if options.device == "cuda" else None
    ratio = statistics.median(ratios)
    return {
        "case": f"{count} of {size}×{size}, width {width}, {precision}",
        "one_by_one_ms": 1e3 * count * seconds[1],
        "together_ms": 1e3 * seconds[0],
        "ratio": ratio,
        "ratios": sorted(ratios),
        "least": least,
        "kept": least is None or ratio >= least,
    }


def rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for text in options.sizes:
        size, width = map(int, text.split(":"))
        for precision in options.precision:
            yield speed(size, width, precision, options)
    for text in options.memory:
        size, width = map(int, text.split(":"))
        for precision in options.precision:
            yield memory(size, width, precision, options.device)
    if options.batch:
        size, width = map(int, options.batch_size.split(":"))
        for precision in options.precision:
            yield compare_batch(options.batch, size, width, precision, options)


def print_row(row: dict[str, Any]) -> None:
    """Print one row."""
    if "dop" in row:
        shown = f"{row['by_hand'] / 2**20:>9.0f} MiB{row['dop'] / 2**20:>9.0f} MiB"
    else:
        first, second = (row[key] for key in row if key.endswith("_ms") and key != "most_ms")
        shown = f"{first:>10.2f} ms{second:>10.2f} ms"
    requirement = [f"≥ {row['least']}"] if row.get("least") else []
    requirement += [f"≤ {row['most_ms']} ms"] if row.get("most_ms") else []
    requirement += [f"≤ {row['most']}"] if row.get("most") else []
    every = " ".join(f"{ratio:.2f}" for ratio in row.get("ratios", []))
    verdict = "" if row["kept"] else "FAILED  "
    print(
        f"{row['case']:<38}{shown}{row['ratio']:>8.2f}  {', '.join(requirement) or '-':<16}{verdict}{every}", flush=True
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEFAULTS, default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--sizes",
        nargs="*",
        metavar="SIZE:WIDTH",
        help="side, a multiple of 32 and at least 64, and width of the network",
    )
    parser.add_argument("--precision", nargs="+", choices=["bf16", "fp32"], help="default: both")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; default: %(default)s")
    parser.add_argument("--iterations", type=int, help="iterations per round; default: 40, 600 on a GPU")
    parser.add_argument(
        "--warm-up", type=int, help="do not time blocks that begin before this iteration; default: 1, 100 on a GPU"
    )
    parser.add_argument("--memory", nargs="*", metavar="SIZE:WIDTH", help="measure memory; default on a GPU: 512:128")
    parser.add_argument("--tuned", action="store_true", help="keep freed memory in the loop by hand too, on a CPU")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=0, metavar="K", help="also measure K problems in one batch")
    parser.add_argument(
        "--batch-size",
        default="128:64",
        metavar="SIZE:WIDTH",
        help="size and width of the problems of --batch; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, help="write rows.json to this folder")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.device].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main() -> int:
    options = parse()
    if options.peak:
        which, size, width, precision = options.peak
        if which == "dop":
            prepare()
        else:
            set_threads()
        print(peak_on_cpu(which, int(size), int(width), precision))
        return 0
    prepare()
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {where}, {options.rounds} rounds, medians", flush=True)
    print(f"{'case':<38}{'by hand':>13}{'dop':>13}{'ratio':>8}  required        ratios of all rounds", flush=True)
    done = []
    for row in rows(options):
        print_row(row)
        done.append({"torch": torch.__version__, "where": where, **row})
        if options.out is not None:  # after each row, so that an interrupted benchmark keeps its results
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "rows.json").write_text(json.dumps(done, indent=1, ensure_ascii=False), encoding="utf-8")
    return int(not all(row["kept"] for row in done))


if __name__ == "__main__":
    sys.exit(main())
