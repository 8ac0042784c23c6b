"""Set-up and output of all verbs that run a Trainer: threads, standard callbacks, the folder, the table."""

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml

from dop_lightning.cli import hints
from dop_lightning.cli.experiments.takeover import Takeover, take_over
from dop_lightning.foundation.folder_lock import held_above
from dop_lightning.foundation.launched import given_processes, outer_ranks
from dop_lightning.foundation.machine import keep_freed_memory, set_threads
from dop_lightning.foundation.threads import ThreadChoice, choose_threads
from dop_lightning.lightning.callbacks import (
    CheckpointFolder,
    Manifest,
    ProcessHeartbeat,
    last_checkpoint,
)
from dop_lightning.lightning.callbacks.checkpoint import LAST
from dop_lightning.lightning.data import RecoveryDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher
from dop_lightning.runs.checkpoints import lost_batches
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.growth import KnownRun, find_problems
from dop_lightning.runs.manifest import claim, stamps
from dop_lightning.runs.request import RunRequest
from dop_lightning.runs.results import read_results, render_table, summary_columns

STATUS = {"": 0, "SIGINT": 130, "SIGTERM": 143}
"""Exit status by the signal that stopped the process; empty for none."""

EXIT_RANK_FAILED = 1
"""Exit status if another process of the run failed and its work is not finished."""

MAX_ROWS = 20
"""Maximum number of rows of the table that is printed at the end; ``results.csv`` has all rows."""


def prepare() -> None:
    """Set threads and memory, and suppress messages of Lightning that do not apply, each by its text."""
    set_threads()
    keep_freed_memory()
    # some callbacks of Lightning have enum defaults, which YAML cannot represent
    yaml.representer.SafeRepresenter.add_multi_representer(
        Enum, lambda dumper, choice: dumper.represent_data(choice.value)
    )
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for package_part in ("profilers", "callbacks"):  # their output was requested by the user
        logging.getLogger(f"pytorch_lightning.{package_part}").setLevel(logging.INFO)
    # torch 2.13 deprecates a function that Lightning 2.6 uses to inspect batches
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
    # jsonargparse 4.53 deprecates arguments that LightningCLI 2.6 uses
    warnings.filterwarnings("ignore", message=r"(?s).*(deprecated in v4|JSONARGPARSE_DEPRECATION_WARNINGS)")
    # a run may be resumed and scored without its original callbacks
    warnings.filterwarnings("ignore", message=r"Be aware that when using `ckpt_path`, callbacks used to create")
    # LightningCLI receives its arguments from us, without the verb
    warnings.filterwarnings("ignore", message=r"LightningCLI's args parameter is intended")
    threading.excepthook = _quiet_excepthook
    # the user chose another device; a hint is printed for devices that cannot be used
    warnings.filterwarnings("ignore", message=r".*available but not used.*")
    warnings.filterwarnings("ignore", message=r"(?s)CUDA initialization: .*")


def _quiet_excepthook(error: threading.ExceptHookArgs) -> None:
    """Suppress tracebacks of TensorBoard's thread if the disk is full: the main thread raises the same error."""
    if not isinstance(error.exc_value, OSError):
        threading.__excepthook__(error)


def fit(
    trainer: pl.Trainer,
    module: DoubleOverparameterization,
    data: RecoveryDataModule,
    config_text: str,
    checkpoint: Path | None = None,
    note: str = "",
    take: Callable[[pl.Trainer, Path], Takeover] = take_over,
) -> int:
    """Start a run in its folder, or finish a run that was started there.

    Args:
        trainer: trainer whose ``default_root_dir`` is the folder of the run.
        module: the method.
        data: the problems.
        config_text: the resolved config in YAML.
        checkpoint: checkpoint to resume from; by default the last one of the run, if any.
        note: text that is printed to stderr before the start.
        take: called after the work of this process, to finish the work of others.

    Returns:
        The exit status.
    """
    run = Path(trainer.default_root_dir)
    data.setup("fit")  # raises errors in the data before files are written
    config = yaml.safe_load(config_text)
    request = RunRequest(config, data.wholes, data.mosaics, data.growing)
    seen = stamps(run)
    known = claim(run, request)
    mark = request.fingerprint if known is None else known.fingerprint
    if known is not None:
        _use_known_plan(data, known)
        checkpoint = checkpoint or last_checkpoint(run)
    continues = checkpoint is None or checkpoint == run / LAST  # not a checkpoint that the user has chosen
    threads = _set_threads(trainer, known)
    recorded = threads.threads if known is None else known.threads
    if not _is_single_cpu_process(trainer):
        recorded = None
    if trainer.is_global_zero:
        if known is not None and checkpoint is not None:
            print(f"Resuming the run in {run}{_describe_growth(known)}", file=sys.stderr)
        if known is not None and continues and (lost := lost_batches(run)):
            print(_describe_restart(run, lost), file=sys.stderr)
        if note:
            print(note, file=sys.stderr)
        if threads.reason:
            print(threads.reason, file=sys.stderr)
        if hint := _gpu_hint(trainer, data, config["trainer"].get("accelerator")):
            print(f"Hint: {hint}", file=sys.stderr)
        masks = [(whole.name, whole.mask) for whole in data.wholes if whole.mask is not None]
        for name, mask in masks[:MAX_ROWS]:
            print(f"{name}: {1 - mask.float().mean():.1%} of its values are missing", file=sys.stderr)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.insert(0, Manifest(request, config_text, mark, recorded, seen))
    callbacks.append(ProcessHeartbeat())  # last, since its final heartbeat means that all files are written
    for callback in callbacks:
        if isinstance(callback, CheckpointFolder):
            callback.fingerprint = mark if continues else ""
    try:
        trainer.fit(
            module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True
        )
    except OSError:
        held_above(run.absolute())  # if the folder was moved, that is the reason
        raise
    taken = Takeover() if _stopped_by(trainer, module) else take(trainer, run)
    return _print_end(trainer, module, data, run, taken)


def follow_run(run: Path, data: RecoveryDataModule, config: Mapping[str, Any]) -> None:
    """Set the names and batches of a data module to those of the run in a folder, if any, to evaluate it.

    Raises:
        ValueError: the data lack a problem of the run, or its files have an unsupported version.
    """
    folder = RunFolder(run)
    if folder.has_run:
        data.setup()
        request = RunRequest(config, data.wholes, data.mosaics, data.growing)
        _use_known_plan(data, find_problems(folder, request))


def _use_known_plan(data: RecoveryDataModule, known: KnownRun) -> None:
    data.keep_names(known.names)
    data.plan = known.batches


def _describe_restart(run: Path, lost: Sequence[str]) -> str:
    """Return the line about batches without a checkpoint."""
    labels = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
    what = f"{labels} has" if len(lost) == 1 else f"{len(lost)} batches ({labels}) have"
    return f"{run / LAST}: {what} no checkpoint, restarting from the beginning"


def _describe_growth(known: KnownRun) -> str:
    """Describe the new problems of a run; empty if there are none."""
    new = known.entries.count(None)
    return f", with {new} new problem{'s' if new > 1 else ''}" if new else ""


def _set_threads(trainer: pl.Trainer, known: KnownRun | None) -> ThreadChoice:
    """Set the threads of a run in one process on a CPU. Several processes divide the cores themselves."""
    if not _is_single_cpu_process(trainer):
        return ThreadChoice(torch.get_num_threads())
    choice = choose_threads(None if known is None else known.threads, is_resumed=known is not None)
    torch.set_num_threads(choice.threads)
    return choice


def _is_single_cpu_process(trainer: pl.Trainer) -> bool:
    """Return whether the run has one process, on a CPU."""
    return trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"


def _gpu_hint(trainer: pl.Trainer, data: RecoveryDataModule, accelerator: str | None) -> str:
    """Return a hint about unused GPUs; empty if the user or a cluster chose the devices."""
    if accelerator not in (None, "auto", "gpu", "cuda"):
        return ""
    if trainer.strategy.root_device.type == "cpu":
        return hints.unused_gpu(hints.look())
    if outer_ranks() is not None or given_processes() is not None:
        return ""
    # with the batch size "auto", batches are formed later, as many as devices
    return hints.idle_gpus(hints.look(), trainer.world_size, len(data.batches or data.problems))


def _stopped_by(trainer: pl.Trainer, module: DoubleOverparameterization) -> str:
    """Return the signal that stopped this process, or the others while it waited for them; empty for none."""
    launcher = trainer.strategy.launcher
    return module.stopped_by or (launcher.stopped_by if isinstance(launcher, ChildProcessLauncher) else "")


def _print_end(
    trainer: pl.Trainer, module: DoubleOverparameterization, data: RecoveryDataModule, run: Path, taken: Takeover
) -> int:
    """Print the results of a run and failures, and return the exit status of this process."""
    launcher = trainer.strategy.launcher
    stopped_by = _stopped_by(trainer, module) or taken.stopped_by
    failed: dict[int, str] = {}
    if isinstance(launcher, ChildProcessLauncher) and not stopped_by:
        failed = {trainer.global_rank + local: end for local, end in launcher.failures().items()}
    if trainer.is_global_zero:
        results = read_results(run, [whole.name for whole in data.wholes], brief=True)
        report(run, results)
        names = {result["problem"] for result in results}
        unfinished = sum(whole.name not in names for whole in data.wholes)
        if unfinished and trainer.world_size > 1:
            print(f"{unfinished} of {len(data.wholes)} problems have no result yet", file=sys.stderr)
    for rank, end in failed.items():
        was_taken = "; its work was taken over" if rank in taken.ranks else ""
        print(f"The process of rank {rank} {end}{was_taken}", file=sys.stderr)
    for line in (*taken.left.values(), *taken.failures):
        print(line, file=sys.stderr)
    is_missing = not taken.is_complete or bool(failed.keys() - set(taken.ranks))
    if is_missing and not stopped_by:
        print("Repeat the command to finish the rest", file=sys.stderr)
    if stopped_by and trainer.is_global_zero:
        print(f"Stopped by {stopped_by}; the same command resumes the run", file=sys.stderr)
    return STATUS[stopped_by] or (EXIT_RANK_FAILED if is_missing else 0)


def report(run: Path, results: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Print the table of a run, and the folder of its files."""
    results = read_results(run) if results is None else results
    columns = summary_columns(results)
    if results:
        print(render_table(results[:MAX_ROWS], columns))
    if len(results) > MAX_ROWS:
        print(f"… and {len(results) - MAX_ROWS} more in {run / 'results.csv'}")
    if len(results) > 1:
        for key, title, spec in columns[4:]:
            values = [result[key] for result in results if result.get(key) is not None]
            if values and key != "rank":
                print(f"mean {title}: {format(sum(values) / len(values), spec)}")
    diverged = sum(result["status"] == "diverged" for result in results)
    if diverged:
        print(f"{diverged} of {len(results)} diverged; use a smaller alpha or tau for them", file=sys.stderr)
    print(f"Files: {run}")
