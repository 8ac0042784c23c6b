"""Verify all claims about GPUs in under 8 minutes on an H100, without network access.

    sh scripts/measure_gpu.sh F16.png OUT          # F16: 512×512 pixels, in colour, clean
    sh scripts/measure_gpu.sh F16.png OUT --dry    # tiny sizes, without limits; --device cpu works as well

Each line is a claim with its verdict: PASS, FAIL, or “not measured” with the reason. Each part runs in a separate
process with a time limit, so that an error that leaves CUDA unusable does not affect the next part; a dry run uses one
process. ``OUT/results.json`` contains all claims and the machine. The exit status is 1 if a claim fails.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import gpu_claims
import torch
from benchmark_robust_pca import convex
from benchmark_robust_pca import measure as time_to_error
from gpu_claims import Unmeasured
from interleaved import Loop, clock
from plain_unet import plain_loop
from torch import Tensor

from dop_lightning.cli.experiments.runner import prepare
from dop_lightning.engine.convex import InexactALM
from dop_lightning.engine.descent import BatchState
from dop_lightning.foundation.atomic import atomic_json
from dop_lightning.images.presets import PRESETS, TAU
from dop_lightning.images.recover import recover_image
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule
from dop_lightning.matrices.robust_separation import RobustSeparation
from dop_lightning.problems.noise import GrossOutliers, SaltAndPepper
from dop_lightning.problems.problem import ProblemBatch

ROOT = Path(__file__).resolve().parents[1]

LIMITS = {"smoke": 90, "tests": 100, "images": 75, "batches": 50, "matrices": 75, "paper": 75}
"""Time limit of each part in seconds."""

PAPER_PSNR = 31.6
"""PSNR of the paper for F16 with half of its values corrupted, in dB."""


class Sizes(NamedTuple):
    """Sizes of the measurements: sides and widths of images, iterations, sizes of matrices."""

    side: int = 512
    width: int = 128
    warm_up: int = 60
    iterations: int = 200
    plain_iterations: int = 40
    rounds: int = 3
    tile: int = 128
    tile_width: int = 64
    tiles: int = 16
    n: int = 4000
    rival_seconds: float = 30.0
    most_iterations: int | None = None  # None: as in the preset


DRY = Sizes(64, 2, 1, 4, 1, 1, 64, 2, 2, 100, 2.0, 4)


class Setting(NamedTuple):
    """Arguments of a measurement."""

    device: str
    image: Path
    out: Path
    dry: bool

    @property
    def sizes(self) -> Sizes:
        """Full or tiny sizes."""
        return DRY if self.dry else Sizes()


class Bar(NamedTuple):
    """A limit by device, which is identified by a part of its name; an empty name applies to all devices."""

    sign: str  # ≤ or ≥
    values: Mapping[str, float]
    unit: str

    def on(self, device: str) -> float | None:
        """Return the limit for a device, if any."""
        return next((value for name, value in self.values.items() if name in device), None)

    def is_kept(self, value: float, limit: float) -> bool:
        """Return whether a value satisfies the limit."""
        return value <= limit if self.sign == "≤" else value >= limit


class Claim(NamedTuple):
    """A claim to verify. Without a limit, it holds if no error is raised."""

    part: str
    name: str
    measure: Callable[[Setting], float | str]
    bar: Bar | None = None


# -------------------------------------------------------------------------------------------------------- measurements


def observed(setting: Setting, side: int, count: int = 1) -> ProblemBatch:
    """Return the image with half of its values corrupted, with several seeds."""
    noise = SaltAndPepper(0.5)
    data = ImageDataModule(str(setting.image), noise=noise, resize=(side, side), seeds=count, batch_size=None)
    data.setup()
    return data.batches[0].to(setting.device)


def initial_state(problems: ProblemBatch, width: int) -> BatchState:
    """Return the initial state of the default method for images, in bf16."""
    return BatchState(PRESETS["best"].method(width, "bf16"), problems, TAU)  # type: ignore[arg-type]


def seconds_each(setting: Setting, loops: list[tuple[Loop, int]]) -> list[float]:
    """Return the seconds per iteration of loops that take turns, as medians over the rounds."""
    for loop, iterations in loops:
        loop(min(setting.sizes.warm_up, iterations))
    found: list[list[float]] = [[] for _ in loops]
    for _ in range(setting.sizes.rounds):
        for place, (loop, iterations) in enumerate(loops):
            begin = clock(setting.device)
            loop(iterations)
            found[place].append((clock(setting.device) - begin) / iterations)
    return [statistics.median(each) for each in found]


@cache
def iteration(setting: Setting) -> tuple[float, float]:
    """Return the seconds of an iteration, and of one of plain code in eager float32 (TF32 on a GPU)."""
    sizes, problems = setting.sizes, observed(setting, setting.sizes.side)
    ours, plain = initial_state(problems, sizes.width).advance, plain_loop(problems.observation, sizes.width)
    first, second = seconds_each(setting, [(ours, sizes.iterations), (plain, sizes.plain_iterations)])
    return first, second


def milliseconds(setting: Setting) -> float:
    return 1e3 * iteration(setting)[0]


def over_plain(setting: Setting) -> float:
    ours, plain = iteration(setting)
    return plain / ours


def memory_over_plain(setting: Setting) -> float:
    """Return the peak memory relative to that of plain code, each less the memory in use before."""
    if setting.device == "cpu":
        raise Unmeasured("this needs a GPU")
    sizes, problems = setting.sizes, observed(setting, setting.sizes.side)
    peaks = []
    for make in (
        lambda: initial_state(problems, sizes.width).advance,
        lambda: plain_loop(problems.observation, sizes.width),
    ):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        make()(min(sizes.warm_up, sizes.plain_iterations))
        peaks.append(torch.cuda.max_memory_allocated() - before)
    return peaks[0] / peaks[1]


def batch_speedup(setting: Setting) -> float:
    """Return the speedup of tiles in one batch over tiles one after the other."""
    sizes, problems = setting.sizes, observed(setting, setting.sizes.tile, setting.sizes.tiles)
    batch, alone = (initial_state(chosen, sizes.tile_width).advance for chosen in (problems, problems.select([0])))
    one, all_of_them = seconds_each(setting, [(alone, sizes.iterations), (batch, sizes.iterations)])
    return sizes.tiles * one / all_of_them


def separation(problems: ProblemBatch) -> Iterator[Tensor]:
    """Yield X̂ after each iteration of ``dop separate``."""
    state = RobustSeparation().begin(problems)
    while not state.finished():
        state.advance(1)
        yield state.evaluate().signal[0]


def over_ialm(setting: Setting) -> float:
    """Return the time of IALM with full SVDs to a relative error of 1e-3, relative to that of ``dop separate``.

    The result is a lower bound if IALM is stopped before.
    """
    n = setting.sizes.n
    data = MatrixDataModule(n=n, rank=max(1, n // 50), noise=GrossOutliers(0.1), seeds=2)
    data.setup()
    limit = setting.sizes.rival_seconds
    for problem in data.problems:  # the first one is a warm-up
        ours = time_to_error(separation, problem, setting.device, 1e-3, limit)["reached"].get(1e-3)
    assert ours is not None, "dop separate does not reach an error of 1e-3"
    ialm = partial(convex, partial(InexactALM, precision="float32"))
    torch.linalg.svd(torch.eye(64, device=setting.device))  # load the library before timing the solver
    found = time_to_error(ialm, data.problems[-1], setting.device, 9e-4, limit)
    return found["reached"].get(1e-3, found["errors"][-1][0]) / ours


def seconds_to_paper(setting: Setting) -> float:
    """Return the seconds of the preset ``best`` until it reaches the PSNR of the paper, including captures."""
    sizes, problems = setting.sizes, observed(setting, setting.sizes.side)
    truth = problems.problems[0].truth
    assert truth is not None
    most = sizes.most_iterations or PRESETS["best"].iterations
    truth, best, begin = truth.to(setting.device), 0.0, clock(setting.device)
    state = initial_state(problems, sizes.width)
    while state.iteration < most:
        state.advance(min(50, most - state.iteration))
        error = float((state.evaluate().signal[0].clamp(0, 1) - truth).square().mean())
        best = max(best, -10 * torch.tensor(error).log10().item())
        if best >= PAPER_PSNR or setting.dry:
            return clock(setting.device) - begin
    raise AssertionError(f"{best:.2f} dB after {most} iterations, below {PAPER_PSNR} dB of the paper")


def seconds_of_default(setting: Setting) -> float:
    """Return the seconds of ``recover_image`` with its default settings."""
    y = observed(setting, setting.sizes.side).observation[0]
    given = (255 * y).round().byte().movedim(0, -1).cpu().numpy()
    small = {"width": setting.sizes.width} if setting.dry else {}
    begin = clock(setting.device)
    recover_image(
        given, device=setting.device, iterations=setting.sizes.most_iterations, progress=False, **small
    )  # fmt: skip
    return clock(setting.device) - begin


def failed_tests(setting: Setting) -> float:
    """Return the number of failing tests marked ``gpu``; at least one test must run."""
    if setting.device == "cpu":
        raise Unmeasured("these tests need a GPU")
    report = setting.out / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", f"--junitxml={report}"]
    # replace settings of plugins that may not be installed
    command += ["-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=", "-q"]
    if not torch.backends.cuda.is_built():
        command += ["-p", "tests.pretend_cuda.plugin"]
    if setting.dry:
        command += ["tests/gpu/test_memory.py", "-k", "reserved"]
    else:
        command += ["tests/engine", "tests/model/signals/unet", "tests/problems/test_randomness.py"]
        command += [f"tests/gpu/test_{name}.py" for name in ("images", "matrices", "memory", "methods", "verbs")]
    environment = {
        name: value for name, value in os.environ.items() if name != "DOP_PRETEND_CUDA"
    }  # the plugin sets it
    with (setting.out / "tests.txt").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    assert report.is_file(), f"pytest ended with status {done.returncode}, see {log.name}"
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    run = int(suite.get("tests", "0")) - int(suite.get("skipped", "0"))
    assert run > 0, f"no test ran, see {log.name}"
    return float(suite.get("failures", "0")) + float(suite.get("errors", "0"))


def smoke(claim: Callable[[str], str], setting: Setting) -> str:
    return claim(setting.device)


EVERY = ""
CLAIMS = [
    *(Claim("smoke", name, partial(smoke, claim)) for name, claim in gpu_claims.CLAIMS.items()),
    Claim("tests", "failed tests marked gpu", failed_tests, Bar("≤", {EVERY: 0}, "")),
    Claim("images", "iteration at 512², width 128, bf16", milliseconds, Bar("≤", {"H200": 4.0, "H100": 5.0}, "ms")),
    Claim("images", "speedup over plain eager TF32", over_plain, Bar("≥", {EVERY: 4.0}, "×")),
    Claim("images", "peak memory relative to plain eager TF32", memory_over_plain, Bar("≤", {EVERY: 0.6}, "×")),
    Claim("batches", "speedup of 16 tiles of 128², width 64, in one batch", batch_speedup, Bar("≥", {EVERY: 6.0}, "×")),
    Claim("matrices", "speedup over IALM with full SVDs, n = 4000, to 1e-3", over_ialm, Bar("≥", {EVERY: 20.0}, "×")),
    Claim("paper", "F16 at 512², the default settings", seconds_of_default, Bar("≤", {EVERY: 15.0}, "s")),
    Claim("paper", "F16 at 512², preset best, to the paper's 31.6 dB", seconds_to_paper, Bar("≤", {EVERY: 15.0}, "s")),
]

# ------------------------------------------------------------------------------------------------------------ verdicts


def verdict(claim: Claim, setting: Setting, device: str) -> dict[str, Any]:
    """Verify a claim, and return its row."""
    row: dict[str, Any] = {"part": claim.part, "claim": claim.name}
    limit = claim.bar.on(device) if claim.bar else None
    if claim.bar:
        row |= {"bar": limit, "sign": claim.bar.sign, "unit": claim.bar.unit}
    begin = time.perf_counter()
    try:
        value = claim.measure(setting)
    except Unmeasured as reason:
        row |= {"verdict": "not measured", "said": str(reason)}
    except Exception as error:
        row |= {"verdict": "FAIL", "said": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    else:
        if claim.bar is not None:
            row |= {"value": value}
        if claim.bar is None:
            row |= {"verdict": "PASS", "said": value}
        elif setting.dry and claim.part != "tests":
            row |= {"verdict": "not measured", "said": "sizes are tiny"}
        elif limit is None:
            row |= {"verdict": "not measured", "said": f"{value:.3g} {claim.bar.unit}, no limit for {device}"}
        else:
            kept = claim.bar.is_kept(float(value), limit)
            text = f"{value:.3g} {claim.bar.unit}, limit {claim.bar.sign} {limit:g}"
            row |= {"verdict": "PASS" if kept else "FAIL", "said": text}
    return row | {"seconds": round(time.perf_counter() - begin, 2)}


def device_name(setting: Setting) -> str:
    """Return the name by which limits are looked up."""
    return torch.cuda.get_device_name() if setting.device == "cuda" else "cpu"


def run_here(part: str, setting: Setting) -> None:
    """Measure a part in this process, and print and save a row for each claim."""
    prepare()
    name = device_name(setting)
    with (setting.out / f"{part}.jsonl").open("w", encoding="utf-8") as file:
        for claim in (claim for claim in CLAIMS if claim.part == part):
            row = verdict(claim, setting, name)
            print(line(row), flush=True)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()


def run_apart(part: str, setting: Setting, limit: float) -> str:
    """Measure a part in a separate process, and describe how it ended."""
    command = [sys.executable, __file__, str(setting.image), str(setting.out), "--part", part]
    command += ["--device", setting.device, *(["--dry"] if setting.dry else [])]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return f"the process ended with status {process.wait(limit)}"
    except subprocess.TimeoutExpired:
        return f"not finished within {limit:g} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # including its children
            process.wait()


def rows_of(part: str, setting: Setting, end: str) -> list[dict[str, Any]]:
    """Return the rows of a part; claims without a row count as failed."""
    file = setting.out / f"{part}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = {row["claim"]: row for row in map(json.loads, lines)}
    for claim in CLAIMS:
        if claim.part == part and claim.name not in rows:
            rows[claim.name] = {"part": part, "claim": claim.name, "verdict": "FAIL", "said": end}
            print(line(rows[claim.name]), flush=True)
    return list(rows.values())


def line(row: Mapping[str, Any]) -> str:
    """Format a row."""
    took = f" ({row['seconds']:.1f} s)" if "seconds" in row else ""
    return f"{row['verdict']:<13}{row['part']}: {row['claim']}: {row['said']}{took}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help="F16, 512×512 pixels, in colour, clean")
    parser.add_argument("out", type=Path, help="folder for results.json")
    parser.add_argument("--dry", action="store_true", help="use tiny sizes, to check that everything runs")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu needs --dry")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS), help="default: all")
    parser.add_argument("--part", choices=LIMITS, help=argparse.SUPPRESS)  # run this part in this process
    options = parser.parse_args()
    if not options.image.is_file():
        parser.error(f"{options.image} does not exist")
    if options.device == "cpu" and not options.dry:
        parser.error("--device cpu needs --dry")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device; try --dry --device cpu")
    return options


def main() -> int:
    options = parse()
    setting = Setting(options.device, options.image.resolve(), options.out.resolve(), options.dry)
    setting.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_here(options.part, setting)
        return 0
    begin, name = time.perf_counter(), device_name(setting)
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {name}", flush=True)
    rows = []
    for part in options.parts:
        (setting.out / f"{part}.jsonl").unlink(missing_ok=True)
        if setting.dry:
            run_here(part, setting)
            end = "no result"
        else:
            end = run_apart(part, setting, LIMITS[part])
        rows += rows_of(part, setting, end)
    seconds = time.perf_counter() - begin
    machine = {"torch": torch.__version__, "python": sys.version.split()[0], "device": name}
    atomic_json(setting.out / "results.json", {**machine, "dry": setting.dry, "seconds": seconds, "claims": rows})
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("PASS", "FAIL", "not measured")}
    print(f"{', '.join(f'{count} {verdict}' for verdict, count in counts.items())}, {seconds:.0f} s")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
