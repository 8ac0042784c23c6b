"""Fixtures for tests of whole runs: one thread, an unchanged process state, and tiny runs with a real Trainer."""

import csv
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from dop_lightning.cli.main import main
from dop_lightning.lightning.callbacks import StableOutput, VarianceStopping, standard_callbacks
from dop_lightning.lightning.callbacks.checkpoint import LAST, FolderCheckpointIO
from dop_lightning.lightning.data import ImageDataModule, MatrixDataModule, RecoveryDataModule
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.losses import SquaredLoss
from dop_lightning.model.signals import SkipUNet
from dop_lightning.problems.noise import GrossOutliers, SaltAndPepper

LOGGERS = ("pytorch_lightning", "lightning_fabric")

LONGEST = ("test_scripts.py", "test_measure_gpu.py", "test_docs_build.py", "test_documents.py")
"""Files whose tests take seconds each. They run first, so that all cores are busy until the end."""


def pytest_collection_finish() -> None:
    """Freeze the collected objects, so that garbage collection does not scan all tests and PyTorch repeatedly."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if not torch.cuda.is_available():
        skipped = pytest.mark.skip(reason="needs a GPU, or -p tests.pretend_cuda.plugin")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skipped)


def _quiet() -> None:
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: sums depend on the number of threads, and threads that share a core slow each other down."""
    asked, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    _quiet()
    yield
    torch.set_num_threads(threads)
    if asked is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = asked


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Restore signal handlers, log levels, threads and environment; pytest restores warning filters.

    Lightning's launchers leave environment variables that make a later run believe it is one of several processes.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    _quiet()
    threads, hook, environment = torch.get_num_threads(), threading.excepthook, dict(os.environ)
    yield
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    threading.excepthook = hook
    torch.set_num_threads(threads)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for number, handler in handlers.items():
        signal.signal(number, handler)


# ------------------------------------------------------------------------------------------------------- tiny problems


@pytest.fixture(scope="session")
def matrices() -> Callable[..., MatrixDataModule]:
    """Create a data module: three 12×12 matrices of rank 1 with outliers in a tenth of the entries."""
    return partial(MatrixDataModule, **{"n": 12, "rank": 1, "noise": GrossOutliers(0.1), "seeds": 3})


@pytest.fixture(scope="session")
def images() -> Callable[..., ImageDataModule]:
    """Create a data module: one grey image of 16×16 pixels with 30 % salt and pepper."""
    return partial(ImageDataModule, **{"images": "camera", "noise": SaltAndPepper(0.3), "resize": 16})


@pytest.fixture(scope="session")
def matrix_method() -> Callable[..., DoubleOverparameterization]:
    """Create a module that recovers the matrices within about 1000 iterations."""
    return partial(DoubleOverparameterization, **{"tau": 2e-3, "block": 100, "evaluate_every": 200})


@pytest.fixture(scope="session")
def image_method() -> Callable[..., DoubleOverparameterization]:
    """Create a module whose network takes about two milliseconds per iteration."""
    settings = {
        "signal": partial(SkipUNet, width=4, scales=2, input_channels=4, precision="fp32"),
        "corruption": partial(HadamardCorruption, scale=1e-5, tied=False),
        "loss": SquaredLoss("mean"),
        "tau": 0.5,
        "alpha": 20.0,
        "block": 10,
        "evaluate_every": 50,
    }
    return partial(DoubleOverparameterization, **settings)


# ---------------------------------------------------------------------------------------------------------------- runs


@dataclass
class Run:
    """A finished run: its folder, and its parts."""

    folder: Path
    trainer: pl.Trainer
    module: DoubleOverparameterization
    data: RecoveryDataModule
    _states: dict[str, dict[str, Tensor]] | None = field(default=None, repr=False)

    @property
    def table(self) -> dict[str, dict[str, str]]:
        """``results.csv`` by problem, without the seconds, which are not reproducible."""
        with (self.folder / "results.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["problem"]: {key: value for key, value in row.items() if key != "seconds"} for row in rows}

    @property
    def metrics(self) -> list[tuple[str, int, str, str]]:
        """The rows of ``metrics.csv``."""
        with (self.folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return [(name, int(iteration), tag, value) for name, iteration, tag, value in list(csv.reader(file))[1:]]

    @property
    def checkpoint(self) -> Path:
        return self.folder / LAST

    @property
    def statuses(self) -> list[str]:
        return [row["status"] for row in self.table.values()]

    @property
    def iterations(self) -> list[int]:
        return [int(row["iterations"]) for row in self.table.values()]

    def recovered(self, name: str) -> np.ndarray:
        return np.load(self.folder / name / "recovered.npy")

    def states(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors and numbers in the checkpoint of each problem, as flat dictionaries."""
        problems = FolderCheckpointIO().load_checkpoint(self.checkpoint)["problems"]
        return {name: dict(_flat("", problems[name])) for name in sorted(problems)}

    def assert_equals(self, other: "Run") -> None:
        """Check that tables, recovered files and states are identical."""
        self.assert_equals_recoveries(other)
        mine, theirs = self.states(), other.states()
        assert list(mine) == list(theirs)
        for name, state in mine.items():
            assert state.keys() == theirs[name].keys(), name
            for key, value in state.items():
                assert torch.equal(value, theirs[name][key]), f"{name}: {key}"

    def assert_equals_recoveries(self, other: "Run") -> None:
        """Check that tables and recovered files are identical."""
        assert self.table == other.table
        for name in self.table:
            assert np.array_equal(self.recovered(name), other.recovered(name)), name

    def assert_close(self, other: "Run", *names: str, tolerance: float = 1e-4) -> None:
        """Check that recoveries agree up to rounding, relative to their size."""
        for name in names or self.table:
            one, two = self.recovered(name), other.recovered(name)
            assert np.linalg.norm(one - two) <= tolerance * np.linalg.norm(two), name


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors and numbers of nested containers with their paths, without the seconds."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key != "seconds":
                yield from _flat(f"{prefix}/{key}", inner)
    elif isinstance(value, int | float | Tensor):
        yield prefix, torch.as_tensor(value)
    else:
        assert value is None or isinstance(value, str), prefix


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., pl.Trainer]:
    """Create a Trainer with the standard callbacks: ``make_trainer(folder, max_steps, *more_callbacks)``."""

    def make(
        folder: Path,
        max_steps: int,
        *more: pl.Callback,
        stable: StableOutput | None = None,
        early_stop: VarianceStopping | None = None,
        **options: Any,
    ):
        settings = {
            "max_steps": max_steps,
            "max_epochs": -1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
            "callbacks": [*standard_callbacks(stable, early_stop), *more],
        }
        return pl.Trainer(**{**settings, **options})

    return make


@pytest.fixture(scope="session")
def fit(make_trainer: Callable[..., pl.Trainer]) -> Callable[..., Run]:
    """Run a module: ``fit(folder, module, data, max_steps, *more_callbacks, resume=False)``."""

    def fit(
        folder: Path,
        module: DoubleOverparameterization,
        data: RecoveryDataModule,
        max_steps: int,
        *more: pl.Callback,
        resume: bool = False,
        **options: Any,
    ) -> Run:
        trainer = make_trainer(folder, max_steps, *more, **{"limit_val_batches": 0, **options})
        checkpoint = str(folder / LAST) if resume else None
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return Run(folder, trainer, module, data)

    return fit


class StopAt(pl.Callback):
    """Stop a run at the end of the first block that reaches an iteration, by Lightning's flag or by a signal."""

    def __init__(self, iteration: int, by: signal.Signals | None = None) -> None:
        self.iteration: int | None = iteration
        self.by = by

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.iteration is not None and trainer.global_step >= self.iteration:
            self.iteration = None
            if self.by is None:
                trainer.should_stop = True
            else:
                os.kill(os.getpid(), self.by)


@pytest.fixture(scope="session")
def stop_at() -> type[StopAt]:
    """Return a callback class: ``stop_at(300)``, ``stop_at(300, signal.SIGINT)``."""
    return StopAt


# -------------------------------------------------------------------------------------------------------------- command


@dataclass
class Said:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def dop(capsys) -> Callable[..., Said]:
    """Run ``dop`` with arguments in this process."""

    def dop(*arguments: str) -> Said:
        capsys.readouterr()
        try:
            status = main(list(arguments))
        except SystemExit as left:
            status = 0 if left.code is None else int(left.code)
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return dop
