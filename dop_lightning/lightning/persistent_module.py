"""Saving a run and loading it: ``state_dict``, checkpoint files of Lightning, and the contents of folders."""

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
"""The data module given to ``load_from_checkpoint``, which Lightning does not hand on."""


class PersistentModule(PlainHyperparameters, pl.LightningModule):
    """A module whose state is saved problem by problem: nothing that is saved depends on batches."""

    _taken: Mapping[str, Any] | None = None
    """The ``state_dict`` of a checkpoint whose problems the roster has taken over already."""

    @property
    def roster(self) -> Roster:
        """The problems of the run."""
        raise NotImplementedError

    @property
    def data(self) -> Any:
        """The data module of the run."""
        raise NotImplementedError

    @property
    def is_configured(self) -> bool:
        """Whether there is a run."""
        raise NotImplementedError

    @property
    def recovery_callbacks(self) -> Iterator[RecoveryCallback]:
        """The callbacks of the trainer that follow problems."""
        raise NotImplementedError

    def attach(self, data: RecoveryDataModule | Sequence[Problem]) -> Self:
        """Build the run of these problems."""
        raise NotImplementedError

    def follow_states(self) -> None:
        """Take the parts of the batches as parameters."""
        raise NotImplementedError

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return a copy of θ, g and h of every problem on the CPU, as ``photo.signal.U`` and ``photo.corruption.g``."""
        own = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        for key in [key for key in own if key.startswith(f"{prefix}_parts.")]:
            del own[key]
        tensors = problem_tensors(self.roster.entries()) if self.is_configured else {}
        own.update({f"{prefix}{key}": tensor for key, tensor in tensors.items()})
        return own

    def _extras(self) -> dict[str, Any]:
        """Parameters and buffers of a subclass, beside those of the problems."""
        return {key: value for key, value in super().state_dict().items() if not key.startswith("_parts.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what :meth:`state_dict` gave.

        Raises:
            RuntimeError: with ``strict``, a key is missing or unexpected.
            ValueError: a tensor has another shape.
        """
        rest = set(self._extras())
        others = {key: value for key, value in state_dict.items() if key in rest}
        if state_dict is self._taken:  # what is not in the state_dict stays in the files of the checkpoint
            self._taken = None
            super().load_state_dict(others, strict=False, assign=assign)
            return _IncompatibleKeys([], [])
        tensors = {key: value for key, value in state_dict.items() if key not in rest}
        missing, unexpected = load_tensors(self.roster, tensors) if self.is_configured else ([], list(tensors))
        missing += sorted(rest - set(others))
        if strict and (missing or unexpected):
            hint = "" if self.is_configured else " (call attach(data) first)"
            raise RuntimeError(
                f"state_dict must hold the parameters of these problems{hint}: missing {missing[:3]}, unexpected "
                f"{unexpected[:3]}"
            )
        super().load_state_dict(others, strict=False, assign=assign)
        return _IncompatibleKeys(missing, unexpected)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the problems, and how far each is: nothing in a checkpoint depends on how they were batched.

        Raises:
            ValueError: several processes fit, each with problems of its own.
        """
        if self._trainer is not None and self.trainer.world_size > 1:
            raise ValueError(
                f"save_checkpoint writes a file of one process, got {self.trainer.world_size}, each with problems of "
                "its own; use CheckpointFolder, which all of them share"
            )
        if (parts := unsaved_parts(self.hparams)) and self._trainer is not None:
            names = ", ".join(f"{name} ({what})" for name, what in parts.items())
            rank_zero_info(f"A checkpoint cannot hold {names}: pass it again to load_from_checkpoint")
        add_run(checkpoint, self.roster, self.data, {name: self._remembered(name) for name in self.roster.records})

    def saved_batches(self, labels: Collection[str] | None = None) -> SavedBatches:
        """Return record and state of every problem, batch by batch, as checkpoint folders hold them.

        Each batch is copied when it is asked for, so that those of a large image need not lie in memory twice.

        Args:
            labels: of the batches; ``None`` for all.
        """
        return SavedBatches(self.roster, self._remembered, labels)

    def _remembered(self, name: str) -> dict[str, Any]:
        """What callbacks remember of a problem."""
        if self._trainer is None:
            return {}
        return {callback.name: callback.problem_state(name) for callback in self.recovery_callbacks}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the problems of a checkpoint over; one that it does not hold starts anew."""
        if has_run(checkpoint):
            problems = entries_of(checkpoint)
            if not self.is_configured:
                self.attach(_DATA.get() or load_problems(checkpoint["recovery"]))
        else:
            problems = checkpoint.get("problems", {})
            if "problems" not in checkpoint:
                raise ValueError("ckpt_path must be a checkpoint of DoubleOverparameterization, got one of another")
        if problems and self.roster.records and not set(problems) & set(self.roster.records):
            raise ValueError(
                f"ckpt_path must hold problems of this run, such as {next(iter(self.roster.records))!r}, "
                f"got one with {', '.join(map(repr, sorted(problems)[:3]))}"
            )
        _check_entries(problems)
        self.roster.load(problems)
        if self._trainer is not None:
            for name in set(problems) & set(self.roster.records):
                for callback in self.recovery_callbacks:
                    callback.load_problem_state(name, problems[name]["callbacks"].get(callback.name, {}))
        try:
            self.roster.rest()
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"ckpt_path holds states that do not fit this method ({error})") from error
        self.follow_states()
        # what Lightning would restore by position follows the problems: optimizers, and counters in on_fit_start
        extras = self._extras()
        saved = {key: value for key, value in checkpoint.get("state_dict", {}).items() if key in extras}
        if any(map(self.roster.takes_turns, self.roster.records)):
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
        """Return the module of a checkpoint file, with what it had recovered.

        Args:
            checkpoint_path: a file that ``trainer.save_checkpoint`` or ``ModelCheckpoint`` wrote.
            args: see Lightning's ``load_from_checkpoint``.
            datamodule: the problems; by default those in the file.
            kwargs: see Lightning's ``load_from_checkpoint``; hyperparameters that replace saved ones among them.

        Raises:
            ValueError: the path is a checkpoint folder, or a part that the file cannot hold is not passed again.
        """
        if isinstance(checkpoint_path, str | Path) and Path(checkpoint_path).is_dir():
            raise ValueError(
                f"{checkpoint_path}: a checkpoint folder has no settings; pass it to trainer.fit(ckpt_path=…), or use "
                "a file of trainer.save_checkpoint"
            )
        token = _DATA.set(datamodule)
        try:
            _refuse_unsaved(checkpoint_path, kwargs)
            return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        finally:
            _DATA.reset(token)


def _check_entries(problems: Mapping[str, Any]) -> None:
    """Refuse problems of a checkpoint without their states.

    Raises:
        ValueError: one lacks its state, or what callbacks remember of it.
    """
    for name, entry in problems.items():
        for key in ("state", "callbacks"):
            if key not in entry:
                raise ValueError(f"ckpt_path is not a whole checkpoint (it lacks {key!r} of {name})")


def _refuse_unsaved(path: Any, given: Mapping[str, Any]) -> None:
    """Refuse a file with a part that it could not hold and that is not given.

    Raises:
        ValueError: there is such a part.
    """
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        check_archive(Path(path))
    except ValueError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        raise damage(path, error) from error
    if isinstance(checkpoint, dict) and has_run(checkpoint):
        check_file_content(checkpoint, path)
    parts = unsaved_parts(checkpoint.get("hyper_parameters", {})) if isinstance(checkpoint, dict) else {}
    for name, what in parts.items():
        if name not in given:
            raise ValueError(
                f"{name} was {what}, which a checkpoint cannot hold; pass it again: load_from_checkpoint(…, {name}=…)"
            )
