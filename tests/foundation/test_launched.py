"""Environment variables set by launchers."""

import re
from collections.abc import Callable

import pytest

from dop_lightning.foundation.launched import Place, given_folder, job_name, outer_place, outer_ranks, taken_batches


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_NNODES", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "ranks", "name"),
    [
        ({}, None, None),
        ({"WORLD_SIZE": "4", "LOCAL_RANK": "1"}, None, None),
        ({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, (2, 2), None),
        ({"TORCHELASTIC_RUN_ID": "job7", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}, (8, 1), "torchrun-job7"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_ID": "12"}, None, "slurm-12"),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_JOB_ID": "9"}, (8, 2), "slurm-9"),
        ({"SLURM_JOB_ID": "99", "SLURM_ARRAY_JOB_ID": "90", "SLURM_ARRAY_TASK_ID": "4"}, None, "slurm-90-4"),
    ],
)
def test_launchers(environment: dict[str, str], ranks, name, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert outer_ranks() == ranks
    assert job_name() == name


def test_nodes_with_different_numbers_of_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ValueError, match="must have the same number of processes, got 5 in all, 2 on a node"):
        outer_ranks()


def test_wrong_number_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "many", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="variable WORLD_SIZE must be a whole number of at least 1, got 'many'"):
        outer_ranks()


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, None),
        (
            {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"},
            Place(3, 4, 1, 2),
        ),
        (
            {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_LOCALID": "1"},
            Place(5, 8, 1, 4),
        ),
        ({"DOP_CHILD": "1", "DOP_PLACE": "1/2/1/2", "SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, Place(1, 2, 1, 2)),
    ],
)
def test_rank_of_a_process(environment: dict[str, str], place, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert outer_place() == place


@pytest.mark.parametrize(
    ("name", "value", "function", "message"),
    [
        ("DOP_TAKEN", "1,two", taken_batches, "DOP_TAKEN must hold integers separated by commas, got '1,two'"),
        ("DOP_RUN_FOLDER", "", given_folder, "DOP_RUN_FOLDER must be a folder, got ''"),
        ("DOP_RUN_FOLDER", __file__, given_folder, f"DOP_RUN_FOLDER must be a folder, got {__file__!r}"),
        ("DOP_PLACE", "1/2", outer_place, "DOP_PLACE must hold 4 whole numbers with slashes between, got '1/2'"),
        (
            "DOP_PLACE",
            "1/2/1/x",
            outer_place,
            "DOP_PLACE must hold 4 whole numbers with slashes between, got '1/2/1/x'",
        ),
    ],
)
def test_wrong_dop_variable_is_reported(
    name: str, value: str, function: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOP_CHILD", "1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^the environment variable {re.escape(message)}$"):
        function()
