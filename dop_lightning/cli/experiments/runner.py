"""What every verb that runs a Trainer does before and after: threads, standard callbacks, the folder, the table."""

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
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.growth import KnownRun, find_problems
from dop_lightning.runs.manifest import claim, stamps
from dop_lightning.runs.request import RunRequest
from dop_lightning.runs.results import read_results, render_table, summary_columns

STATUS = {"": 0, "SIGINT": 130, "SIGTERM": 143}
"""The exit status of a process that was stopped by a signal, or by none."""

EXIT_RANK_FAILED = 1
"""Another process of the run has failed; the others have done their part."""

MOST_ROWS = 20
"""Rows of the table that is printed at the end; ``results.csv`` has all."""


def prepare() -> None:
    """Set threads and memory, and silence what Lightning says that does not help here, each by its name."""
    set_threads()
    keep_freed_memory()
    # callbacks of Lightning have choices for defaults, which YAML has no form for
    yaml.representer.SafeRepresenter.add_multi_representer(
        Enum, lambda dumper, choice: dumper.represent_data(choice.value)
    )
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for asked_for in ("profilers", "callbacks"):  # what they print is what a user has asked for
        logging.getLogger(f"pytorch_lightning.{asked_for}").setLevel(logging.INFO)
    # torch 2.13 deprecates what Lightning 2.6 inspects a batch with
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
    # jsonargparse 4.53 deprecates what LightningCLI 2.6 calls it with
    warnings.filterwarnings("ignore", message=r"(?s).*(deprecated in v4|JSONARGPARSE_DEPRECATION_WARNINGS)")
    # a run may be resumed, and scored, without the callbacks that it was started with
    warnings.filterwarnings("ignore", message=r"Be aware that when using `ckpt_path`, callbacks used to create")
    # we pass LightningCLI its arguments, without the verb
    warnings.filterwarnings("ignore", message=r"LightningCLI's args parameter is intended")
    threading.excepthook = _quiet_excepthook
    # there is a device, and the user chose another; one that cannot be used is told by a hint
    warnings.filterwarnings("ignore", message=r".*available but not used.*")
    warnings.filterwarnings("ignore", message=r"(?s)CUDA initialization: .*")


def _quiet_excepthook(error: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread dies of a full disk with a traceback, and its owner raises the same error again."""
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
    """Start a run in its folder, or finish one that was started there.

    Args:
        trainer: with ``default_root_dir`` the folder of the run.
        module: the method.
        data: the problems.
        config_text: the resolved config, YAML.
        checkpoint: where to go on from; by default the last one of the same run, if there is one.
        note: said on stderr before the start.
        take: lets others finish what this process does not, after its own work.

    Returns:
        The exit status.
    """
    run = Path(trainer.default_root_dir)
    data.setup("fit")  # a mistake in the data shows before anything is written
    config = yaml.safe_load(config_text)
    request = RunRequest(config, data.wholes, data.mosaics, data.growing)
    seen = stamps(run)
    known = claim(run, request)
    mark = request.fingerprint if known is None else known.fingerprint
    if known is not None:
        _follow(data, known)
        checkpoint = checkpoint or last_checkpoint(run)
    threads = _set_threads(trainer, known)
    recorded = threads.threads if known is None else known.threads
    if not _is_one_on_cpu(trainer):
        recorded = None
    if trainer.is_global_zero:
        if known is not None and checkpoint is not None:
            print(f"Resuming the run in {run}{_growth(known)}", file=sys.stderr)
        if note:
            print(note, file=sys.stderr)
        if threads.reason:
            print(threads.reason, file=sys.stderr)
        if hint := _hint(trainer, data, config["trainer"].get("accelerator")):
            print(f"Hint: {hint}", file=sys.stderr)
        masks = [(whole.name, whole.mask) for whole in data.wholes if whole.mask is not None]
        for name, mask in masks[:MOST_ROWS]:
            print(f"{name}: {1 - mask.float().mean():.1%} of its values are missing", file=sys.stderr)
    callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks.insert(0, Manifest(request, config_text, mark, recorded, seen))
    callbacks.append(ProcessHeartbeat())  # its last sign says that all files are written
    for callback in callbacks:
        if isinstance(callback, CheckpointFolder):
            callback.mark = mark if checkpoint is None or checkpoint == run / LAST else ""
    try:
        trainer.fit(
            module, datamodule=data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True
        )
    except OSError:
        held_above(run.absolute())  # if the folder was moved, that is the reason
        raise
    taken = Takeover() if _stopped_by(trainer, module) else take(trainer, run)
    return _end(trainer, module, data, run, taken)


def follow_run(run: Path, data: RecoveryDataModule, config: Mapping[str, Any]) -> None:
    """Let a data module have the names and batches of the run in a folder, if there is one, to evaluate it.

    Raises:
        ValueError: the data lack a problem of the run, or its files are of a version that cannot be read.
    """
    folder = RunFolder(run)
    if folder.has_run:
        data.setup()
        request = RunRequest(config, data.wholes, data.mosaics, data.growing)
        _follow(data, find_problems(folder, request))


def _follow(data: RecoveryDataModule, known: KnownRun) -> None:
    data.keep_names(known.names)
    data.plan = known.batches


def _growth(known: KnownRun) -> str:
    """What a run grows by, in words; empty if it does not."""
    new = known.entries.count(None)
    return f", with {new} new problem{'s' if new > 1 else ''}" if new else ""


def _set_threads(trainer: pl.Trainer, known: KnownRun | None) -> ThreadChoice:
    """Set the threads of a run in one process on a CPU; several processes divide the cores among them."""
    if not _is_one_on_cpu(trainer):
        return ThreadChoice(torch.get_num_threads())
    choice = choose_threads(None if known is None else known.threads, is_resumed=known is not None)
    torch.set_num_threads(choice.threads)
    return choice


def _is_one_on_cpu(trainer: pl.Trainer) -> bool:
    """Return whether the run has one process, on a CPU."""
    return trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"


def _hint(trainer: pl.Trainer, data: RecoveryDataModule, accelerator: str | None) -> str:
    """What is said of GPUs that could be used and are not; nothing where the user has chosen, or others have."""
    if accelerator not in (None, "auto", "gpu", "cuda"):
        return ""
    if trainer.strategy.root_device.type == "cpu":
        return hints.unused_gpu(hints.look())
    if outer_ranks() is not None or given_processes() is not None:
        return ""
    # with the size «auto» batches are formed later, as many as there are devices for
    return hints.idle_gpus(hints.look(), trainer.world_size, len(data.batches or data.problems))


def _stopped_by(trainer: pl.Trainer, module: DoubleOverparameterization) -> str:
    """The signal that has stopped this process, or the others while it waited for them; empty for none."""
    launcher = trainer.strategy.launcher
    return module.stopped_by or (launcher.stopped_by if isinstance(launcher, ChildProcessLauncher) else "")


def _end(
    trainer: pl.Trainer, module: DoubleOverparameterization, data: RecoveryDataModule, run: Path, taken: Takeover
) -> int:
    """Tell what has become of a run, and give the exit status of this process."""
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
    """Print the table of a run and where its files are."""
    results = read_results(run) if results is None else results
    columns = summary_columns(results)
    if results:
        print(render_table(results[:MOST_ROWS], columns))
    if len(results) > MOST_ROWS:
        print(f"… and {len(results) - MOST_ROWS} more in {run / 'results.csv'}")
    if len(results) > 1:
        for key, title, spec in columns[4:]:
            values = [result[key] for result in results if result.get(key) is not None]
            if values and key != "rank":
                print(f"mean {title}: {format(sum(values) / len(values), spec)}")
    diverged = sum(result["status"] == "diverged" for result in results)
    if diverged:
        print(f"{diverged} of {len(results)} diverged: a smaller alpha or tau is needed there", file=sys.stderr)
    print(f"Files: {run}")
