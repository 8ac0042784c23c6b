"""Flags of the Trainer and callbacks of Lightning by ``dop fit``: each does what Lightning says, or is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

PROBLEMS = [f"n12-r1-gross-outliers-0.1-seed{seed}" for seed in (0, 1)]

BASE = {
    "model": {"tau": 2e-3, "block": 50, "evaluate_every": 100},
    "data": {
        "class_path": "MatrixDataModule",
        "init_args": {
            "n": 12,
            "rank": 1,
            "seeds": 2,
            "noise": {"class_path": "GrossOutliers", "init_args": {"ratio": 0.1}},
        },
    },
    "trainer": {"max_steps": 300, "default_root_dir": "out", "accelerator": "cpu"},
}

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(yaml.safe_dump(BASE))
    return tmp_path


def ends() -> list[tuple[str, int]]:
    results = [json.loads(Path("out", name, "result.json").read_text()) for name in PROBLEMS]
    return [(result["status"], result["iterations"]) for result in results]


def ended(status: str, iterations: int) -> Callable[[str], None]:
    def check(said: str) -> None:
        assert ends() == [(status, iterations)] * 2

    return check


def wrote(pattern: str, count: int) -> Callable[[str], None]:
    def check(said: str) -> None:
        assert len(list(Path().glob(pattern))) == count, sorted(Path().rglob("*"))

    return check


def printed(text: str) -> Callable[[str], None]:
    def check(said: str) -> None:
        assert text in said

    return check


def in_double(said: str) -> None:
    saved = torch.load(Path("out", "checkpoints", "last.ckpt", "batch-0000.pt"), weights_only=True)
    assert saved["problems"][PROBLEMS[0]]["state"]["signal"]["U"].dtype == torch.float64


CALLBACK = "--trainer.callbacks+="
STOP = [f"{CALLBACK}EarlyStopping", "--trainer.callbacks.monitor", "loss", "--trainer.callbacks.mode", "max"]

FLAGS: dict[str, tuple[list[str], Callable[[str], None]]] = {
    "max_epochs": (["--trainer.max_steps", "-1", "--trainer.max_epochs", "2"], ended("done", 200)),
    "min_epochs": (["--trainer.min_epochs", "1"], ended("done", 300)),
    "max_time": (["--trainer.max_time", "00:00:05:00"], ended("done", 300)),
    "limit_train_batches": (["--trainer.limit_train_batches", "1"], ended("done", 300)),
    "validation": (["--trainer.limit_val_batches", "1.0"], ended("done", 300)),
    "check_val_every_n_epoch": (
        ["--trainer.limit_val_batches", "1.0", "--trainer.check_val_every_n_epoch", "2"],
        ended("done", 300),
    ),
    "val_check_interval": (
        ["--trainer.limit_val_batches", "1.0", "--trainer.val_check_interval", "1"],
        ended("done", 300),
    ),
    "precision": (["--trainer.precision", "64-true"], in_double),
    "enable_checkpointing": (["--trainer.enable_checkpointing", "true"], wrote("out/checkpoints/epoch=*.ckpt", 1)),
    "ModelCheckpoint": (
        [f"{CALLBACK}ModelCheckpoint", "--trainer.callbacks.monitor", "loss", "--trainer.callbacks.save_top_k", "2"],
        wrote("out/checkpoints/epoch=*.ckpt", 2),
    ),
    "EarlyStopping": (
        [*STOP, "--trainer.callbacks.patience", "1"],
        ended("done", 200),
    ),
    "LearningRateMonitor": (
        ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs", f"{CALLBACK}LearningRateMonitor"],
        wrote("logs/**/metrics.csv", 1),
    ),
    "logger": (["--trainer.logger", "true"], wrote("out/lightning_logs/version_0/events*", 1)),
    "Timer": ([f"{CALLBACK}Timer"], ended("done", 300)),
    "ModelSummary": (["--trainer.enable_model_summary", "true"], printed("Total params")),
    "profiler": (
        ["--trainer.profiler", "SimpleProfiler", "--trainer.profiler.dirpath", ".", "--trainer.profiler.filename", "p"],
        wrote("fit-p.txt", 1),
    ),
    "TQDMProgressBar": ([f"{CALLBACK}TQDMProgressBar"], ended("done", 300)),
    "RichProgressBar": ([f"{CALLBACK}RichProgressBar"], ended("done", 300)),
    "enable_progress_bar": (["--trainer.enable_progress_bar", "false"], ended("done", 300)),
    "fast_dev_run": (["--trainer.fast_dev_run", "true"], ended("done", 1)),
    "detect_anomaly": (["--trainer.detect_anomaly", "true"], ended("done", 300)),
    "inference_mode": (["--trainer.inference_mode", "false"], ended("done", 300)),
    "log_every_n_steps": (["--trainer.log_every_n_steps", "10"], ended("done", 300)),
    "strategy": (["--trainer.strategy", "single_device"], ended("done", 300)),
}


@pytest.mark.filterwarnings("ignore:You have turned on `Trainer.detect_anomaly=True`")
@pytest.mark.parametrize("name", FLAGS)
def test_flags_work_as_documented_by_lightning(name: str, folder: Path, dop) -> None:
    arguments, check = FLAGS[name]
    said = dop("fit", "--config", "base.yaml", *arguments)
    assert said.status == 0, said.err
    check(said.out + said.err)


REFUSED = {
    "BatchSizeFinder": "a training step has no samples",
    "LearningRateFinder": "each problem has separate rates",
    "EMAWeightAveraging": "averages outputs",
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_callback_is_refused(name: str, folder: Path, dop) -> None:
    said = dop("fit", "--config", "base.yaml", f"{CALLBACK}{name}")
    assert said.status == 2
    assert said.err.count("\n") == 1
    assert f"dop fit: error: {name} does not work with this module: " in said.err
    assert REFUSED[name] in said.err
    assert not Path("out").exists()


def test_early_stopping_resumes(folder: Path, dop) -> None:
    stop = [*STOP, "--trainer.callbacks.patience", "3"]
    assert dop("fit", "--config", "base.yaml", *stop).status == 0
    assert ends() == [("done", 300)] * 2
    assert dop("fit", "--config", "base.yaml", *stop, "--trainer.max_steps", "9000").status == 0
    assert ends() == [("done", 400)] * 2  # three evaluations without progress, two of them before
    assert dop("fit", "--config", "base.yaml", "--trainer.max_steps", "9000").status == 0
    assert ends() == [("done", 400)] * 2  # what early stopping has ended is not taken up again


def test_a_file_of_model_checkpoint_is_resumed_and_scored(folder: Path, dop) -> None:
    assert dop("fit", "--config", "base.yaml", "--trainer.enable_checkpointing", "true").status == 0
    (path,) = Path("out", "checkpoints").glob("epoch=*.ckpt")
    said = dop("validate", "--config", "out/config.yaml", "--ckpt_path", str(path))
    assert said.status == 0, said.err
    assert PROBLEMS[1] in said.out
    elsewhere = ["--trainer.default_root_dir", "further", "--trainer.max_steps", "400", "--ckpt_path", str(path)]
    assert dop("fit", "--config", "base.yaml", *elsewhere).status == 0
    assert json.loads(Path("further", PROBLEMS[0], "result.json").read_text())["iterations"] == 400


def test_another_precision_is_another_run(folder: Path, dop) -> None:
    assert dop("fit", "--config", "base.yaml").status == 0
    said = dop("fit", "--config", "base.yaml", "--trainer.precision", "64-true")
    assert said.status == 2
    assert "holds another run (trainer: null in the run, {precision: 64-true} given)" in said.err
