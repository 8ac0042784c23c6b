"""Save and load runs: ``state_dict``, Lightning checkpoint files, and the contents of checkpoint folders."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch.nn.modules.module import _IncompatibleKeys

from dop_lightning.engine.roster import Roster
from dop_lightning.foundation.saved_state import check_archive, damage
from dop_lightning.lightning.checkpoint_file import add_run, entries_of, has_run
from dop_lightning.lightning.data.base import RecoveryDataModule
from dop_lightning.lightning.data.saved import load_problems
from dop_lightning.lightning.hyperparameters import PlainHyperparameters, unsaved_parts
from dop_lightning.lightning.recovery_callback import RecoveryCallback
from dop_lightning.lightning.saved_batches import SavedBatches
from dop_lightning.lightning.state_dict import load_tensors, problem_tensors
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.checkpoints import check_file_content

_DATA: ContextVar[RecoveryDataModule | None] = ContextVar("datamodule", default=None)
"""The data module passed to ``load_from_checkpoint``, which Lightning does not forward."""


class PersistentModule(PlainHyperparameters, pl.LightningModule):
    """A module whose state is saved for each problem separately, independent of the batches."""

    _taken: Mapping[str, Any] | None = None
    """The ``state_dict`` of a checkpoint whose problems have already been loaded into the roster."""

    @property
    def roster(self) -> Roster:
        """Problems of the run."""
        raise NotImplementedError

    @property
    def data(self) -> Any:
        """Data module of the run."""
        raise NotImplementedError

    @property
    def is_configured(self) -> bool:
        """Whether the run exists."""
        raise NotImplementedError

    @property
    def recovery_callbacks(self) -> Iterator[RecoveryCallback]:
        """Callbacks of the trainer that follow problems."""
        raise NotImplementedError

    def attach(self, data: RecoveryDataModule | Sequence[Problem]) -> Self:
        """Build the run of these problems."""
        raise NotImplementedError

    def follow_states(self) -> None:
        """Register the parts of the batches as parameters."""
        raise NotImplementedError

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return a CPU copy of θ, g and h of every problem, such as ``photo.signal.U`` and ``photo.corruption.g``."""
        own = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        for key in [key for key in own if key.startswith(f"{prefix}_parts.")]:
            del own[key]
        tensors = problem_tensors(self.roster.entries()) if self.is_configured else {}
        own.update({f"{prefix}{key}": tensor for key, tensor in tensors.items()})
        return own

    def _extra_tensors(self) -> dict[str, Any]:
        """Return parameters and buffers of a subclass that do not belong to problems."""
        return {key: value for key, value in super().state_dict().items() if not key.startswith("_parts.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state returned by :meth:`state_dict`.

        Raises:
            RuntimeError: with ``strict``, a key is missing or unexpected.
            ValueError: a tensor has another shape.
        """
        deactivate = set(self._extra_tensors())
        others = {key: value for key, value in state_dict.items() if key in deactivate}
        if state_dict is self._taken:  # tensors missing from it stay in the files of the checkpoint
            self._taken = None
            super().load_state_dict(others, strict=False, assign=assign)
            return _IncompatibleKeys([], [])
        tensors = {key: value for key, value in state_dict.items() if key not in deactivate}
        missing, unexpected = load_tensors(self.roster, tensors) if self.is_configured else ([], list(tensors))
        missing += sorted(deactivate - set(others))
        if strict and (missing or unexpected):
            hint = "" if self.is_configured else " (call attach(data) first)"
            raise RuntimeError(
                f"state_dict must contain the parameters of these problems{hint}, got missing keys {missing[:3]} and "
                f"unexpected keys {unexpected[:3]}"
            )
        super().load_state_dict(others, strict=False, assign=assign)
        return _IncompatibleKeys(missing, unexpected)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the problems and their progress, independent of the batches.

        Raises:
            ValueError: several processes are fitting, each with different problems.
        """
        if self._trainer is not None and self.trainer.world_size > 1:
            raise ValueError(
                f"save_checkpoint writes a file of one process, got {self.trainer.world_size}, each with different "
                "problems; use CheckpointFolder, which all processes share"
            )
        if (parts := unsaved_parts(self.hparams)) and self._trainer is not None:
            names = ", ".join(f"{name} ({what})" for name, what in parts.items())
            rank_zero_info(f"A checkpoint cannot store {names}; pass it again to load_from_checkpoint")
        add_run(checkpoint, self.roster, self.data, {name: self._callback_states(name) for name in self.roster.records})

    def saved_batches(self, labels: Collection[str] | None = None) -> SavedBatches:
        """Return record and state of every problem by batch, in the form of checkpoint folders.

        Batches are copied on access, so that large images are not in memory twice.

        Args:
            labels: labels of the batches; ``None`` for all.
        """
        return SavedBatches(self.roster, self._callback_states, labels)

    def _callback_states(self, name: str) -> dict[str, Any]:
        """Return the states of callbacks for a problem."""
        if self._trainer is None:
            return {}
        return {callback.name: callback.problem_state(name) for callback in self.recovery_callbacks}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the problems of a checkpoint. Problems that it does not contain start from the beginning."""
        if has_run(checkpoint):
            problems = entries_of(checkpoint)
            if not self.is_configured:
                self.attach(_DATA.get() or load_problems(checkpoint["recovery"]))
        else:
            problems = checkpoint.get("problems", {})
            if "problems" not in checkpoint:
                raise ValueError("ckpt_path must be a checkpoint of DoubleOverparameterization, got another one")
        if problems and self.roster.records and not set(problems) & set(self.roster.records):
            raise ValueError(
                f"ckpt_path must contain problems of this run, such as {next(iter(self.roster.records))!r}, "
                f"got {', '.join(map(repr, sorted(problems)[:3]))}"
            )
        _check_entries(problems)
        self.roster.load(problems)
        if self._trainer is not None:
            for name in set(problems) & set(self.roster.records):
                for callback in self.recovery_callbacks:
                    callback.load_problem_state(name, problems[name]["callbacks"].get(callback.name, {}))
        try:
            self.roster.deactivate()
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"ckpt_path contains states that do not match this method ({error})") from error
        self.follow_states()
        # optimizers are restored with the problems, and counters in on_fit_start, instead of by position in Lightning
        extras = self._extra_tensors()
        saved = {key: value for key, value in checkpoint.get("state_dict", {}).items() if key in extras}
        if any(map(self.roster.waits_for_turn, self.roster.records)):
            self._taken = checkpoint["state_dict"] = {**extras, **saved}
        else:
            checkpoint["state_dict"] = {**extras, **saved, **problem_tensors(self.roster.entries())}
        if not has_run(checkpoint) or "optimizer_states" in checkpoint:
            checkpoint["optimizer_states"], checkpoint["lr_schedulers"] = [], []
        checkpoint.pop("loops", None)

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: Any, *args: Any, datamodule: "RecoveryDataModule | None" = None, **kwargs: Any
    ) -> Self:
        """Create the module of a checkpoint file, with its recovered signals.

        Args:
            checkpoint_path: a file written by ``trainer.save_checkpoint`` or ``ModelCheckpoint``.
            args: see Lightning's ``load_from_checkpoint``.
            datamodule: the problems; by default those in the file.
            kwargs: see Lightning's ``load_from_checkpoint``; may include hyperparameters that replace saved ones.

        Raises:
            ValueError: the path is a checkpoint folder, or an argument that the file cannot store is not passed again.
        """
        if isinstance(checkpoint_path, str | Path) and Path(checkpoint_path).is_dir():
            raise ValueError(
                f"{checkpoint_path}: a checkpoint folder contains no settings; pass it to trainer.fit(ckpt_path=…), or "
                "use a file written by trainer.save_checkpoint"
            )
        token = _DATA.set(datamodule)
        try:
            _refuse_unsaved(checkpoint_path, kwargs)
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        finally:
            _DATA.reset(token)


def _check_entries(problems: Mapping[str, Any]) -> None:
    """Refuse incomplete problems of a checkpoint.

    Raises:
        ValueError: the state of a problem, or the states of callbacks for it, are missing.
    """
    for name, entry in problems.items():
        for key in ("state", "callbacks"):
            if key not in entry:
                raise ValueError(f"ckpt_path is an incomplete checkpoint ({key!r} of {name} is missing)")


def _refuse_unsaved(path: Any, given: Mapping[str, Any]) -> None:
    """Refuse a file that lacks an argument which it could not store and which is not passed again.

    Raises:
        ValueError: such an argument is missing.
    """
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        check_archive(Path(path))
    except ValueError:
        raise
    except Exception as error:  # torch raises many kinds of errors for a damaged file
        raise damage(path, error) from error
    if isinstance(checkpoint, dict) and has_run(checkpoint):
        check_file_content(checkpoint, path)
    parts = unsaved_parts(checkpoint.get("hyper_parameters", {})) if isinstance(checkpoint, dict) else {}
    for name, what in parts.items():
        if name not in given:
            raise ValueError(
                f"{name} was {what}, which a checkpoint cannot store; pass it again: load_from_checkpoint(…, {name}=…)"
            )
