"""Read and write checkpoints: folders with a current and a previous file per batch of problems, or single files."""

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import __version__ as lightning_version

from dop_lightning.foundation.atomic import make_folder, write_atomically
from dop_lightning.foundation.renamed import RenamedAttribute, renamed_arguments
from dop_lightning.foundation.saved_state import check_archive, damage, load_state, save_state
from dop_lightning.runs.checkpoints import (
    CALLBACKS,
    CALLBACKS_COPY,
    FORMAT,
    RECOVERY,
    check_file_content,
    previous,
    read_batch,
)

WRITERS = 4
"""Number of files that are written concurrently, since each write mostly waits for the disk."""

Problems = dict[str, dict[str, Any]]
"""Saved entries of the problems of a batch, by name."""


@dataclass(frozen=True, slots=True)
class StateInFile:
    """State of a problem in a file of a checkpoint folder.

    Args:
        folder: the checkpoint folder.
        batch: name of the file of its batch, without ``.pt``.
        name: name of the problem.
    """

    folder: Path
    batch: str
    name: str

    def load(self) -> dict[str, Any]:
        """Read the state.

        Raises:
            ValueError: the file is damaged.
        """
        state: dict[str, Any] = read_batch(self.folder / f"{self.batch}.pt")["problems"][self.name]["state"]
        return state


class FolderCheckpointIO(CheckpointIO):
    """Save checkpoints as folders, in which each batch has the files ``<batch>.pt`` and ``<batch>.previous.pt``.

    The problems of a batch share one file, so that they resume from the same iteration if a process is killed. A file
    is written under a temporary name and renamed, and the previous one is kept: a reader finds either a new or an old
    file, never a partial one. Processes that work on different batches of a run share a folder. A batch without changes
    is not written again.

    Other checkpoints, saved by ``trainer.save_checkpoint`` or ``ModelCheckpoint``, are ordinary files.

    Args:
        fingerprint: fingerprint of the run; files of other runs are refused. If empty, files of any run are accepted.
        only: returns the names of the batches to read, or ``None`` for all.
        files: plugin that reads and writes ordinary files, usually the trainer's previous plugin.
        stays: returns whether the state of a problem stays on disk until it is needed, given its name.
    """

    @renamed_arguments(mark="fingerprint")
    def __init__(
        self,
        fingerprint: str = "",
        only: Callable[[], set[str] | None] = lambda: None,
        files: CheckpointIO | None = None,
        stays: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.fingerprint = fingerprint
        self.only = only
        self.stays = stays
        self.files: CheckpointIO = (
            files.files if isinstance(files, FolderCheckpointIO) else files or TorchCheckpointIO()
        )
        self._reserved: set[Path] = set()
        self._written: dict[Path, dict[str, int]] = {}  # hash of the progress of each batch, by folder
        self._damaged: set[Path] = set()

    def reserve(self, folder: Path) -> None:
        """Reserve the path of the run's checkpoint folder, so that no file is written there."""
        self._reserved.add(folder.absolute())

    @property
    def has_folder(self) -> bool:
        """Whether the run has a checkpoint folder, to which states of problems can be moved."""
        return bool(self._reserved)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the batches ``checkpoint["batches"]`` to the folder ``path``; without batches, write the file ``path``.

        Files of several batches are written concurrently.

        Raises:
            OSError: a file cannot be written; the previous one is kept.
            ValueError: the path of the file is the checkpoint folder of the run.
        """
        folder = Path(path)
        if "batches" not in checkpoint:
            if folder.is_dir() or folder.absolute() in self._reserved:
                raise ValueError(
                    f"{path}: is the checkpoint folder of the run; write checkpoint files elsewhere, such as "
                    "ModelCheckpoint(dirpath=…)"
                )
            self.files.save_checkpoint(checkpoint, path, storage_options)
            return
        make_folder(folder)
        with ThreadPoolExecutor(WRITERS, "checkpoint") as pool:
            writing: deque[Future[None]] = deque()
            batches = checkpoint["batches"]
            progress = getattr(batches, "progress", lambda batch: batches[batch])
            for batch in batches:
                file = folder / f"{batch}.pt"
                if self._is_written(file, progress(batch)):
                    continue
                if len(writing) == WRITERS:  # limits the memory of waiting batches
                    writing.popleft().result()
                writing.append(pool.submit(self._save_batch, file, batches[batch]))
            for written in writing:
                written.result()
        if callbacks := checkpoint.get("callbacks"):
            for name in (CALLBACKS, CALLBACKS_COPY):
                write_atomically(folder / name, lambda stream: save_state({"callbacks": callbacks}, stream))

    def _is_written(self, file: Path, problems: Problems) -> bool:
        """Return whether the file of a batch contains the current progress of its problems."""
        return self._written_hashes(file.parent).get(file.stem) == _progress_hash(problems) and file.exists()

    def _written_hashes(self, folder: Path) -> dict[str, int]:
        return self._written.setdefault(folder, {})

    def _save_batch(self, file: Path, problems: Problems) -> None:
        """Write the file of a batch."""
        stage = _progress_hash(problems)
        self._replace(file, {"format": FORMAT, "run": self.fingerprint, "time": time.time(), "problems": problems})
        self._written_hashes(file.parent)[sys.intern(file.stem)] = stage

    def _replace(self, file: Path, content: dict[str, Any]) -> None:
        """Write a new file, and keep the current one as the previous one."""
        fresh = file.with_suffix(".new")
        write_atomically(fresh, lambda stream: save_state(content, stream))
        try:
            if file in self._damaged:
                self._damaged.remove(file)  # keeps the intact previous file
            elif file.exists():
                file.replace(previous(file))
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the folder ``path``, using previous files instead of damaged or missing ones; or read the file ``path``.

        Returns:
            The checkpoint in Lightning's format. For a folder, ``problems`` contains the problems by name; if two
            batches contain the same problem, the later one is used.

        Raises:
            ValueError: the path is not a checkpoint, or a batch has no usable file.
        """
        folder = Path(path)
        if folder.is_file() or "://" in str(path):
            return self._load_file(path, map_location)
        batches, only = self._batches(folder), self.only()
        contents = [self._load_batch(folder, f"{batch}.pt") for batch in batches if only is None or batch in only]
        problems: Problems = {}
        for content in sorted(contents, key=lambda content: content["time"]):
            problems.update(content["problems"])
        checkpoint = {
            "problems": problems,
            "pytorch-lightning_version": lightning_version,
            "epoch": 0,
            "global_step": 0,
        }
        if (folder / CALLBACKS).is_file() or (folder / CALLBACKS_COPY).is_file():
            checkpoint["callbacks"] = _load_callbacks(folder)
        return checkpoint

    def _load_file(self, path: Any, map_location: Any) -> dict[str, Any]:
        try:
            content = self.files.load_checkpoint(path, map_location or "cpu", weights_only=True)
        except Exception as error:
            raise damage(path, error) from error
        if not isinstance(content, dict) or RECOVERY not in content:
            raise ValueError(f"{path}: not a checkpoint written by dop (it contains no problems)")
        if Path(path).is_file():
            check_archive(Path(path))
        check_file_content(content, path)
        return content

    def teardown(self) -> None:
        """Wait until all files are written."""
        self.files.teardown()

    @staticmethod
    def _batches(folder: Path) -> list[str]:
        names = {file.name.removesuffix(".pt").removesuffix(".previous") for file in folder.glob("*.pt")}
        if not names:
            raise ValueError(f"{folder}: not a checkpoint folder written by dop")
        return sorted(names)

    def _load_batch(self, folder: Path, file: str) -> dict[str, Any]:
        """Return the content of a file or of the previous one, with references to states that stay on disk."""
        content, read = self._load(folder / file)
        for name, problem in content["problems"].items():
            if self.stays(name) and problem["state"] is not None:
                problem["state"] = StateInFile(folder, read.stem, name)
        return content

    def _load(self, file: Path) -> tuple[dict[str, Any], Path]:
        """Return the content of a file or of the previous one, and the path that was read."""
        before = previous(file)
        if not file.exists():  # the process was stopped between two renames
            try:
                return self._read(before), before
            except ValueError as error:
                raise ValueError(f"{error}; no newer file exists: remove it to restart its problems") from error
        try:
            content = self._read(file)
            self._written_hashes(file.parent)[sys.intern(file.stem)] = _progress_hash(content["problems"])
            return content, file
        except ValueError as error:
            if not before.exists():
                raise ValueError(f"{error}; no previous file exists: remove it to restart its problems") from error
            try:
                content = self._read(before)
            except ValueError as older:
                raise ValueError(
                    f"{error}; {before.name} cannot be read either: remove both to restart their problems"
                ) from older
            self._damaged.add(file)
            print(f"{error}: resuming from the previous file", file=sys.stderr)
            return content, before

    def _read(self, file: Path) -> dict[str, Any]:
        return read_batch(file, self.fingerprint)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint folder or file."""
        if Path(path).is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            self.files.remove_checkpoint(path)

    # Old names, until version 0.3.
    mark = RenamedAttribute("fingerprint")


def _load_callbacks(folder: Path) -> Any:
    """Return the states of callbacks, from one of two identical files.

    Raises:
        ValueError: both files are damaged.
    """
    for name in (CALLBACKS, CALLBACKS_COPY):
        if not (folder / name).is_file():
            continue
        try:
            content = load_state(folder / name)
        except ValueError as error:
            print(f"{error}: skipped", file=sys.stderr)
            continue
        # files of earlier versions contain only the states
        return content.get("callbacks", content) if isinstance(content, dict) else {}
    raise ValueError(
        f"{folder / CALLBACKS}: damaged, and so is its copy; remove both to reset EarlyStopping and other callbacks"
    )


def _progress_hash(problems: Mapping[str, Mapping[str, Any]]) -> int:
    """Return a hash of the progress of the problems of a batch."""
    keys = ("status", "iteration", "evaluated", "ended", "seconds")
    return hash(tuple((name, *(saved[key] for key in keys)) for name, saved in problems.items()))
