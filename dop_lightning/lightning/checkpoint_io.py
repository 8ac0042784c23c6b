"""Checkpoints on disk: a folder with a file for every batch of problems, and the one before of each; or one file."""

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
"""Files that are written at the same time, since each of them mostly waits for the disk."""

Problems = dict[str, dict[str, Any]]
"""What is saved of each problem of a batch, by name."""


@dataclass(frozen=True)
class StateInFile:
    """The state of a problem, in a file of a checkpoint folder.

    Args:
        folder: the checkpoint folder.
        file: name of the file of its batch.
        name: of the problem.
    """

    folder: Path
    file: str
    name: str

    def load(self) -> dict[str, Any]:
        """Read it.

        Raises:
            ValueError: the file is damaged.
        """
        state: dict[str, Any] = read_batch(self.folder / self.file)["problems"][self.name]["state"]
        return state


class FolderCheckpointIO(CheckpointIO):
    """Saves a checkpoint as a folder, in which every batch has the files ``<batch>.pt`` and ``<batch>.previous.pt``.

    A batch is one file, since its problems go on together: they are found equally far, whenever a process is killed. It
    is written beside its place and renamed, and the file before is kept: a reader finds a new one, or the old one,
    never half of one. Processes that work on different batches of a run share a folder, and a batch in which nothing
    has changed is not written again.

    Whatever else Lightning saves or loads, by ``trainer.save_checkpoint`` or ``ModelCheckpoint``, is an ordinary file.

    Args:
        mark: the fingerprint of the run; files of another one are refused. Empty takes the files of any.
        only: tells the names of the batches to be read, ``None`` for all.
        files: what reads and writes ordinary files: the plugin that the trainer had.
        stays: tells the names of problems whose states stay on disk until they are needed.
    """

    def __init__(
        self,
        mark: str = "",
        only: Callable[[], set[str] | None] = lambda: None,
        files: CheckpointIO | None = None,
        stays: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.mark = mark
        self.only = only
        self.stays = stays
        self.files: CheckpointIO = (
            files.files if isinstance(files, FolderCheckpointIO) else files or TorchCheckpointIO()
        )
        self._reserved: set[Path] = set()
        self._written: dict[str, int] = {}  # the stage of each file, hashed
        self._damaged: set[Path] = set()

    def reserve(self, folder: Path) -> None:
        """Refuse files at the place of a run's checkpoint folder."""
        self._reserved.add(folder.absolute())

    @property
    def has_folder(self) -> bool:
        """Whether the run has a checkpoint folder, to which states of problems may be moved."""
        return bool(self._reserved)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write the batches of ``checkpoint["batches"]`` into the folder ``path``; without batches, the file ``path``.

        Files of several batches are written at the same time.

        Raises:
            OSError: one cannot be written; the file before it stands.
            ValueError: the file is to be where the run has its checkpoint folder.
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
                if len(writing) == WRITERS:  # those that wait would take memory
                    writing.popleft().result()
                writing.append(pool.submit(self._save_batch, file, batches[batch]))
            for written in writing:
                written.result()
        if callbacks := checkpoint.get("callbacks"):
            for name in (CALLBACKS, CALLBACKS_COPY):
                write_atomically(folder / name, lambda stream: save_state({"callbacks": callbacks}, stream))

    def _is_written(self, file: Path, problems: Problems) -> bool:
        """Return whether the file of a batch holds its problems as they are."""
        return self._written.get(str(file)) == _stage(problems) and file.exists()

    def _save_batch(self, file: Path, problems: Problems) -> None:
        """Write the file of a batch."""
        stage = _stage(problems)
        self._replace(file, {"format": FORMAT, "run": self.mark, "time": time.time(), "problems": problems})
        self._written[str(file)] = stage

    def _replace(self, file: Path, content: dict[str, Any]) -> None:
        """Put a new file in place of the last one, and that in place of the one before."""
        fresh = file.with_suffix(".new")
        write_atomically(fresh, lambda stream: save_state(content, stream))
        try:
            if file in self._damaged:
                self._damaged.remove(file)  # the one before it is the good one
            elif file.exists():
                file.replace(previous(file))
            fresh.replace(file)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the folder ``path``, and where a file is damaged or missing, the one before it; or the file ``path``.

        Returns:
            What Lightning asks for; of a folder, ``problems`` by name: of two batches that hold the same problem, the
            later one counts.

        Raises:
            ValueError: it is no such folder, or of a batch there is no file that can be used.
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
            raise ValueError(f"{path}: not a checkpoint written by dop (it holds no problems)")
        if Path(path).is_file():
            check_archive(Path(path))
        check_file_content(content, path)
        return content

    def teardown(self) -> None:
        """Wait for files that are still being written."""
        self.files.teardown()

    @staticmethod
    def _batches(folder: Path) -> list[str]:
        names = {file.name.removesuffix(".pt").removesuffix(".previous") for file in folder.glob("*.pt")}
        if not names:
            raise ValueError(f"{folder}: not a checkpoint folder written by dop")
        return sorted(names)

    def _load_batch(self, folder: Path, file: str) -> dict[str, Any]:
        """The content of a file, or of the one before it, without the states that stay there."""
        content, read = self._load(folder / file)
        for name, problem in content["problems"].items():
            if self.stays(name) and problem["state"] is not None:
                problem["state"] = StateInFile(folder, read.name, name)
        return content

    def _load(self, file: Path) -> tuple[dict[str, Any], Path]:
        """The content of a file, or of the one before it, and which of them it is."""
        before = previous(file)
        if not file.exists():  # stopped between two renames
            try:
                return self._read(before), before
            except ValueError as error:
                raise ValueError(f"{error}; there is none after it: remove it to start its problems anew") from error
        try:
            content = self._read(file)
            self._written[str(file)] = _stage(content["problems"])
            return content, file
        except ValueError as error:
            if not before.exists():
                raise ValueError(f"{error}; there is none before it: remove it to start its problems anew") from error
            try:
                content = self._read(before)
            except ValueError as older:
                raise ValueError(
                    f"{error}, and so is {before.name}: remove both to start their problems anew"
                ) from older
            self._damaged.add(file)
            print(f"{error}: going on from the one before it", file=sys.stderr)
            return content, before

    def _read(self, file: Path) -> dict[str, Any]:
        return read_batch(file, self.mark)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove the folder, or the file."""
        if Path(path).is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            self.files.remove_checkpoint(path)


def _load_callbacks(folder: Path) -> Any:
    """Return what callbacks remember, from either of two equal files.

    Raises:
        ValueError: both are damaged.
    """
    for name in (CALLBACKS, CALLBACKS_COPY):
        if not (folder / name).is_file():
            continue
        try:
            content = load_state(folder / name)
        except ValueError as error:
            print(f"{error}: skipped", file=sys.stderr)
            continue
        # files of earlier versions hold the states alone
        return content.get("callbacks", content) if isinstance(content, dict) else {}
    raise ValueError(
        f"{folder / CALLBACKS}: damaged, and so is its copy; remove both to start EarlyStopping and others anew"
    )


def _stage(problems: Mapping[str, Mapping[str, Any]]) -> int:
    """Hash of how far the problems of a batch are."""
    keys = ("status", "iteration", "evaluated", "ended", "seconds")
    return hash(tuple((name, *(saved[key] for key in keys)) for name, saved in problems.items()))
