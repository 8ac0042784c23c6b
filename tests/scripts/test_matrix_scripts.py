"""Parts of the scripts that measure robust PCA, in this process."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tests.suites.scripts import imported_script


@pytest.fixture(scope="module")
def tables() -> Iterator[ModuleType]:
    with imported_script("compare_tables") as module:
        yield module


@pytest.fixture(scope="module")
def race() -> Iterator[ModuleType]:
    with imported_script("compare_pca_solvers") as module:
        yield module


def test_tables_are_counted(tables: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "a": {"PCA": 5.0, "clipped": 2.0, "RobustPCA": 1.0},
        "b": {"PCA": 1.0, "clipped": 4.0, "RobustPCA": 3.0},
    }
    tables.summarize(cases, ["PCA", "clipped"])
    said = capsys.readouterr().out
    assert "RobustPCA ≤ PCA in 1 of 2 cases; largest difference +2.00 degrees" in said
    assert "RobustPCA ≤ clipped in 2 of 2 cases; largest difference -1.00 degrees" in said
    assert "RobustPCA ≤ best rival in 1 of 2 cases" in said
    assert said.endswith("worst case: b\n")


def test_cells_of_tables_are_damaged(tables: ModuleType) -> None:
    clean = np.random.default_rng(0).normal(size=(400, 5)) * [9, 8, 1, 1, 1]
    assert tables.gap(clean) == 2
    X = tables.damage(clean, (3.0, 8.0), 0)
    moved = np.abs(X - clean) / clean.std(axis=0)
    assert 0.03 < (moved > 0).mean() < 0.07
    assert 3 <= moved[moved > 0].min() <= moved.max() <= 8
    truth = tables.plain(clean, 2)
    assert tables.angle(truth, truth) < 1e-3
    assert tables.angle(truth[:1], truth) == 90
    assert tables.angle(np.eye(5)[2:4], np.eye(5)[:2]) == pytest.approx(90)


def test_solvers_race_on_one_matrix(race: ModuleType, tmp_path: Path) -> None:
    case = race.Case(80, 70, 3, 0.1)
    L, D = case.matrix(0, torch.float64)
    assert torch.linalg.matrix_rank(L) == 3
    assert 0.05 < float((L != D).double().mean()) < 0.15
    told, begin = race.solvers(case)["AccAltProj γ=.7"]
    found = race.measure(begin, D, L, limit=20, steps=100, end=1e-6)
    assert told == "r"
    assert set(found["reached"]) == {"0.001", "1e-06"}
    row = {"case": case.name, "solver": "AccAltProj", "told": told, **found}
    (tmp_path / f"{case.name}--float64--0--x.json").write_text(json.dumps(row))
    assert f"{case.name} " in race.table(tmp_path, "float64")
