"""``problem_parallel`` from the command line: refused settings, run folders, and locks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch.utils import tensorboard

from dop_lightning.cli.experiments import lightning_cli as lightning
from dop_lightning.cli.experiments import runner
from dop_lightning.foundation.launched import BATCHES_VARIABLE, RUN_FOLDER
from dop_lightning.lightning.strategies import ProblemParallelStrategy
from dop_lightning.runs.results import read_results
from tests.runs.test_locks import other

CONFIGS = Path(__file__).parents[3] / "configs"
SMALL = ["--data.n", "12", "--data.rank", "1", "--trainer.max_steps", "20", "--trainer.accelerator", "cpu"]
FIT = ["fit", "--config", str(CONFIGS / "matrix.yaml"), *SMALL, "--data.seeds", "4", "--data.batch_size", "2"]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", RUN_FOLDER):
        monkeypatch.delenv(name, raising=False)


def sizes() -> list[int]:
    return [len(batch) for batch in json.loads(Path("out/manifest.json").read_text())["batches"]]


def test_automatic_batches_fit_into_memory_and_stay_with_their_run(dop) -> None:
    automatic = [*FIT, "--data.batch_size", "auto", "--trainer.default_root_dir", "out"]
    assert dop(*automatic, "--data.max_memory", "0.04M").status == 0
    assert sizes() == [2, 2]
    said = dop(*automatic, "--data.max_memory", "1G", "--trainer.max_steps", "40")
    assert said.status == 0, said.err
    assert sizes() == [2, 2]
    assert dop("predict", "--config", "out/config.yaml").status == 0


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "deepspeed"])
def test_strategies_with_a_process_group_are_refused(strategy: str, dop) -> None:
    said = dop(*FIT, "--trainer.strategy", strategy, "--trainer.devices", "2")
    assert said.status == 2
    assert f"trainer.strategy must be one of auto, single_device, problem_parallel, got {strategy!r}" in said.err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("devices", ["0", "-3", "many"])
def test_missing_devices_are_refused(devices: str, dop) -> None:
    said = dop(*FIT, "--trainer.devices", devices, "--trainer.default_root_dir", "out")
    assert said.status == 2
    assert said.err.startswith("dop fit: error:")
    assert "Traceback" not in said.err
    assert not Path("out").exists()


def test_strategy_works_with_one_process(dop) -> None:
    said = dop(*FIT, "--trainer.strategy", "problem_parallel", "--trainer.default_root_dir", "out")
    assert said.status == 0
    assert len(list(Path("out").glob("*/result.json"))) == 4


def test_two_processes_share_the_work_and_one_prints(dop) -> None:
    said = dop(*FIT, "--trainer.devices", "2")  # a folder by the time, which both must have
    assert said.status == 0, said.err
    (run,) = Path("runs/matrix").iterdir()
    assert len((run / "results.csv").read_text().splitlines()) == 5
    assert "4 problems in 2 batches on this process and 1 more, 2 of them here" in said.err
    assert said.out.count("Files:") == 1
    again = dop(*FIT, "--trainer.default_root_dir", str(run), "--trainer.max_steps", "30")  # on one
    assert again.status == 0
    assert "Resuming" in again.err
    scores = dop("test", "--config", str(run / "config.yaml"))  # whose config says two
    assert scores.status == 0, scores.err


def test_ctrl_c_stops_all_processes(tmp_path: Path) -> None:
    """A terminal sends it to all of them, and the first one passes it on."""
    endless = [*FIT, "--trainer.max_steps", "100000000", "--checkpoint.every_minutes", "0.001"]
    command = [sys.executable, "-m", "dop_lightning", *endless, "--trainer.devices", "2"]
    command += ["--trainer.default_root_dir", str(tmp_path / "out")]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and len(list(tmp_path.glob("out/checkpoints/last.ckpt/batch-????.pt"))) < 2:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.count("Stopping: saving") == 1
    assert "Traceback" not in err
    assert [result["status"] for result in read_results(tmp_path / "out")] == ["interrupted"] * 4


@pytest.mark.slow
def test_process_without_work_does_not_block(dop) -> None:
    """Two processes, one batch."""
    said = dop(*FIT, "--data.batch_size", "4", "--trainer.devices", "2", "--trainer.default_root_dir", "out")
    assert said.status == 0, said.err
    assert len(list(Path("out").glob("*/result.json"))) == 4
    assert "1 of 2 processes has no batch to work on" in said.err


def test_process_that_takes_over_handles_only_these_batches(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = [*FIT, "--data.batch_size", "1", "--trainer.default_root_dir", "out"]
    assert dop(*run).status == 0
    for name, value in {"LOCAL_RANK": "1", "DOP_CHILD": str(os.getppid()), BATCHES_VARIABLE: "1,3"}.items():
        monkeypatch.setenv(name, value)
    said = dop(*run, "--trainer.devices", "2", "--trainer.max_steps", "40")
    assert said.status == 0, said.err
    assert [result["iterations"] for result in read_results(Path("out"))] == [20, 40, 20, 40]
    monkeypatch.setenv(BATCHES_VARIABLE, "4")
    said = dop(*run, "--trainer.devices", "2")
    assert (said.status, said.err.count("\n")) == (2, 1)
    assert "DOP_TAKEN must contain batch numbers of the run, below 4, got [4]" in said.err


def test_active_run_is_refused(dop) -> None:
    process = other(Path("out/checkpoints/lock"), 1)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[]\n"
        said = dop(*FIT, "--trainer.default_root_dir", "out")
        assert said.status == 2
        assert "out: another process is working on batch-0001 of this run" in said.err
    finally:
        process.kill()
        process.communicate()
    assert dop(*FIT, "--trainer.default_root_dir", "out").status == 0


def test_second_start_is_refused_even_if_files_are_removed(dop, tmp_path: Path) -> None:
    endless = [*FIT, "--trainer.max_steps", "100000000", "--trainer.default_root_dir", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "dop_lightning", *endless], stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not Path("out/manifest.json").exists():
            time.sleep(0.05)
        for removed in ("out/checkpoints/lock", "out/manifest.json", "out/config.yaml"):
            Path(removed).unlink(missing_ok=True)
        for devices in ("1", "2"):
            said = dop(*FIT, "--trainer.default_root_dir", "out", "--trainer.devices", devices)
            assert (said.status, said.err.count("\n")) == (2, 1)
            assert "out: another process is using this folder; wait until it ends" in said.err
        Path("out").rename("moved")
        _, err = process.communicate(timeout=200)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 2, err
    assert "out: was moved, removed or replaced during this run" in err
    assert "Traceback" not in err
    assert not Path("out").exists()


@pytest.mark.parametrize("when", ["before it is opened", "after it was opened"])
def test_folder_moved_while_tensorboard_opens_a_file_is_not_recreated(
    when: str, dop, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Moving(tensorboard.SummaryWriter):
        def __init__(self, *arguments: object, **options: object) -> None:
            if when.startswith("before"):
                Path("out").rename("moved")
            super().__init__(*arguments, **options)
            if when.startswith("after"):
                Path("out").rename("moved")

    monkeypatch.setattr(tensorboard, "SummaryWriter", Moving)
    said = dop(*FIT, "--trainer.default_root_dir", "out")
    assert (said.status, said.err.count("was moved, removed or replaced during this run")) == (2, 1)
    assert "Traceback" not in said.err
    assert not Path("out").exists()


def test_moved_run_resumes_in_the_folder_of_its_config(dop) -> None:
    assert dop(*FIT, "--trainer.default_root_dir", "out").status == 0
    Path("out").rename("moved")
    said = dop("fit", "--config", "moved/config.yaml", "--trainer.max_steps", "40")
    assert said.status == 0, said.err
    assert "The run of out was moved to moved, and resumes there" in said.err
    assert not Path("out").exists()
    assert {result["iterations"] for result in read_results(Path("moved"))} == {40}
    said = dop("fit", "--config", "moved/config.yaml", "--trainer.default_root_dir", "")
    assert (said.status, "default_root_dir must be a folder, got ''" in said.err) == (2, True)


def trainer_of(monkeypatch: pytest.MonkeyPatch, **environment: str) -> pl.Trainer:
    """The trainer that the command makes in an environment."""
    runner.prepare()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    return lightning._parse("fit", FIT[1:]).trainer


def test_slurm_tasks_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}
    slurm |= {"SLURM_JOB_ID": "77", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "grid", "SLURM_NODELIST": "a"}
    trainer = trainer_of(monkeypatch, **slurm)
    assert isinstance(trainer.strategy, ProblemParallelStrategy)
    assert (trainer.num_devices, trainer.num_nodes, trainer.global_rank, trainer.world_size) == (2, 2, 3, 4)
    assert Path(trainer.default_root_dir) == Path("runs/matrix/slurm-77")


def test_torchrun_processes_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torchrun = {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    torchrun |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
    trainer = trainer_of(monkeypatch, **torchrun, TORCHELASTIC_RUN_ID="mine")
    assert (trainer.num_devices, trainer.num_nodes, trainer.global_rank, trainer.world_size) == (2, 1, 1, 2)
    assert Path(trainer.default_root_dir) == Path("runs/matrix/torchrun-mine")
    with pytest.raises(ValueError, match=r"default_root_dir is required with torchrun without --rdz"):
        trainer_of(monkeypatch, **torchrun, TORCHELASTIC_RUN_ID="none")


def test_threads_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("dop_lightning.foundation.machine.usable_cores", lambda: 7)
    trainer = pl.Trainer(accelerator="cpu", devices=3, strategy="problem_parallel", logger=False)
    assert isinstance(trainer.strategy, ProblemParallelStrategy)
    assert (trainer.world_size, trainer.global_rank, trainer.strategy.root_device) == (3, 0, torch.device("cpu"))
    trainer.strategy.setup_environment()
    assert torch.get_num_threads() == 2
