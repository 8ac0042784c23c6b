"""Apply random sequences of events to the folder of a run, and compare the results with those of an undisturbed run.

    python scripts/check_run_folders.py --sequences 200
    python scripts/check_run_folders.py --sequences 20 --seed 3 --cases matrices

A sequence consists of starts, kills and signals before any file operation, full disks, growth, moves of the folder,
damage of any file, second starts, and of `dop verify`, `status`, `table` and `report`. See `run_folder_machine.py`. The
rows of `results.csv` except seconds, arrays, pictures and curves must be bit for bit equal to those of a run with the
same growth and no other events. No traceback may be printed, and no temporary file may be left. Each seed draws 20
sequences. For a failing sequence, the script prints the seed and the shortest steps that reproduce the failure. The
exit status is 1 if a sequence fails.
"""

import argparse
import contextlib
import io
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from run_folder_cases import CASES
from run_folder_machine import Place, RunFolderMachine

from dop_lightning.lightning.callbacks.checkpoint import CheckpointFolder

OF_A_SEED = 20
"""Number of sequences per seed."""


def save_after_each_block() -> None:
    """Let all runs save after each block of iterations: these runs are short, and checkpoints are saved by time."""
    CheckpointFolder.on_train_batch_end = lambda self, trainer, *_: self.save(trainer)  # type: ignore[method-assign]


def check(number: int, sequences: int, steps: int, shrink: bool) -> str:
    """Run the sequences of one seed. Return the failure of one of them, or an empty string."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    chosen = settings(
        max_examples=sequences,
        stateful_step_count=steps,
        phases=phases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(number)(RunFolderMachine), settings=chosen)
    except Exception as error:
        found = [
            error,
            *getattr(error, "exceptions", ()),
        ]  # if the failure was not reproducible
        lines = [f"{type(each).__name__}: {each}" for each in found]
        return "\n".join([*lines, *(note for each in found for note in getattr(each, "__notes__", []))])
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="first seed; default: %(default)s")
    parser.add_argument("--steps", type=int, default=8, help="maximum steps per sequence; default: %(default)s")
    parser.add_argument("--cases", nargs="+", choices=tuple(CASES), default=list(CASES), help="default: all")
    parser.add_argument("--no-shrink", action="store_true", help="print a failing sequence without minimizing it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    save_after_each_block()
    folder = tempfile.mkdtemp(prefix="runs-")
    failed, done = 0, 0
    try:
        place = RunFolderMachine.place = Place(Path(folder).resolve())
        RunFolderMachine.names = tuple(options.cases)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            place.warm(options.cases)
        for number in range(options.seed, options.seed + math.ceil(options.sequences / OF_A_SEED)):
            place.sequences = 0
            wanted = min(OF_A_SEED, options.sequences - done)
            odd = check(number, wanted, options.steps, not options.no_shrink)
            done += wanted
            failed += bool(odd)
            print(f"seed {number}: {odd or f'{place.sequences} sequences, all equal'}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for what, count in sorted(place.outcomes.items()):
        print(f"{count:6d}  {what}")
    print(f"{done} sequences, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
