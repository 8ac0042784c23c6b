"""``dop fit | validate | test | predict``: a thin layer over LightningCLI."""

import math
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from pydoc import locate
from typing import Any

import yaml
from jsonargparse import Namespace
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from dop_lightning.cli import hints
from dop_lightning.cli.experiments import runner
from dop_lightning.cli.experiments.explain import describe, explained
from dop_lightning.cli.experiments.takeover import Takeover, take_over
from dop_lightning.cli.user_code import fault_of
from dop_lightning.foundation.find import existing_file
from dop_lightning.foundation.launched import completion_index, given_folder, given_processes, job_name, outer_ranks
from dop_lightning.foundation.moved import new_class_paths
from dop_lightning.foundation.yaml_size import require_small
from dop_lightning.lightning.callbacks import STANDARD, IterationProgress, last_checkpoint
from dop_lightning.lightning.data import (
    ImageDataModule,  # noqa: F401
    MatrixDataModule,  # noqa: F401
    RecoveryDataModule,
    SceneDataModule,  # noqa: F401
    VectorDataModule,  # noqa: F401
)
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.lightning.strategies import ProblemParallelStrategy
from dop_lightning.lightning.strategies.launcher import ChildProcessLauncher
from dop_lightning.paper.certificate_callback import DualCertificate  # noqa: F401 — known by its short name
from dop_lightning.runs.copies import require_unchanged
from dop_lightning.runs.folder import RunFolder, default_folder

TRAINER_DEFAULTS = {
    "devices": 1,  # Lightning's "auto" uses all GPUs
    "num_nodes": 1,
    "max_epochs": -1,  # runs end at max_steps
    "limit_val_batches": 0,  # callbacks compute scores at every evaluation
    "num_sanity_val_steps": 0,
    "logger": False,  # one TensorBoard run per problem instead of one per run
    "enable_checkpointing": False,  # CheckpointFolder instead of ModelCheckpoint
    "enable_model_summary": False,
}

_DATALOADER = "every iteration uses the whole observation; use data.* and model.block"
_GRADIENT = "the method is gradient descent with its own rates; use model.theta_optimizer"
REFUSED = {
    "overfit_batches": _DATALOADER,
    "reload_dataloaders_every_n_epochs": _DATALOADER,
    "use_distributed_sampler": _DATALOADER,
    "accumulate_grad_batches": _GRADIENT,
    "gradient_clip_val": _GRADIENT,
    "gradient_clip_algorithm": _GRADIENT,
    "sync_batchnorm": "problems are independent of each other",
    "barebones": "a run without callbacks leaves no results",
}
"""Trainer flags that would have no effect or do harm, with the reason or an alternative."""

Take = Callable[[Trainer, Path], Takeover]

STRATEGIES = ("auto", "single_device", ProblemParallelStrategy.strategy_name)
"""Supported strategies: one device, or several with separate problems. With others, devices wait for each other."""


class DopCLI(LightningCLI):
    """LightningCLI that creates module, data module and Trainer, with the standard callbacks."""

    verb = "fit"
    _has_folder_option = False
    _asked: dict[str, Any] | None = None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add a section for each standard callback, and ``--ckpt_path``."""
        parser.add_argument("--ckpt_path", type=str, default=None, help="a checkpoint folder or file, or 'last'")
        for section, callback in STANDARD.items():
            parser.add_lightning_class_args(callback, section)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; errors name the wrong word and a suggestion."""
        if not isinstance(args, list):
            super().parse_arguments(parser, args)
            return
        self._has_folder_option = any(word.startswith("--trainer.default_root_dir") for word in args)
        with explained(parser, args):
            super().parse_arguments(parser, args)

    def before_instantiate_classes(self) -> None:
        """Raise an error for unsupported flags, and choose devices and folder."""
        trainer = self.config["trainer"]
        for flag, instead in REFUSED.items():
            if trainer.get(flag) not in (None, self.parser.get_default(f"trainer.{flag}")):
                raise ValueError(f"trainer.{flag} is not supported, got {trainer.get(flag)!r}: {instead}")
        if self.verb == "validate" and trainer.get("limit_val_batches") == TRAINER_DEFAULTS["limit_val_batches"]:
            trainer["limit_val_batches"] = None  # the default 0 only disables validation during a fit
        if self._has_callback(Checkpoint) and trainer.get("enable_checkpointing") is False:
            trainer["enable_checkpointing"] = None
        self._resolve_devices(trainer)
        if trainer.get("enable_progress_bar") is False:  # Lightning raises an error for our bar instead of hiding it
            trainer["enable_progress_bar"] = None
            self.config["progress"]["lines"] = 0
        if trainer.get("default_root_dir") == "":
            raise ValueError("trainer.default_root_dir must be a folder, got ''; use . for the current one")
        self._use_moved_folder(trainer)
        if trainer.get("default_root_dir") is None:
            trainer["default_root_dir"] = str(self._default_folder())

    def _use_moved_folder(self, trainer: Any) -> None:
        """Resume a run whose folder was moved in the folder of its ``config.yaml``, unless an option sets another."""
        files = self.config.get("config") or []
        if not files or self._has_folder_option:
            return
        file = Path(str(files[-1]))
        run = RunFolder(file.parent)
        if file.name != run.config_path.name or not run.has_run or trainer.get("default_root_dir") is None:
            return
        saved = (run.section().get("trainer") or {}).get("default_root_dir")
        if saved == trainer["default_root_dir"] and Path(saved).resolve() != run.path.resolve():
            print(f"The run of {saved} was moved to {run.path}, and resumes there", file=sys.stderr)
            trainer["default_root_dir"] = str(run.path)

    def _has_callback(self, kind: type[Callback]) -> bool:
        """Return whether the config contains a callback of this class."""
        given = self.config["trainer"].get("callbacks") or []
        made = (locate(each["class_path"]) for each in (given if isinstance(given, list) else [given]))
        return any(isinstance(each, type) and issubclass(each, kind) for each in made)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Create the trainer; a progress bar in the config replaces the standard one."""
        if self._has_callback(ProgressBar):
            callbacks = [callback for callback in callbacks if not isinstance(callback, IterationProgress)]
        return super()._instantiate_trainer(config, callbacks)

    def _resolve_devices(self, trainer: Any) -> None:
        """Set ``problem_parallel`` for several devices, nodes, or processes of torchrun and SLURM; scoring uses one."""
        if self.verb != "fit":
            trainer["devices"], trainer["num_nodes"], trainer["strategy"] = 1, 1, "auto"
            return
        strategy = trainer.get("strategy") or "auto"
        if strategy not in STRATEGIES:
            raise ValueError(
                f"trainer.strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}: problems are independent "
                "of each other, and processes must not wait for each other"
            )
        if (processes := given_processes()) is not None:
            self._asked = {key: trainer.get(key) for key in ("devices", "num_nodes", "strategy")}
            trainer["devices"], trainer["num_nodes"] = 1, processes
            trainer["strategy"] = ProblemParallelStrategy.strategy_name
            return
        one_device = trainer.get("devices") in (None, 1, "1") and trainer.get("num_nodes") in (None, 1)
        ranks = outer_ranks()
        if ranks is not None and one_device:
            trainer["devices"], trainer["num_nodes"] = ranks
        index = completion_index()
        if index is not None and trainer.get("num_nodes") not in (None, 1):
            os.environ.setdefault("NODE_RANK", str(index))
        if strategy == "auto" and not (one_device and ranks is None):
            trainer["strategy"] = ProblemParallelStrategy.strategy_name

    def text(self) -> str:
        """Return the config in YAML as requested by the user, without the changes for processes of a cluster."""
        config = self.config.clone()
        config["ckpt_path"] = None  # the next start resumes from the last checkpoint of the run
        for key, value in (self._asked or {}).items():
            config["trainer"][key] = value
        return new_class_paths(self.parser.dump(config, skip_none=False))

    def _default_folder(self) -> Path:
        checkpoint = self.config.get("ckpt_path")
        if checkpoint not in (None, "last"):
            return Path(checkpoint).resolve().parent.parent  # RUN/checkpoints/last.ckpt
        if (folder := given_folder()) is not None:  # chosen by the parent process
            return folder
        if self.verb != "fit":
            raise ValueError(f"dop {self.verb} requires --config RUN/config.yaml or --ckpt_path, got neither")
        if checkpoint == "last":
            raise ValueError("ckpt_path 'last' requires trainer.default_root_dir, the folder of the run, got none")
        files = self.config.get("config") or []
        experiment = Path(str(files[-1])).stem if files else "run"
        if outer_ranks() is None:
            if self.config["trainer"].get("num_nodes") not in (None, 1):
                raise ValueError(
                    "trainer.default_root_dir is required with trainer.num_nodes, got none: otherwise each machine "
                    "chooses a different folder"
                )
            return default_folder(experiment)
        job = job_name()
        if job is None:
            raise ValueError(
                "trainer.default_root_dir is required with torchrun without --rdzv-id, got none: otherwise each "
                "process chooses a different folder"
            )
        return Path("runs") / experiment / job


def run(verb: str, arguments: Sequence[str], take: Take = take_over) -> int:
    """Run a verb.

    Args:
        verb: the verb.
        arguments: its settings.
        take: called after the work of this process, to finish the work of others.

    Raises:
        ValueError: a setting is invalid.
    """
    runner.prepare()
    _check_config_files(arguments)
    return _run(verb, list(arguments), take=take)


def _check_config_files(arguments: Sequence[str]) -> None:
    """Check config files: errors of jsonargparse do not name invalid YAML files, or runs whose classes were moved.

    Raises:
        ValueError: a config is not a file, contains no settings, or belongs to a run of an unsupported version.
    """
    for before, argument in pairwise(["", *arguments]):
        flag, _, value = argument.partition("=")
        name = argument if before in ("-c", "--config") else value if flag in ("-c", "--config") else ""
        if not name:
            continue
        file = existing_file(name)
        run = RunFolder(file.parent)
        if file.name == run.config_path.name and run.has_run:
            run.check_resumable()
            require_unchanged(file)
        try:
            settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{name}: not a YAML file of settings ({error})") from error
        require_small(settings, name)
        if not isinstance(settings, dict):
            raise ValueError(f"{name}: must contain settings such as 'model:' and 'data:', got {settings!r:.60}")


def fit_config(config: dict[str, Any], note: str = "") -> int:
    """Run ``dop fit`` with a generated config.

    Args:
        config: nested settings, as in a YAML file.
        note: text that is printed before the start, once all settings are checked.

    Raises:
        ValueError: a setting is invalid.
    """
    return _run("fit", config, note)


def _run(verb: str, arguments: list[str] | dict[str, Any], note: str = "", take: Take = take_over) -> int:
    with _errors_as_lines(arguments):
        cli = _parse(verb, arguments)
        launcher = cli.trainer.strategy.launcher
        if isinstance(launcher, ChildProcessLauncher) and isinstance(arguments, list):
            launcher.command = [sys.executable, "-m", "dop_lightning", verb, *arguments]
        try:
            return _execute(verb, cli, note, take)
        except SystemExit as error:  # Lightning exits after a second Ctrl-C
            raise KeyboardInterrupt from error


@contextmanager
def _errors_as_lines(arguments: list[str] | dict[str, Any]) -> Iterator[None]:
    """Raise errors in settings as one line.

    Raises:
        ValueError: a setting is invalid.
    """
    try:
        yield
    except (MisconfigurationException, OmegaConfBaseException, ArgumentError, ValueError) as error:
        # including ValueError: jsonargparse wraps our errors in a list
        if (fault := fault_of(error)) is not None:
            if str(error).startswith("metrics: "):  # names the metric and the problem
                fault.add_note(str(error))
            raise fault from fault.__cause__
        text = describe(error, arguments)
        if re.search(r"No supported gpu backend|(CUDA|MPS)Accelerator` can not run", text):
            text = f"no GPU is available: {hints.no_gpu(hints.look())}"
        raise ValueError(text) from error
    except TypeError as error:
        if "`devices`" not in str(error):  # Lightning's error for an invalid number of processors
            raise
        raise ValueError(f"trainer.devices must be a whole number above 0 on a CPU ({error})") from error


class _Unparsed(DopCLI):
    """CLI with a parser only: it neither parses arguments nor creates objects."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = Namespace(seed_everything=False)

    def before_instantiate_classes(self) -> None:
        """Do nothing."""

    def instantiate_classes(self) -> None:
        """Do nothing."""


def check(commands: Sequence[Sequence[str]]) -> None:
    """Check the settings of ``dop fit`` commands that will run later.

    Raises:
        ValueError: a setting does not exist, or its value is not accepted.
    """
    parser = parser_of("fit")
    for arguments in commands:
        _check_config_files(arguments)
        with explained(parser, arguments):
            parser.parse_args(list(arguments))


class _Folder(DopCLI):
    """CLI that parses settings without creating objects."""

    def instantiate_classes(self) -> None:
        """Do nothing."""


def folder_and_devices(arguments: Sequence[str]) -> tuple[Path, int]:
    """Return the folder and the number of devices of a run that ``dop fit`` will start.

    Returns:
        The folder, and the number of devices, which is 0 for ``--trainer.accelerator cpu``, and 1 for ``auto`` and
        ``-1``.

    Raises:
        ValueError: a setting is invalid.
    """
    runner.prepare()
    _check_config_files(arguments)
    with _errors_as_lines(list(arguments)):
        trainer = _parse("fit", list(arguments), _Folder).config["trainer"]
    devices = trainer.get("devices")
    if trainer.get("accelerator") == "cpu":
        return Path(trainer["default_root_dir"]), 0
    count = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdecimal() else 1
    return Path(trainer["default_root_dir"]), max(1, count)


def parser_of(verb: str) -> LightningArgumentParser:
    """Return the parser of a verb."""
    runner.prepare()
    return _parse(verb, [], _Unparsed).parser


def _parse(verb: str, arguments: list[str] | dict[str, Any], cli: type[DopCLI] = DopCLI) -> DopCLI:
    DopCLI.verb = verb
    return cli(
        DoubleOverparameterization,
        RecoveryDataModule,
        subclass_mode_data=True,
        save_config_callback=None,
        trainer_class=Trainer,
        trainer_defaults=TRAINER_DEFAULTS,
        seed_everything_default=False,  # each problem has separate random streams
        parser_kwargs={
            "parser_mode": "omegaconf+",
            "prog": f"dop {verb}",
            "allow_abbrev": False,  # otherwise --trainer.max_step would be accepted here, but not in a file
            "exit_on_error": False,  # one line instead of the usage
            "description": "Every option can be set in a YAML file (--config); several are merged in order.",
        },
        auto_configure_optimizers=False,
        run=False,
        args=arguments,
    )


def _execute(verb: str, cli: DopCLI, note: str, take: Take) -> int:
    run_folder = Path(cli.trainer.default_root_dir)
    checkpoint = _checkpoint_path(cli.config.get("ckpt_path"), run_folder)
    if verb == "fit":
        return runner.fit(cli.trainer, cli.model, cli.datamodule, cli.text(), checkpoint, note, take)
    checkpoint = checkpoint or last_checkpoint(run_folder)
    if checkpoint is None:
        raise ValueError(f"{run_folder}: no checkpoint to {verb}; run dop fit first, or pass --ckpt_path")
    runner.follow_run(run_folder, cli.datamodule, yaml.safe_load(cli.parser.dump(cli.config, skip_none=False)))
    action: Any = getattr(cli.trainer, verb)
    options = {"verbose": False} if verb in ("validate", "test") else {"return_predictions": False}
    scores = _Scores()
    cli.trainer.callbacks.append(scores)  # type: ignore[attr-defined]
    action(cli.model, datamodule=cli.datamodule, ckpt_path=str(checkpoint), weights_only=True, **options)
    runner.report(run_folder, scores.rows)
    return 0


class _Scores(Callback):
    """Collects the outputs of evaluation steps, one row per problem."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Called with (trainer, module, outputs, …)."""
        self._append(args[2])

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Called with (trainer, module, outputs, …)."""
        self._append(args[2])

    def _append(self, row: dict[str, Any]) -> None:
        # as in result.json, values that are not finite are unknown
        self.rows.append({k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)})


def _checkpoint_path(given: str | None, run_folder: Path) -> Path | None:
    """Return the path of ``--ckpt_path``; ``None`` for ``last`` before the first checkpoint."""
    if given is None:
        return None
    if given == "last":
        checkpoint = last_checkpoint(run_folder)
        if checkpoint is None:
            print(f"{run_folder} has no checkpoint yet", file=sys.stderr)
        return checkpoint
    path = Path(given)
    if not path.exists():
        raise ValueError(f"ckpt_path must be a checkpoint or 'last', got {given!r}, which does not exist")
    return path
