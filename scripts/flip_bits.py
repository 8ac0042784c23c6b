"""Flip single bits in every file of a run, and check that each flip is detected, repaired or without effect.

    python scripts/flip_bits.py --times 500 --case images
    python scripts/flip_bits.py --times 500 --case matrices

The script makes an undisturbed run with a checkpoint. Then, each time in a copy of its folder, it flips one bit of one
file, runs `dop verify`, and starts the same command again in this process. Files take turns. The results must be bit
for bit equal to those of the undisturbed run: `results.csv` except seconds, `metrics.csv`, arrays and pictures. A
config.yaml and a manifest are repaired from their copies. If a start is refused with a line that names the file, no
file may have been written; if the line asks to remove a file, the script does so. TensorBoard's files and logs, which
are never read, are skipped. The exit status is 1 if a flip is missed.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch
from kill_runs import Case, results_of

from dop_lightning.cli.main import main as dop

SKIPPED = ("events.out", "lock", "log.txt")
"""Prefixes of the names of files without checksums."""

ITERATIONS = {"images": 20, "matrices": 1000}


def call(arguments: list[str]) -> tuple[int, str]:
    """Run `dop` in this process, and return its exit status and output."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = dop(arguments)
    return status, out.getvalue() + err.getvalue()


def contents(run: Path) -> dict[str, bytes]:
    """Return arrays, pictures and curves of a run by name."""
    kinds = (".npy", ".png", "histogram.csv", "metrics.csv")
    return {
        str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.name.endswith(kinds)
    }


def difference(run: Path, once: Path) -> str:
    """Describe the differences from the undisturbed run; empty if there are none."""
    if results_of(run)[0] != results_of(once)[0]:
        return "results.csv"
    found, expected = contents(run), contents(once)
    return ", ".join(name for name in expected if found.get(name) != expected[name])


def snapshot(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}


def flip(file: Path, draws: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    file.write_bytes(content)


def outcome(case: Case, run: Path, once: Path, name: str) -> str:
    """Describe how a damaged file was handled; begins with MISSED if that is wrong."""
    verified, report = call(["verify", str(run)])
    if (verified == 1) != (name in report):
        return f"MISSED: dop verify has exit status {verified}: {report.strip()}"
    before = snapshot(run)
    status, output = call(case.arguments(run, None))
    refused = status != 0
    if refused:
        line = output.strip().splitlines()[-1]
        if Path(name).name not in line or "error:" not in line:
            return f"MISSED: {line}"
        if "remove it" not in line:
            return "named, no file written" if snapshot(run) == before else f"MISSED: files were written after {line}"
        (run / name).unlink()
        status, again = call(case.arguments(run, None))
        if status:
            return f"MISSED: {again.strip().splitlines()[-1]}"
    if odd := difference(run, once):
        return f"MISSED: {odd} differs"
    if refused:
        return "named, equal after removing it"
    if Path(name).name in output.replace(str(run / "results.csv"), ""):
        return "named, equal"
    return "found by dop verify, equal" if verified else "without effect, equal"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=500, help="number of bits to flip; default: %(default)s")
    parser.add_argument("--case", choices=tuple(ITERATIONS), default="matrices", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the positions; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    draws, counts, missed = random.Random(options.seed), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        case = Case.make(options.case, Path(folder), ITERATIONS[options.case])
        case.more = (
            "--data.seeds",
            "1",
            *(["--data.images", "[astronaut,chelsea]"] if options.case == "images" else []),
        )
        if options.case == "images":
            case.more += ("--model.alpha", "20")
        else:
            case.more += ("--data.n", "[20,25]", "--model.tau", "2.e-3")
        once, run = Path(folder) / "once", Path(folder) / "run"
        for iterations in (case.iterations // 2, case.iterations):  # the first start leaves a checkpoint
            arguments = case.arguments(run, None)
            arguments[arguments.index("--trainer.max_steps") + 1] = str(iterations)
            status, output = call(arguments)
            assert status == 0, output
        shutil.copytree(run, once)
        names = [str(path.relative_to(once)) for path in sorted(once.rglob("*")) if path.is_file()]
        names = [name for name in names if not Path(name).name.startswith(SKIPPED) and "/processes/" not in name]
        for k in range(options.times):
            name = names[k % len(names)]
            shutil.rmtree(run)
            shutil.copytree(once, run)
            if not (run / name).stat().st_size:
                continue
            flip(run / name, draws)
            what = outcome(case, run, once, name)
            if what.startswith("MISSED"):
                missed += 1
                print(f"{name}: {what}", flush=True)
            kind = Path(name).name if "/batch-" not in name else name.rpartition("/")[0].rpartition("/")[2]
            counts[kind, what.partition(":")[0]] += 1
    for (kind, what), count in sorted(counts.items()):
        print(f"{kind:32s} {what:40s} {count:5d}")
    print(f"{options.case}: {sum(counts.values())} flips, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
