"""Inject faults of disks and files into runs: a full disk, a folder that becomes read-only, truncated checkpoints.

    python scripts/inject_faults.py

After each fault, the same command is started again. Its results must equal those of an undisturbed run. The script
mounts small in-memory file systems, which requires Linux; if it is not run as root, it creates a user namespace.
"""

import argparse
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from kill_runs import Case, difference

from dop_lightning.cli.main import main as dop

SMALL, LARGE = "700k", "100m"
"""Sizes of the file system: enough for a checkpoint but not for all files, and enough for all files."""


OBEYING = ("setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override")
"""Prefix of a command of root that respects file permissions."""


def mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)


def log_of(case: Case, run: Path) -> str:
    """Return the last nonempty line of the log."""
    lines = (case.home / f"{run.name}.log").read_text().split("\n")
    return next(line for line in reversed(lines) if line.strip())


def disk(case: Case, once: Path, kind: str) -> bool:
    """Fill the disk, or make the folder read-only, during a run."""
    run = case.home / f"{case.name}-{kind}"
    run.mkdir()
    mount(run, f"size={SMALL if kind == 'full' else LARGE}")
    try:
        process = case.start(run, 1, () if kind == "full" else OBEYING)
        if kind != "full":
            while process.poll() is None and not list(run.glob("checkpoints/last.ckpt/*.pt")):
                time.sleep(0.02)
            subprocess.run(["chmod", "-R", "a-w", str(run)], check=True)
        status = process.wait()
        lines = (case.home / f"{run.name}.log").read_text().splitlines()
        message = next((line for line in reversed(lines) if "error:" in line), "no message")
        saved = len(list(run.glob("checkpoints/last.ckpt/batch-????.pt")))
        halves = [path.name for path in run.rglob("*.tmp")]
        tracebacks = sum("Traceback" in line for line in lines)
        subprocess.run(["mount", "-o", f"remount,rw,size={LARGE}", str(run)], check=True)
        subprocess.run(["chmod", "-R", "u+w", str(run)], check=True)
        again = case.finish(run, 1)
        resumed = "Resuming" in (case.home / f"{run.name}.log").read_text()
        odd = difference(run, once) if again == 0 else f"exit status {again}"
    finally:
        subprocess.run(["umount", "-l", str(run)], check=False)
    good = status == 2 and saved > 0 and resumed and not (odd or halves or tracebacks)
    print(f"{case.name}, {kind}: exit status {status}; {message.replace(str(case.home), '…')}")
    print(
        f"  {saved} batches saved, half-written files {halves or 'none'}, tracebacks {tracebacks}; after the repair, "
        f"the same command {'resumes' if resumed else 'STARTS AGAIN'}: {'UNEQUAL: ' + odd if odd else 'equal'}",
        flush=True,
    )
    return good


def unwritable(case: Case) -> bool:
    """Run in a folder that is read-only from the start."""
    run = case.home / f"{case.name}-never"
    run.mkdir()
    mount(run, "ro,size=1m")
    try:
        status = case.finish(run, 1)
        message = log_of(case, run)
    finally:
        subprocess.run(["umount", "-l", str(run)], check=False)
    print(f"{case.name}, not writable from the start: exit status {status}; {message.replace(str(case.home), '…')}")
    return status == 2 and "error:" in message


def cut(case: Case, once: Path, places: int) -> bool:
    """Truncate the last file of a batch at evenly spaced places; the run must resume from the previous file."""
    half, run = case.home / f"{case.name}-half", case.home / f"{case.name}-cut"
    arguments = case.arguments(half, None)
    for k in (3, 2):  # two checkpoints, at a third and at a half of the iterations
        arguments[arguments.index("--trainer.max_steps") + 1] = str(case.iterations // k)
        assert call(arguments)[0] == 0
    good = 0
    for k in range(places):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(half, run)
        file = run / "checkpoints" / "last.ckpt" / "batch-0001.pt"
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * k // places])
        status, output = call(case.arguments(run, None))
        named = f"{file}: damaged" in output and "resuming from the previous file" in output
        good += status == 0 and named and not difference(run, once)
    print(
        f"{case.name}, checkpoint of {len(content)} bytes cut at {places} places: {good} times named, "
        "resumed from the previous one, and equal at the end",
        flush=True,
    )
    return good == places


def call(arguments: list[str]) -> tuple[int, str]:
    """Run ``dop`` in this process, and return its exit status and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = dop(arguments)
    return status, err.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--places", type=int, default=100, help="number of places to truncate a checkpoint at; default: %(default)s"
    )
    parser.add_argument("--iterations", type=int, help="number of iterations; default: about ten seconds")
    parser.add_argument("--case", choices=("images", "matrices"), default="matrices", help="default: %(default)s")
    options = parser.parse_args()
    if os.geteuid() != 0:
        os.execvp("unshare", ["unshare", "-rm", sys.executable, *sys.argv])
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = Case.make(options.case, Path(folder), options.iterations)
        once = case.home / f"{case.name}-once"
        case.finish(once, 1)
        results = [disk(case, once, "full"), disk(case, once, "no longer writable"), unwritable(case)]
        short = Case(case.name, case.home, max(300, case.iterations // 20))
        assert short.finish(case.home / "short", 1) == 0
        results.append(cut(short, case.home / "short", options.places))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
