"""Loggers of Lightning, read back: hyperparameters, curves over iterations, problems, pictures, final scores."""

import csv
import io
import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    parse_session_end_info_plugin_data,
    parse_session_start_info_plugin_data,
)

from dop_lightning.engine.evaluated import EvaluatedBatch
from dop_lightning.images.pictures import observed, problem_pictures
from dop_lightning.lightning.callbacks import RecoveryCallback, RecoveryLogging
from dop_lightning.lightning.data import MatrixDataModule
from dop_lightning.lightning.data.saved import GivenProblems
from dop_lightning.lightning.listener import MAX_KEYS
from dop_lightning.lightning.loggers.names import mlflow_key, mlflow_parameters
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.signals import Factor
from dop_lightning.problems.problem import Problem

FINAL = {"iterations", "rank", "relative_error_corruption", "support_precision", "support_recall", "true_density"}
CURVES = {"loss", "relative_error", "corruption_density"}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., pl.Trainer]:
    """Fits with loggers and nothing else: ``run(module, data, max_steps, loggers)``."""

    def run(module: Any, data: Any, max_steps: int, loggers: list[Logger], **options: Any) -> pl.Trainer:
        checkpoint = options.pop("ckpt_path", None)
        settings = {
            "max_steps": max_steps,
            "accelerator": "cpu",
            "logger": loggers,
            "limit_val_batches": 0,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
        }
        trainer = pl.Trainer(**{**settings, **options})
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return trainer

    return run


def rows_of(logger: CSVLogger) -> list[dict[str, str]]:
    with (Path(logger.log_dir) / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def curve(logger: CSVLogger, key: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[key])) for row in rows_of(logger) if key in row]


def final(logger: CSVLogger) -> dict[str, str]:
    """The last value of each column."""
    return {key: value for row in rows_of(logger) for key, value in row.items()}


def events(logger: TensorBoardLogger) -> EventAccumulator:
    return EventAccumulator(logger.log_dir, size_guidance={"scalars": 0, "images": 0}).Reload()


def plugin(read: EventAccumulator, tag: str) -> bytes:
    return read.SummaryMetadata(tag).plugin_data.content


# ----------------------------------------------------------------------------------------------------- CSV, TensorBoard


def test_csv(run, matrix_method, matrices, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    data = matrices()
    module = matrix_method()
    run(module, data, 500, [logger])
    rows = rows_of(logger)
    assert [int(row["step"]) for row in rows] == [200, 400, 500, 500]
    names = [problem.name for problem in data.problems]
    for row in rows[:3]:
        assert set(row) == {"step", "epoch", *CURVES, *(f"{tag}/{name}" for tag in CURVES for name in names)}
    assert {key for key in rows[-1] if "/" not in key} == {"step", "status", *FINAL}  # the others are in the row before
    last = final(logger)
    for name in names:
        outcome = module.recovered(name)
        assert last[f"status/{name}"] == "done"
        assert last[f"iterations/{name}"] == "500"
        assert {key.partition("/")[0] for key in last if key.endswith(f"/{name}")} == {"status", *CURVES, *FINAL}
        for tag, value in outcome.scores.items():
            assert float(last[f"{tag}/{name}"]) == pytest.approx(value, rel=1e-6)
    mean = np.mean([float(last[f"rank/{name}"]) for name in names])
    assert float(last["rank"]) == pytest.approx(mean)
    settings = yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text())
    assert settings["tau"] == 2e-3
    assert settings["alpha"] == pytest.approx(12**0.5)  # it was null
    assert settings["signal"] == {"class_path": "dop_lightning.model.signals.factor.SymmetricFactor"}
    assert settings["n"] == 12
    assert settings["noise"]["init_args"]["ratio"] == 0.1
    assert not [key for key in settings if key.startswith("_")]


def test_tensorboard(run, image_method, images, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    data = images(images=["camera", "coffee"])
    module = image_method(evaluate_every=2, block=1)
    run(module, data, 8, [logger], callbacks=[RecoveryLogging(images_every=2)])
    read = events(logger)
    assert [event.step for event in read.Scalars("psnr")] == [2, 4, 6, 8]
    for problem in data.problems:
        outcome = module.recovered(problem.name)
        assert [event.step for event in read.Scalars(f"psnr/{problem.name}")] == [2, 4, 6, 8]
        for tag, value in outcome.scores.items():
            last = read.Scalars(f"{tag}/{problem.name}")[-1]
            assert (last.step, last.value) == (8, pytest.approx(value, rel=1e-6))
        assert read.Scalars(f"iterations/{problem.name}")[-1].value == 8
        assert [event.step for event in read.Images(f"recovered/{problem.name}")] == [4, 8]
        assert [event.step for event in read.Images(f"corruption/{problem.name}")] == [4, 8]
        assert [event.step for event in read.Images(f"observation/{problem.name}")] == [0]
        tensors = {"observation": observed(problem), "recovered": outcome.signal, "corruption": outcome.corruption}
        for label, picture in problem_pictures(problem, tensors).items():
            logged = read.Images(f"{label}/{problem.name}")[-1].encoded_image_string
            expected = np.array(Image.fromarray(picture).convert("RGB"))
            assert np.array_equal(np.array(Image.open(io.BytesIO(logged))), expected)
    start = parse_session_start_info_plugin_data(plugin(read, SESSION_START_INFO_TAG)).hparams
    assert start["tau"].number_value == 0.5
    assert start["alpha"].number_value == 20.0
    assert start["signal/init_args/width"].number_value == 4
    assert start["images"].string_value == "['camera', 'coffee']"
    assert not [key for key in start if key.startswith("_")]
    end = parse_session_end_info_plugin_data(plugin(read, SESSION_END_INFO_TAG))
    assert end.status == 1  # success
    assert "hp_metric" not in read.Tags()["scalars"]
    text = read.Tensors("status/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert text.splitlines()[0] == "- status: done"


# ------------------------------------------------------------------------------------------------------- MLflow, W&B


@pytest.fixture
def mlflow_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A logger with a local store, which MLflow allows only on request."""
    pytest.importorskip("mlflow")
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    from pytorch_lightning.loggers import MLFlowLogger

    return MLFlowLogger("dop", tracking_uri=(tmp_path / "mlruns").as_uri())


@pytest.mark.filterwarnings("default")  # what MLflow deprecates in itself
def test_mlflow(run, matrix_method, matrices, mlflow_logger, tmp_path: Path) -> None:
    matrix = matrices()
    matrix.setup()
    names = ["photo/1", "été (2)", "a.b-c"]
    given = [Problem(name=name, observation=p.observation) for name, p in zip(names, matrix.problems, strict=True)]
    module = matrix_method(Factor, tau=[1e-3, 2e-3, 1e-3])
    run(module, GivenProblems(given), 500, [mlflow_logger])
    client, run_id = mlflow_logger.experiment, mlflow_logger.run_id
    read = client.get_run(run_id).data
    assert [(m.step) for m in client.get_metric_history(run_id, "loss")] == [200, 400, 500]
    for name, tau in zip(names, ["0.001", "0.002", "0.001"], strict=True):
        outcome = module.recovered(name)
        assert [m.step for m in client.get_metric_history(run_id, mlflow_key(f"loss/{name}"))] == [200, 400, 500]
        for tag, value in outcome.scores.items():
            assert read.metrics[mlflow_key(f"{tag}/{name}")] == pytest.approx(value, rel=1e-6)
        assert read.metrics[mlflow_key(f"iterations/{name}")] == 500
        assert read.tags[mlflow_key(f"status/{name}")] == "done"
        assert [read.params[key] for key in mlflow_parameters({"tau": {name: None}})] == [tau]
        shown = [a.path for a in client.list_artifacts(run_id, "images") if a.path.endswith(".png")]
        start = f"images/{mlflow_key(f'recovered/{name}')}+step+500+"
        (path,) = [path for path in shown if path.startswith(start)]
        picture = problem_pictures(outcome.problem, {"recovered": outcome.signal})["recovered"]
        assert np.array_equal(np.array(Image.open(client.download_artifacts(run_id, path))), picture)
    assert read.tags["status"] == "done"
    assert read.params["signal/class_path"] == "dop_lightning.model.signals.factor.Factor"
    assert not [key for key in read.params if key.startswith("_")]

    again = type(mlflow_logger)("dop", tracking_uri=(tmp_path / "mlruns").as_uri(), run_id=run_id)
    with pytest.warns(UserWarning, match="keeps the first value of a parameter; evaluate_every"):
        run(matrix_method(Factor, tau=[1e-3, 2e-3, 1e-3], evaluate_every=100), GivenProblems(given), 100, [again])


def test_names_for_mlflow_stay_different() -> None:
    names = ["a/b", "a_b", "a b", "é", "e", "è", "照片", "圖片", "..", ".", "/", "x:y"]
    keys = {mlflow_key(f"psnr/{name}") for name in names} | {"psnr"}
    assert len(keys) == len(names) + 1
    for key in keys:
        assert "/" not in key
        assert key.isascii()
        assert not set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789_. -")


@pytest.mark.filterwarnings("default")  # what W&B deprecates in itself
def test_wandb_offline(run, matrix_method, matrices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    from pytorch_lightning.loggers import WandbLogger

    logger = WandbLogger(save_dir=tmp_path, offline=True, settings={"x_disable_stats": True, "x_disable_meta": True})
    module, data = matrix_method(), matrices()
    run(module, data, 500, [logger])
    folder = Path(logger.experiment.dir).parent
    logger.experiment.finish()
    wandb.teardown()  # its process has written all
    config, history, summary = read_wandb(next(folder.glob("*.wandb")))
    assert config["tau"] == 2e-3
    assert config["alpha"] == pytest.approx(12**0.5)
    assert config["noise"]["init_args"]["ratio"] == 0.1
    assert not [key for key in config if key.startswith("_") and key != "_wandb"]
    for key in ["loss", *(f"loss/{problem.name}" for problem in data.problems)]:
        assert [row["trainer/global_step"] for row in history if key in row] == [200, 400, 500]
    for problem in data.problems:
        outcome = module.recovered(problem.name)
        for tag, value in outcome.scores.items():
            assert summary[f"{tag}/{problem.name}"] == pytest.approx(value, rel=1e-6)
        assert summary[f"status/{problem.name}"] == "done"
        assert summary[f"iterations/{problem.name}"] == 500
        steps = [row["trainer/global_step"] for row in history if f"recovered/{problem.name}" in row]
        assert steps == [500]
        shown = [row[f"observation/{problem.name}"] for row in history if f"observation/{problem.name}" in row]
        (name,) = shown[0]["filenames"]
        picture = problem_pictures(problem, {"observation": observed(problem)})["observation"]
        assert np.array_equal(np.array(Image.open(folder / "files" / name)), picture)
    assert summary["status"] == "done"


def read_wandb(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Config, history and summary of an offline run, out of its log."""
    from wandb.proto import wandb_internal_pb2

    def put(found: dict[str, Any], item: Any) -> None:
        path = list(item.nested_key) or [item.key]
        for key in path[:-1]:
            found = found.setdefault(key, {})
        found[path[-1]] = json.loads(item.value_json)

    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    for data in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        for item in {"config": record.config.update, "run": record.run.config.update}.get(kind, ()):
            put(config, item)
        if kind == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                put(row, item)
            history.append(row)
        for item in record.summary.update if kind == "summary" else ():
            put(summary, item)
    return config, history, summary


def wandb_records(log: bytes) -> Iterator[bytes]:
    """Records of a log of W&B: chunks in blocks of 32 KiB, the format of LevelDB's logs, after 7 bytes."""
    at, record = 7, b""
    while at + 7 <= len(log):
        if (left := -at % 32768) and left < 7:
            at += left  # no room for a chunk's head: padding
            continue
        size, kind = struct.unpack("<HB", log[at + 4 : at + 7])
        record += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, last
            yield record
            record = b""


# --------------------------------------------------------------------------------------------------------- the rhythm


@pytest.mark.parametrize("every", [0, 1, 50, 10**6])
def test_every_evaluation_is_logged(every: int, run, matrix_method, matrices, tmp_path: Path) -> None:
    both = [CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    run(matrix_method(evaluate_every=60), matrices(n=[12, 9], batch_size=2), 130, both, log_every_n_steps=every)
    for key in ("loss", "loss/n9-r1-gross-outliers-0.1-seed2"):
        assert [step for step, _ in curve(both[0], key)] == [60, 120, 130]
        assert [event.step for event in events(both[1]).Scalars(key)] == [60, 120, 130]


def test_validation_adds_no_rows(run, matrix_method, matrices, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    run(matrix_method(), matrices(), 500, [logger], limit_val_batches=1.0)
    assert [step for step, _ in curve(logger, "loss")] == [200, 400, 500]


def test_a_resumed_run_continues_the_curves(run, matrix_method, matrices, tmp_path: Path) -> None:
    first, second, whole = CSVLogger(tmp_path, version=0), CSVLogger(tmp_path, version=1), CSVLogger(tmp_path, "whole")
    saved = tmp_path / "last.ckpt"
    run(matrix_method(), matrices(), 400, [first]).save_checkpoint(saved)
    trainer = run(matrix_method(), matrices(), 800, [second], ckpt_path=saved)
    run(matrix_method(), matrices(), 800, [whole])
    assert trainer.global_step == 800
    for key in ("loss", "loss/n12-r1-gross-outliers-0.1-seed1"):
        assert [step for step, _ in curve(second, key)] == [600, 800]
        assert curve(first, key) + curve(second, key) == curve(whole, key)
    assert final(second) == final(whole)


def test_final_scores_of_problems_ended_before_resuming(run, matrix_method, matrices, tmp_path: Path) -> None:
    class StopFirst(RecoveryCallback):
        def on_evaluation(self, trainer: pl.Trainer, module: Any, batch: EvaluatedBatch) -> None:
            if batch.iteration == 200:
                module.stop_problem(batch.problems.names[0], "stable")

    saved = tmp_path / "last.ckpt"
    run(matrix_method(), matrices(), 400, [CSVLogger(tmp_path)], callbacks=[StopFirst()]).save_checkpoint(saved)
    logger = CSVLogger(tmp_path)
    run(matrix_method(), matrices(), 600, [logger], ckpt_path=saved)
    last = final(logger)
    assert last["status"] == "2 done, 1 stable"
    first = "n12-r1-gross-outliers-0.1-seed0"
    assert (last[f"status/{first}"], last[f"iterations/{first}"]) == ("stable", "200")
    assert f"rank/{first}" in last


def test_interrupted_run_ends_its_curves_at_its_iteration(
    run, matrix_method, matrices, stop_at, tmp_path: Path
) -> None:
    both = [CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    run(matrix_method(), matrices(), 800, both, callbacks=[stop_at(300)])
    last = rows_of(both[0])[-1]
    assert (last["status"], last["step"]) == ("interrupted", "300")
    read = events(both[1])
    assert [event.step for event in read.Scalars("loss")] == [200, 300]
    assert read.Scalars("loss")[-1].value == pytest.approx(float(last["loss"]))
    assert SESSION_END_INFO_TAG not in read.PluginTagToContent("hparams")


# ------------------------------------------------------------------------------------------------------- many problems


def test_a_sample_of_many_problems(run, matrix_method, matrices, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    data = matrices(n=4, seeds=50)
    module = matrix_method(tau=[1e-3 + 1e-6 * k for k in range(50)])
    run(module, data, 200, [logger])
    read = events(logger)
    tags = read.Tags()
    for tag in ("loss", "rank", "iterations"):
        assert len([key for key in tags["scalars"] if key.startswith(f"{tag}/")]) == MAX_KEYS
    mean = np.mean([module.recovered(problem.name).scores["rank"] for problem in data.problems])
    assert read.Scalars("rank")[-1].value == pytest.approx(mean)
    for label in ("observation", "recovered", "corruption"):
        assert len([key for key in tags["images"] if key.startswith(f"{label}/")]) == 10
    start = parse_session_start_info_plugin_data(plugin(read, SESSION_START_INFO_TAG)).hparams
    assert len([key for key in start if key.startswith("tau/")]) == MAX_KEYS
    assert start["alpha"].number_value == 2.0


# ------------------------------------------------------------------------------------------- callback, hyperparameters


class Kept(Logger):
    """A custom logger."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters: list[dict[str, Any]] = []
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[tuple[int, str]] = []

    name = version = "kept"

    def log_hyperparams(self, params: Any) -> None:
        self.parameters.append(params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics.append((step or 0, metrics))

    def log_image(self, key: str, images: list[Any], step: int) -> None:
        self.pictures.append((step, key))


def test_custom_logger(run, matrix_method, matrices) -> None:
    logger = Kept()
    run(matrix_method(), matrices(seeds=1), 400, [logger])
    name = "n12-r1-gross-outliers-0.1-seed0"
    assert [step for step, metrics in logger.metrics if f"loss/{name}" in metrics] == [200, 400]
    step, last = logger.metrics[-1]
    assert step == 400
    assert set(last) == {*FINAL, *(f"{tag}/{name}" for tag in FINAL)}  # the others were logged just before
    assert logger.pictures == [(0, f"observation/{name}"), (400, f"recovered/{name}"), (400, f"corruption/{name}")]
    assert len(logger.parameters) == 1


def test_an_image_in_tiles_is_logged_as_a_whole_at_the_end(run, image_method, images) -> None:
    logger, module = Kept(), image_method(block=2, evaluate_every=2)
    run(module, images(resize=24, tile=16), 4, [logger])
    whole = module.recovered("camera-salt-and-pepper-0.3-seed0")
    tiles = [f"{whole.problem.name}-r{row}-c{column}" for row in (0, 1) for column in (0, 1)]
    for tile in tiles:
        assert [step for step, metrics in logger.metrics if f"psnr/{tile}" in metrics] == [2, 4]
    step, last = logger.metrics[-1]
    assert step == 4
    for tag, value in whole.scores.items():
        assert last[f"{tag}/{whole.problem.name}"] == pytest.approx(value)
    for label in ("recovered", "corruption"):
        assert [step for step, key in logger.pictures if key == f"{label}/{whole.problem.name}"] == [4]


def test_the_callback_is_added_once_and_only_with_loggers(run, matrix_method, matrices, tmp_path: Path) -> None:
    def added(trainer: pl.Trainer) -> list[RecoveryLogging]:
        return [callback for callback in trainer.callbacks if isinstance(callback, RecoveryLogging)]

    assert added(run(matrix_method(), matrices(), 100, [])) == []
    data, module, logger = matrices(), matrix_method(), Kept()
    trainer = run(module, data, 100, [logger])
    assert len(added(trainer)) == 1
    trainer.test(module, data, verbose=False)
    assert len(added(trainer)) == 1
    assert logger.parameters[0] == logger.parameters[1]

    class Own(RecoveryLogging):
        pass

    for given in (RecoveryLogging(most_pictures=0), Own(most_pictures=0)):
        logger = Kept()
        assert added(run(matrix_method(), matrices(), 100, [logger], callbacks=[given])) == [given]
        assert logger.pictures == []
        assert len(logger.parameters) == 1


@pytest.mark.parametrize("argument", ["images_every", "most_pictures"])
def test_refuses_negative_numbers(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be a whole number of at least 0, got -1"):
        RecoveryLogging(**{argument: -1})


def test_automatic_rates(run, matrix_method, matrices) -> None:
    logger, module = Kept(), matrix_method(Factor, tau="auto")
    run(module, matrices(n=[12, 9], seeds=1), 50, [logger])
    (parameters,) = logger.parameters
    names = [f"n{n}-r1-gross-outliers-0.1-seed0" for n in (12, 9)]
    assert parameters["alpha"] == {names[0]: pytest.approx(12**0.5), names[1]: pytest.approx(3.0)}
    assert parameters["tau"] == {name: module.recovered(name).tau for name in names}
    assert module.hparams["tau"] == "auto"  # what was asked for stays


def test_unused_rates_are_omitted(run, matrices, matrix_method) -> None:
    logger = Kept()
    run(matrix_method(Factor, corruption=None), matrices(), 50, [logger])
    (parameters,) = logger.parameters
    assert "alpha" not in parameters
    assert parameters["tau"] == 2e-3


def test_hyperparameters_are_not_logged_if_disabled(run, matrix_method, matrices) -> None:
    logger = Kept()
    run(matrix_method(), matrices(), 50, [logger], enable_autolog_hparams=False)
    assert logger.parameters == []

    class Quiet(DoubleOverparameterization):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.save_hyperparameters(logger=False)

    module, data = Quiet(tau=2e-3), matrices()
    assert not module.is_from_cli
    trainer = run(module, data, 50, [logger])
    (parameters,) = logger.parameters
    assert "tau" not in parameters
    assert parameters["n"] == 12
    trainer.logger = False
    assert data._log_hyperparams  # as before


def test_settings_of_the_data_in_a_checkpoint_file(run, matrix_method, matrices, tmp_path: Path) -> None:
    class Own(MatrixDataModule):
        def __init__(self, ratio: float = 0.1) -> None:
            super().__init__(12, 1, noise=matrices().noises, seeds=2)

    path = tmp_path / "run.ckpt"
    for data in (matrices(), Own(0.2), GivenProblems(_problems(matrices))):
        run(matrix_method(), data, 50, []).save_checkpoint(path)
        saved = torch.load(path, weights_only=True)["datamodule_hyper_parameters"]
        assert saved == dict(data.hparams)
    data = matrices()
    run(matrix_method(), data, 50, []).save_checkpoint(path)
    again = type(data).load_from_checkpoint(path)
    again.setup()
    assert [p.name for p in again.problems] == [p.name for p in data.problems]
    assert torch.equal(again.problems[2].observation, data.problems[2].observation)


def _problems(matrices: partial[Any]) -> list[Problem]:
    data = matrices()
    data.setup()
    return data.problems
