"""Which problems of a start a run has already; tests/whole_runs/test_growing_runs.py has whole runs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dop_lightning.problems.problem import Problem
from dop_lightning.runs.copies import copy_of
from dop_lightning.runs.folder import RunFolder
from dop_lightning.runs.growth import find_problems, recognize, recorded_rates
from dop_lightning.runs.manifest import write_manifest
from dop_lightning.runs.request import RunRequest


def problem(image: str, seed: int = 0, value: float = 1.0) -> Problem:
    return Problem(f"{image}-seed{seed}", torch.full((2, 2), float(value)), seed=seed, attributes={"image": image})


def request(*problems: Problem, alpha: object = None) -> RunRequest:
    return RunRequest({"model": {"alpha": alpha}}, problems, {})


def write(run: Path, *problems: Problem, alpha: object = None) -> RunFolder:
    config = f"model: {{alpha: {'null' if alpha is None else alpha}}}\n"
    write_manifest(run, request(*problems, alpha=alpha), config, batches=[[each.name for each in problems]])
    return RunFolder(run)


def names(folder: RunFolder, *problems: Problem) -> list[str | None]:
    entries = recognize(folder, request(*problems)).entries
    return [None if entry is None else entry["name"] for entry in entries]


def test_problems_keep_their_names_in_any_order(tmp_path: Path) -> None:
    folder = write(tmp_path, replace(problem("a"), name="old"), problem("b"))
    assert names(folder, problem("b"), problem("c"), problem("a")) == ["b-seed0", None, "old"]
    known = recognize(folder, request(problem("b"), problem("c"), problem("a")))
    assert known.names == {0: ("b-seed0", []), 2: ("old", [])}
    assert known.batches == [["old", "b-seed0"]]


def test_problems_with_equal_names_are_distinguished_by_data(tmp_path: Path) -> None:
    folder = write(tmp_path, replace(problem("a", value=1), name="a"), replace(problem("a", value=2), name="a-2"))
    assert names(folder, problem("a", value=3), problem("a", value=2), problem("a", value=1)) == [None, "a-2", "a"]


def test_copies_are_separate_problems(tmp_path: Path) -> None:
    folder = write(tmp_path, replace(problem("a"), name="a"), replace(problem("a"), name="a-2"))
    assert names(folder, problem("a"), problem("a"), problem("a")) == ["a", "a-2", None]
    with pytest.raises(ValueError, match="holds problems that are not given: a-2; specify them as well"):
        names(folder, problem("a"))


def test_problem_with_changed_data_is_reported(tmp_path: Path) -> None:
    folder = write(tmp_path, problem("a"), problem("b"))
    with pytest.raises(ValueError, match=r"the data of b-seed0 have changed since the run was started; restore them"):
        names(folder, problem("a"), problem("c"), problem("b", value=2))


def test_rates_are_compared_per_problem(tmp_path: Path) -> None:
    folder = write(tmp_path, problem("a"), problem("b"), alpha=[1.0, 2.0])
    asked = [problem("c"), problem("b"), problem("a")]
    recognize(folder, request(*asked, alpha=[7.0, 2.0, 1.0]))
    for alpha, text in (
        ([7.0, 2.0, 3.0], "model.alpha of a-seed0: 1.0 in the run, 3.0 given"),
        (2.0, "model.alpha of a-seed0: 1.0 in the run, 2.0 given"),
        (
            None,
            "model.alpha of b-seed0: 2.0 in the run, null given, model.alpha of a-seed0: 1.0 in the run, null given",
        ),
    ):
        with pytest.raises(ValueError, match="holds another run") as error:
            recognize(folder, request(*asked, alpha=alpha))
        assert f"({text}" in str(error.value)
        find_problems(folder, request(*asked, alpha=alpha))  # whatever the rates are
    assert recorded_rates(tmp_path, asked) == [{}, {"tau": None, "alpha": 2.0}, {"tau": None, "alpha": 1.0}]
    assert recorded_rates(tmp_path / "none", asked) == [{}, {}, {}]


def test_common_rate_is_reported_once(tmp_path: Path) -> None:
    folder = write(tmp_path, problem("a"), problem("b"), alpha=3.0)
    with pytest.raises(ValueError, match=r"holds another run \(model.alpha: 3.0 in the run, 5.0 given\); choose"):
        recognize(folder, request(problem("a"), problem("b"), alpha=5.0))
    recognize(folder, request(problem("a"), problem("b"), problem("c"), alpha=[3.0, 3.0, 5.0]))


def test_other_settings_are_refused_if_the_config_is_damaged(tmp_path: Path) -> None:
    folder = write(tmp_path, problem("a"))
    for path in (folder.config_path, copy_of(folder.config_path)):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    assert names(folder, problem("a")) == ["a-seed0"]
    other = RunRequest({"model": {"alpha": None, "loss": "other"}}, [problem("a")], {})
    with pytest.raises(
        ValueError, match=rf"config\.yaml: not a config .*; its copy cannot be read either.* {tmp_path}"
    ):
        recognize(folder, other)
