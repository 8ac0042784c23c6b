"""Compare the results of two checkouts of the project bit by bit. A refactoring must not change any result.

    python scripts/compare_runs.py ../before .
    python scripts/compare_runs.py ../before . --case matrix recover_tiles --work /tmp/compared
    python scripts/compare_runs.py --list

Each case runs in both checkouts, one after the other, with the interpreter that runs this script. PYTHONPATH selects
the checkout, which provides its own `configs/`; both use the same generated images and matrices. The script uses only
`python -m dop_lightning` and the public names `recover_image` and `RobustPCA`, so modules may move between the two.

In the folder of a run it compares `results.csv`, `metrics.csv` (in any order of its rows), `result.json`, and all
other tables, arrays and pictures. It also compares the return values of the two functions. It ignores durations, the
description of the machine, checkpoints, `config.yaml`, `manifest.json`, TensorBoard's files and videos, whose frames
are also saved as pictures.

The exit status is 0 if all cases are equal, 1 if a case differs or fails, and 2 for invalid arguments. The seconds
include the start of Python and, in the first image case of a checkout, the compilation of its kernels.
"""

import argparse
import csv
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image

LOBBY = Path(__file__).resolve().parents[2] / "shared" / "data" / "video" / "lobby.avi"

COMPARED = (".csv", ".json", ".npy", ".npz", ".png")
"""Suffixes of the files to compare. Video encoders are not reproducible bit by bit; the frames are compared instead."""

IGNORED = ("checkpoints", "config.yaml", "manifest.json")
"""Entries of a run folder that contain paths, dates or internal state."""

UNEQUAL_KEYS = ("machine", "files", "checksum")
"""Entries of a `result.json` that are not compared; the files that they refer to are."""

SECONDS_PER_RUN = 600
"""Maximum duration of a command; longer ones fail."""

# --------------------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """A command that runs in a separate folder and writes its results to `run/` there.

    Attributes:
        about: description of what the case covers.
        arguments: arguments of Python; `{configs}`, `{inputs}`, `{driver}` and `{video}` are replaced.
        processes: number of processes; they share the threads, and each has at least one.
        killed: whether the command is killed after its first checkpoint and started again.
    """

    about: str
    arguments: tuple[str, ...]
    processes: int = 1
    killed: bool = False

    @property
    def needs_video(self) -> bool:
        return "{video}" in self.arguments


def fit(about: str, configs: str, options: str, processes: int = 1, killed: bool = False) -> Case:
    """Return a case of `dop fit` with configs of the checkout; later ones override earlier ones."""
    layers = [word for name in configs.split() for word in ("--config", f"{{configs}}/{name}.yaml")]
    always = ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", "run"]
    return Case(about, ("-m", "dop_lightning", "fit", *layers, *shlex.split(options), *always), processes, killed)


def verb(about: str, command: str) -> Case:
    """Return a case of `dop recover` or `dop separate`."""
    return Case(about, ("-m", "dop_lightning", *shlex.split(command), "--out", "run", "--device", "cpu"))


SMALL = "--data.images {inputs}/clean.png --model.signal.init_args.width 12"

CASES = {
    "matrix": fit(
        "gradient descent on a batch of symmetric matrices",
        "matrix",
        "--data.n 30 --data.rank 2 --data.seeds 4 --trainer.max_steps 12000",
    ),
    "fast_matrix": fit(
        "semi-implicit steps with a growing rank",
        "matrix fast_matrix",
        "--data.n 60 --data.rank 4 --data.seeds 2 --data.noise.init_args.ratio 0.1 --trainer.max_steps 200",
    ),
    "mf_l1": fit("subgradients of the l1 loss", "matrix mf_l1", "--data.n 30 --data.seeds 2 --trainer.max_steps 5000"),
    "convex": fit(
        "the convex program",
        "matrix convex",
        "--data.n 30 --data.rank 2 --data.seeds 2 --trainer.max_steps 400",
    ),
    "sensing": fit("Gaussian measurements", "sensing", "--data.n 20 --data.seeds 2 --trainer.max_steps 3000"),
    "completion": fit(
        "rectangular matrices with missing entries",
        "completion",
        "--data.n 60 --data.columns 40 --data.rank 2 --data.seeds 2 --trainer.max_steps 2000",
    ),
    "image": fit("gradient descent on a network", "image", f"{SMALL} --trainer.max_steps 120"),
    "refine": fit("Muon and refinement on a network", "image refine", f"{SMALL} --trainer.max_steps 150"),
    "dip_l1": fit("deep image prior with the l1 loss", "image dip_l1", f"{SMALL} --trainer.max_steps 120"),
    "blur": fit("a known blur", "blur", f"{SMALL} --data.resize 64 --trainer.max_steps 100"),
    "grid_two_processes": fit(
        "sizes, noises and seeds shared by two processes",
        "matrix matrix_grid",
        "--data.n '[20, 30]' --data.rank 2 --data.seeds 2 --data.max_memory 1G --trainer.max_steps 5000 "
        "--trainer.devices 2",
        processes=2,
    ),
    "resumed": fit(
        "a refined image, killed and started again",
        "image refine",
        f"{SMALL} --trainer.max_steps 200 --checkpoint.every_minutes 0.02",
        killed=True,
    ),
    "recover": verb(
        "dop recover with the truth known",
        "recover {inputs}/damaged.png --truth {inputs}/clean.png --preset quick --width 8 --iterations 150",
    ),
    "recover_tiles": verb(
        "dop recover --tile", "recover {inputs}/large.png --tile 48 --preset quick --width 8 --iterations 110"
    ),
    "recover_pixel": verb(
        "dop recover --per pixel with a mask",
        "recover {inputs}/damaged.png --mask {inputs}/mask.png --per pixel --preset quick --width 8 --iterations 120",
    ),
    "separate_matrix": verb("dop separate on a matrix with missing entries", "separate {inputs}/matrix.npy"),
    "separate_scene": verb("dop separate on a video", "separate {video} --iterations 60"),
    "recover_image": Case(
        "recover_image on arrays: whole, tiles, mask, floats, pixels, preset paper, many steps",
        ("{driver}", "images", "{inputs}"),
    ),
    "robust_pca": Case(
        "RobustPCA: float64, float32, NaN, with and without the search of alpha", ("{driver}", "matrices", "{inputs}")
    ),
}

DRIVER = '''"""Save the return values of the public functions."""

import sys
from pathlib import Path

import numpy as np

RECOVERY = ("image", "corruption", "mask", "status", "iterations", "alpha")
ESTIMATOR = (
    "low_rank_", "sparse_", "components_", "singular_values_", "mean_", "alpha_", "n_iter_", "rank_", "n_components_"
)


def images(inputs):
    from dop_lightning import recover_image

    damaged = np.load(inputs / "damaged.npy")
    small, mask = damaged[:32, :32], np.load(inputs / "mask.npy")[:32, :32]
    floats = (small[..., 0] / 255).astype(np.float32)
    floats[3:9, 5:15] = np.nan
    calls = {
        "whole": (damaged, {"truth": np.load(inputs / "clean.npy"), "iterations": 130}),
        "tiles": (damaged, {"tile": 40, "iterations": 80}),
        "mask": (small, {"mask": mask, "seed": 1}),
        "floats": (floats, {}),
        "pixel": (small, {"per": "pixel"}),
        "paper": (damaged, {"preset": "paper", "iterations": 40}),
        "long": (damaged[:24, :24], {"iterations": 700}),
    }
    for name, (image, options) in calls.items():
        options = {"preset": "quick", "width": 8, "iterations": 90, **options}
        recovery = recover_image(image, device="cpu", progress=False, **options)
        yield from ((f"{name}.{key}", getattr(recovery, key)) for key in RECOVERY)
        yield from ((f"{name}.history.{tag}", values) for tag, values in sorted(recovery.history.items()))


def matrices(inputs):
    from dop_lightning import RobustPCA

    full, missing = np.load(inputs / "full.npy"), np.load(inputs / "matrix.npy")
    calls = {
        "float64": (full, {}),
        "float32": (full.astype(np.float32), {}),
        "missing": (missing, {}),
        "sqrt": (full, {"alpha": None, "center": False}),
        "sqrt_float32": (missing.astype(np.float32), {"alpha": None, "random_state": 3}),
        "rank_2": (full, {"alpha": 6.0, "n_components": 2, "max_iter": 100}),
    }
    for name, (X, options) in calls.items():
        pca = RobustPCA(**options).fit(X)
        yield from ((f"{name}.{key}", getattr(pca, key)) for key in ESTIMATOR)
        yield f"{name}.transform", pca.transform(X)


found = dict({"images": images, "matrices": matrices}[sys.argv[1]](Path(sys.argv[2])))
Path("run").mkdir()
np.savez("run/returned.npz", **{name: np.asarray(value) for name, value in found.items()})
'''


def make_inputs(folder: Path) -> None:
    """Write the images and matrices for both checkouts."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, clean in (("", _photograph(64, 64)), ("large", _photograph(80, 96))):
        damaged = np.where(rng.random(clean.shape) < 0.3, rng.choice([0, 255], clean.shape), clean).astype(np.uint8)
        for key, values in ({name: damaged} if name else {"clean": clean, "damaged": damaged}).items():
            np.save(folder / f"{key}.npy", values)
            Image.fromarray(values).save(folder / f"{key}.png")
    mask = rng.random((64, 64)) < 0.8
    np.save(folder / "mask.npy", mask)
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / "mask.png")
    outliers = (rng.random((60, 40)) < 0.1) * rng.normal(0, 10, (60, 40))
    full = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 40)) + outliers
    np.save(folder / "full.npy", full)
    np.save(folder / "matrix.npy", np.where(rng.random((60, 40)) < 0.05, np.nan, full))


def _photograph(height: int, width: int) -> np.ndarray:
    """Return an image with smooth colours, a texture and edges: (H, W, 3), uint8."""
    y, x = np.mgrid[:height, :width] / 64
    smooth = np.stack([0.5 + 0.4 * np.sin(3 * x + 2 * y + phase) for phase in (0, 1, 2)], axis=-1)
    smooth += 0.1 * np.sin(40 * (x - y))[..., None]
    smooth[(x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.06] *= [0.4, 0.9, 0.6]
    return (255 * smooth.clip(0.02, 0.98)).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------- comparison


def compare_folders(old: Path, new: Path) -> list[str]:
    """Return a line for each file that differs between two run folders; results and curves come first."""
    ours, theirs = _files(old), _files(new)
    names = sorted(
        {*ours, *theirs},
        key=lambda name: (name != "results.csv", name != "metrics.csv", not name.endswith((".npy", ".npz")), name),
    )
    found = []
    for name in names:
        if name not in ours or name not in theirs:
            found.append(f"{name}: only in {'new' if name in theirs else 'old'}")
        elif difference := compare_files(ours[name], theirs[name]):
            found.append(f"{name}: {difference}")
    return found


def _files(run: Path) -> dict[str, Path]:
    paths = sorted(path for path in run.rglob("*") if path.suffix in COMPARED and path.is_file())
    named = {path.relative_to(run): path for path in paths}
    return {name.as_posix(): path for name, path in named.items() if name.parts[0] not in IGNORED}


def compare_files(old: Path, new: Path) -> str:
    """Describe how two files of the same name differ; empty if they are equal."""
    if old.name in ("results.csv", "metrics.csv"):
        return compare_tables(old, new, ordered=old.name == "results.csv")
    if old.suffix == ".json":
        return _compare_values(_scores(old), _scores(new))
    if old.suffix in (".npy", ".npz"):
        return _compare_saved(np.load(old), np.load(new))
    if old.read_bytes() == new.read_bytes():
        return ""
    if old.suffix == ".png":
        with Image.open(old) as before, Image.open(new) as after:
            return (
                compare_arrays(np.asarray(before), np.asarray(after))
                or "equal pixels, but the bytes of the files differ"
            )
    return f"bytes differ ({old.stat().st_size} in old, {new.stat().st_size} in new)"


def is_duration(column: str) -> bool:
    """Whether a column contains measured time, which is never reproducible."""
    return "seconds" in column.split("_")


def compare_tables(old: Path, new: Path, ordered: bool = True) -> str:
    """Describe how two CSV files differ, ignoring durations; empty if they are equal.

    Args:
        old: file of the first run.
        new: file of the second run.
        ordered: whether the rows must have the same order.
    """
    (columns, rows), (other_columns, other_rows) = _table(old), _table(new)
    if columns != other_columns:
        odd = [name for name in (*columns, *other_columns) if (name in columns) != (name in other_columns)]
        return f"columns {', '.join(odd)} only in one file" if odd else "the order of the columns differs"
    if len(rows) != len(other_rows):
        return f"{len(rows)} rows in old, {len(other_rows)} in new"
    if not ordered:
        rows, other_rows = sorted(rows), sorted(other_rows)
    for k, (row, other) in enumerate(zip(rows, other_rows, strict=True)):
        for column, value, its in zip(columns, row, other, strict=True):
            if value != its:
                return f"row {k + 1} ({row[0]}), {column}: {value!r} in old, {its!r} in new{_difference(value, its)}"
    return ""


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows without durations."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    if not lines:
        return [], []
    kept = [k for k, name in enumerate(lines[0]) if not is_duration(name)]
    header, *rows = [[line[k] if k < len(line) else "" for k in kept] for line in lines]
    return header, rows


def _difference(old: str, new: str) -> str:
    try:
        return f" (difference {abs(float(old) - float(new)):.3g})"
    except ValueError:
        return ""


def _scores(path: Path) -> dict[str, Any]:
    """Return the entries of a `result.json`, without durations and the machine."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if not is_duration(key) and key not in UNEQUAL_KEYS}


def _compare_values(old: dict[str, Any], new: dict[str, Any]) -> str:
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in old or key not in new:
            return f"{key} only in {'new' if key in new else 'old'}"
        before, after = json.dumps(old[key]), json.dumps(new[key])
        if before != after:
            return f"{key}: {before} in old, {after} in new{_difference(before, after)}"
    return ""


def _compare_saved(old: Any, new: Any) -> str:
    """Compare the results of ``np.load``: one array, or several by name."""
    if isinstance(old, np.ndarray):
        return compare_arrays(old, new)
    with old, new:
        for name in [*old.files, *(name for name in new.files if name not in old.files)]:
            if name not in old.files or name not in new.files:
                return f"{name} only in {'new' if name in new.files else 'old'}"
            if difference := compare_arrays(old[name], new[name]):
                return f"{name}: {difference}"
    return ""


def compare_arrays(old: np.ndarray, new: np.ndarray) -> str:
    """Describe how two arrays differ in shape, type or bytes; empty if they are equal."""
    for what in ("shape", "dtype"):
        if getattr(old, what) != getattr(new, what):
            return f"{what} {getattr(old, what)} in old, {getattr(new, what)} in new"
    if old.tobytes() == new.tobytes():
        return ""
    if old.dtype.kind not in "biuf":
        return f"{old.tolist()!r} in old, {new.tolist()!r} in new"
    odd = (old != new) & ~((old != old) & (new != new))
    if not odd.any():
        return "equal values with different bits (signs of zeros, or NaN)"
    gap = np.abs(old[odd].astype(np.float64) - new[odd].astype(np.float64))
    return f"{odd.sum()} of {old.size} entries differ, by at most {gap.max():.3g}"


# ------------------------------------------------------------------------------------------------------------- running


class RunFailed(Exception):
    """A command of a case failed or took too long."""


@dataclass(frozen=True)
class Setting:
    """Settings that all cases share."""

    work: Path
    threads: int
    video: Path

    def run(self, case: Case, checkout: Path, home: Path) -> float:
        """Run a case in a checkout and return its seconds.

        Raises:
            RunFailed: it ended with an error, or took too long.
        """
        home.mkdir(parents=True)
        places = {"configs": checkout / "configs", "inputs": self.work / "inputs", "video": self.video}
        words = [word.format(driver=self.work / "driver.py", **places) for word in case.arguments]
        environment = _environment(checkout, max(1, self.threads // case.processes))
        since = time.perf_counter()
        if case.killed:
            _start(words, home, environment, kill=True)
        _start(words, home, environment)
        return time.perf_counter() - since


def _environment(checkout: Path, threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # spinning threads slow each other down on a busy machine
        "CUDA_VISIBLE_DEVICES": "",
    }


def _start(words: Sequence[str], home: Path, environment: dict[str, str], kill: bool = False) -> None:
    """Run Python with these arguments until it ends or, with `kill`, until it has saved a checkpoint."""
    log, until = home / "log.txt", time.monotonic() + SECONDS_PER_RUN
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=home, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            if not kill:
                process.wait(SECONDS_PER_RUN)
            while kill and process.poll() is None and not any(home.glob("run/checkpoints/last.ckpt/*.pt")):
                if time.monotonic() > until:
                    raise subprocess.TimeoutExpired(process.args, SECONDS_PER_RUN)
                time.sleep(0.02)
            running = process.poll() is None
        except subprocess.TimeoutExpired:
            raise RunFailed(f"took more than {SECONDS_PER_RUN} s ({log})") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if kill and not running:
        raise RunFailed(f"ended before it could be killed, with exit status {process.returncode} ({log})")
    if not kill and process.returncode:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "no output")
        raise RunFailed(f"exit status {process.returncode}: {last} ({log})")


def compare_case(name: str, sides: dict[str, Path], setting: Setting) -> tuple[str, bool]:
    """Run a case in both checkouts.

    Returns:
        The row of the table, and whether the results are equal.
    """
    seconds, problems = {}, []
    for side, checkout in sides.items():
        try:
            seconds[side] = f"{setting.run(CASES[name], checkout, setting.work / name / side):.1f}"
        except RunFailed as error:
            seconds[side] = "-"
            problems.append(f"{side} failed: {error}")
    runs = [setting.work / name / side / "run" for side in sides]
    result = "; ".join(problems)
    if not problems:
        differences, count = compare_folders(*runs), len(_files(runs[0]))
        more = f" (of {len(differences)} files that differ)" if len(differences) > 1 else ""
        result = f"differs: {differences[0]}{more}" if differences else f"equal ({count} file{'s' * (count != 1)})"
        if not differences and not count:
            result = "failed: no results to compare"
    return _row(name, *seconds.values(), result), result.startswith("equal")


def _row(name: str, old: str, new: str, result: str) -> str:
    return f"{name:<20}{old:>8}{new:>8}  {result}"


# ------------------------------------------------------------------------------------------------------------ the call


class Parser(argparse.ArgumentParser):
    """Print one line per error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


class ListCases(argparse.Action):
    """Print the cases and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print("\n".join(f"{name:<20}{case.about}" for name, case in CASES.items()))
        parser.exit(0)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse and check the arguments; errors end the script with exit status 2."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, metavar="OLD", help="checkout from before the change")
    parser.add_argument("new", type=Path, metavar="NEW", help="checkout from after the change")
    parser.add_argument("--case", nargs="+", metavar="NAME", default=list(CASES), help="cases to run; default: all")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads per case; default: %(default)s")
    parser.add_argument("--work", type=Path, metavar="DIR", help="new or empty folder for the runs; by default "
                        "a temporary one, kept if a case differs")  # fmt: skip
    parser.add_argument(
        "--video", type=Path, metavar="PATH", help=f"video of separate_scene; default: {LOBBY.name} if it exists"
    )
    parser.add_argument("--list", action=ListCases, nargs=0, help="print the cases and exit")
    options = parser.parse_args(arguments)
    for message in _mistakes(options):
        parser.error(message)
    options.old, options.new = options.old.resolve(), options.new.resolve()
    return options


def _mistakes(options: argparse.Namespace) -> Iterator[str]:
    for name, path in (("OLD", options.old), ("NEW", options.new)):
        if not (path / "dop_lightning" / "__main__.py").is_file() or not (path / "configs").is_dir():
            yield f"{name} must be a checkout with dop_lightning/ and configs/, got {path}"
    if unknown := [name for name in options.case if name not in CASES]:
        yield f"--case must be one of {', '.join(CASES)}, got {unknown[0]}"
    if options.threads < 1:
        yield f"--threads must be at least 1, got {options.threads}"
    if options.video is not None and not options.video.is_file():
        yield f"--video must be a file, got {options.video}"
    if (work := options.work) is not None:
        if work.exists() and (not work.is_dir() or any(work.iterdir())):
            yield f"--work must be a new or empty folder, got {work}"
        if any(work.resolve().is_relative_to(path.resolve()) for path in (options.old, options.new)):
            yield f"--work must be outside both checkouts, got {work}"


def imported_from(checkout: Path, work: Path) -> str:
    """Return the folder that the package is imported from if a checkout is selected, or the error of the import."""
    command = [sys.executable, "-c", "import dop_lightning; print(dop_lightning.__file__)"]
    done = subprocess.run(command, cwd=work, env=_environment(checkout, 1), capture_output=True, text=True, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return str(Path(done.stdout.strip()).resolve().parents[1])


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # also ends the running command
    work = Path(tempfile.mkdtemp(prefix="compare_runs-")) if options.work is None else options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sides = {"old": options.old, "new": options.new}
    for side, checkout in sides.items():
        if (found := imported_from(checkout, work)) != str(checkout):
            name = Path(__file__).name
            print(f"{name}: error: {side.upper()} must be importable as {checkout}, got {found}", file=sys.stderr)
            return 2
    make_inputs(work / "inputs")
    (work / "driver.py").write_text(DRIVER, encoding="utf-8")
    setting = Setting(work, options.threads, (options.video or LOBBY).resolve())
    print(_row("case", "old s", "new s", "result"))
    equal = True
    for name in dict.fromkeys(options.case):
        if CASES[name].needs_video and not setting.video.is_file():
            print(_row(name, "-", "-", "skipped: no video, pass --video"), flush=True)
            continue
        row, same = compare_case(name, sides, setting)
        print(row, flush=True)
        equal = equal and same
    if options.work is None and equal:
        shutil.rmtree(work)
    else:
        print(f"The runs are in {work}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
