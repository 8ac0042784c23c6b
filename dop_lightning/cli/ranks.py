"""``dop separate --devices N``, or with torchrun or srun: separate matrices whose rows are spread over processes."""

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import FrameType

import torch

from dop_lightning.cli.options import DEVICES
from dop_lightning.cli.pieces import add_result, checked_names, held, large_matrices, print_results, say
from dop_lightning.engine.projections import AlternatingProjections
from dop_lightning.engine.projections.ranks import LostRankError, Ranks
from dop_lightning.foundation.checks import at_least, one_of
from dop_lightning.foundation.find import existing_file
from dop_lightning.foundation.launched import CHILD, PLACE, Place, is_child, is_orphan
from dop_lightning.foundation.machine import set_threads
from dop_lightning.foundation.process_group import MEETING_VARIABLE, PREFIX, Meeting, joined
from dop_lightning.foundation.tracebacks import wants_traceback
from dop_lightning.foundation.user_paths import user_path
from dop_lightning.matrices.distributed import Stop, StoppedError, require_rows
from dop_lightning.matrices.mapped import UnconfirmedError, separate_mapped
from dop_lightning.matrices.storage import places
from dop_lightning.matrices.storage.formats import STRIP_SUFFIXES, open_matrix, strip_suffix
from dop_lightning.matrices.table_strips import is_table

EXIT_FAILED = 2

EXIT_STOPPED = {"SIGINT": 130, "SIGTERM": 143, "orphan": 1}

SECOND_SIGNAL_DELAY = 2.0
"""Seconds after a signal before another one ends this process immediately: one Ctrl-C may be delivered twice."""

PRECEDENCE = 1.0
"""Seconds that a process waits after it lost another one, so that the latter reports its error first."""

KILL_DELAY = 20.0
"""Seconds after the failure of a process until the others are killed."""

COMMAND = (sys.executable, "-m", "dop_lightning", "separate")


def spread_files(options: argparse.Namespace, place: Place | None) -> list[places.Place]:
    """Return the matrices if their rows are to be spread over processes, otherwise none.

    Args:
        options: options of ``dop separate``.
        place: rank of this process under torchrun or SLURM, if any. In that case, and without ``--devices``, only
            matrices that are too large to be read at once are spread.

    Raises:
        ValueError: ``--devices`` is out of range, or not compatible with the data or the other options.
        FileNotFoundError: a file does not exist.
        ImportError: the library that reads the format is not installed.
    """
    if options.devices is None:
        return large_matrices(options) if place is not None else []
    at_least("devices", options.devices, 1)
    if place is not None and place.size != options.devices:
        raise ValueError(f"--devices must be {place.size}, the number of processes started, got {options.devices}")
    if options.devices == 1:
        return []
    if options.method not in ("auto", "projections") or options.alpha is not None:
        raise ValueError(f"--devices must be 1 for any method but projections, got {options.devices}")
    files = [places.locate(data) for data in options.data]
    for file in files:
        if strip_suffix(file.path) is None and not is_table(file.path):
            raise ValueError(
                f"--devices must be 1 for data other than tables and matrices in {', '.join(STRIP_SUFFIXES)} files, "
                f"got {options.devices} and {file}"
            )
    return files


def run(
    options: argparse.Namespace, arguments: Sequence[str], files: Sequence[places.Place], place: Place | None
) -> int:
    """Separate matrices one after the other, each with all processes.

    Args:
        options: options of ``dop separate``.
        arguments: the unparsed options.
        files: the matrices.
        place: rank of this process; ``None`` starts the processes.

    Returns:
        The exit status.

    Raises:
        ValueError: an option does not apply, two files have the same name, or a matrix cannot be separated.
        FileNotFoundError: a file does not exist.
        ImportError: the library that reads the format is not installed.
    """
    names = checked_names(options, files, "matrices that are spread over processes")
    one_of("device", options.device, DEVICES)
    for file in files:
        if is_table(file.path):  # the shape of tables is unknown until they are copied
            existing_file(file.path)
            continue
        n, m = open_matrix(file).shape
        require_rows(n, m, place.size if place else options.devices, str(file))
    return (
        _start_processes(options, arguments)
        if place is None
        else _run_rank(options, dict(zip(names, files, strict=True)), place)
    )


# ------------------------------------------------------------------------------------------------ the first process


def _start_processes(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Start the processes on this machine, forward signals to them, and wait for them."""
    name, size = secrets.token_hex(16), options.devices
    processes: list[subprocess.Popen] = []
    stopped = ""

    def pass_on(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            print("\nStopping after this pass (repeat to stop at once)", file=sys.stderr)
        stopped = stopped or signal.Signals(number).name
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank in range(size):
            own = {CHILD: str(os.getpid()), PLACE: f"{rank}/{size}/{rank}/{size}", MEETING_VARIABLE: name}
            # in separate sessions, so that they receive Ctrl-C only once, from this process
            started = subprocess.Popen([*COMMAND, *arguments], env={**os.environ, **own}, start_new_session=True)
            processes.append(started)
        first = _wait(processes)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        for process in processes:
            process.kill()
    folder = user_path(options.out)
    failure = folder / f"{PREFIX}failure-{name}"
    text = failure.read_text(encoding="utf-8") if failure.is_file() else ""
    for left in folder.glob(f"{PREFIX}*{name}*"):
        left.unlink(missing_ok=True)
    if first is None:
        return 0
    if stopped and not text:
        return EXIT_STOPPED[stopped]
    code = processes[first].returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    lost = f"process {first} of {size} {how}; the same command resumes from the last saved pass"
    raise ValueError(text if text and code >= 0 else lost)


def _wait(processes: Sequence[subprocess.Popen]) -> int | None:
    """Wait for all processes to end; return the number of the first one that failed."""
    first, deadline = None, float("inf")
    while True:
        codes = [process.poll() for process in processes]
        if first is None and any(codes):
            first, deadline = next(rank for rank, code in enumerate(codes) if code), time.monotonic() + KILL_DELAY
        if None not in codes:
            return first
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)


# --------------------------------------------------------------------------------------------------- every process


class _Signals:
    """Signal handler: the first signal stops this process after the current pass, another one immediately."""

    def __init__(self) -> None:
        self.reason: Stop = ""
        self._came = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.reason and time.monotonic() - self._came > SECOND_SIGNAL_DELAY:
            raise KeyboardInterrupt
        if not self.reason:
            self.reason = "SIGINT" if number == signal.SIGINT else "SIGTERM"
            self._came = time.monotonic()

    def __call__(self) -> Stop:
        return "orphan" if is_orphan() else self.reason


def _run_rank(options: argparse.Namespace, files: Mapping[str, places.Place], place: Place) -> int:
    """Do the work of this process."""
    signals = _Signals()
    set_threads(place.local_size)
    meeting = Meeting(user_path(options.out), place)
    device = _device(options.device, place)
    with joined(meeting, device):
        try:
            with held(user_path(options.out)) if place.rank == 0 else nullcontext():
                failures = _separate(options, files, device, signals)
        except StoppedError as stopped:
            if place.rank == 0:
                print("Stopped; the same command resumes", file=sys.stderr)
            return EXIT_STOPPED[stopped.reason]
        except KeyboardInterrupt:
            return EXIT_STOPPED["SIGINT"]
        except LostRankError:
            time.sleep(PRECEDENCE)
            text = f"one of the {place.size} processes ended early; the same command resumes from the last saved pass"
            return _report_error(meeting, text)
        except (ImportError, ValueError) as error:
            return _report_error(meeting, " ".join(str(error).split()))
        except Exception as error:
            if wants_traceback():
                raise
            text = " ".join(str(error).split())
            what = f"{type(error).__name__}: {text}" if text else type(error).__name__
            return _report_error(meeting, f"process {place.rank} of {place.size}: {what}")
    if failures:
        return _report_error(meeting, "; ".join(failures))
    if place.rank == 0:
        print_results(options.out)
        meeting.store.unlink(missing_ok=True)
    return 0


def _report_error(meeting: Meeting, text: str) -> int:
    """Print the error, unless the parent process prints it."""
    if meeting.record_failure(text) and not is_child():
        print(f"dop separate: error: {text}", file=sys.stderr)
    return EXIT_FAILED


def _separate(
    options: argparse.Namespace, files: Mapping[str, places.Place], device: torch.device, signals: _Signals
) -> list[str]:
    """Separate all matrices; return the errors of those that are not confirmed."""
    solver = AlternatingProjections(rank=options.rank)
    out, failures = user_path(options.out), []
    for name, file in files.items():
        ranks = Ranks(device=device)
        try:
            result = separate_mapped(
                str(file),
                out / name,
                solver,
                options.seed,
                say,
                options.iterations,
                options.index or (),
                ranks,
                signals,
            )
        except UnconfirmedError as error:  # raised in all processes, which continue with the other matrices
            failures.append(str(error))
            continue
        if ranks.rank == 0:
            add_result(out, name, result)
    return failures


def _device(name: str, place: Place) -> torch.device:
    """Return the device of this process: one GPU per process if there are enough.

    Raises:
        ValueError: the machine has fewer GPUs than processes, or they are not CUDA devices.
    """
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    if name == "mps" or count < place.local_size:
        raise ValueError(
            f"--device must be cpu for {place.local_size} processes on a machine with {count} CUDA devices, "
            f"got {name!r}"
        )
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)
