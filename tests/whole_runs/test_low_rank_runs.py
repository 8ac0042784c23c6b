"""Whole runs of what the low-rank half adds: step rules, horizons, growing ranks, convex solvers, α as an axis."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dop_lightning.engine.convex import InexactALM, solve
from dop_lightning.engine.steps import GradientDescent, Nesterov, SemiImplicit
from dop_lightning.model.corruption import HadamardCorruption
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.model.signals import Factor, SymmetricFactor

GAUSSIAN = ["--data.sensing", "GaussianMeasurements", "--data.sensing.measurements"]


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": GradientDescent(horizon=1.5), "tau": "auto"},
        {"steps": GradientDescent(decay=0.999), "tau": 3e-3},
        {"steps": Nesterov(), "tau": "auto"},
        {"steps": SemiImplicit(), "tau": "auto", "signal": partial(SymmetricFactor, growing=True, rank=1)},
        {"steps": SemiImplicit(), "tau": "auto", "signal": partial(Factor, growing=True, rank=1)},
        {"solver": InexactALM, "block": 10, "evaluate_every": 20},
    ],
    ids=["horizon", "decay", "nesterov", "growing", "growing-uv", "convex"],
)
def test_a_resumed_run_equals_an_undisturbed_one(
    settings, fit, matrix_method, matrices, stop_at, tmp_path: Path
) -> None:
    def method():
        return matrix_method(**settings)

    whole = fit(tmp_path / "whole", method(), matrices(), 400)
    fit(tmp_path / "cut", method(), matrices(), 400, stop_at(20 if "solver" in settings else 130))
    resumed = fit(tmp_path / "cut", method(), matrices(), 400, resume=True)
    resumed.assert_equals(whole)


def test_problems_end_at_the_horizon_and_stay_ended(fit, matrix_method, matrices, tmp_path: Path) -> None:
    def method():
        return matrix_method(steps=GradientDescent(horizon=0.5), tau="auto", block=20)

    run = fit(tmp_path, method(), matrices(), 3000)
    assert run.statuses == ["done"] * 3
    assert all(0 < iterations < 1000 for iterations in run.iterations)
    assert len(set(run.iterations)) > 1  # each by its own steps
    lost = tmp_path / next(iter(run.table)) / "result.json"
    lost.unlink()
    again = fit(tmp_path, method(), matrices(), 6000, resume=True)
    assert again.iterations == run.iterations
    assert lost.is_file()


def test_a_convex_solver_leaves_the_same_files(fit, matrix_method, matrices, tmp_path: Path) -> None:
    data = matrices()
    run = fit(tmp_path, matrix_method(solver=partial(InexactALM, positive=True), block=10), data, 2000)
    assert run.statuses == ["stable"] * 3
    optimum = solve(data.batches[0], partial(InexactALM, positive=True)).signal
    for problem, X in zip(data.problems, optimum, strict=True):
        assert np.allclose(run.recovered(problem.name), X, atol=1e-3)
    assert {row["alpha"] for row in run.table.values()} == {f"{12**0.5:.6g}"}
    assert all(float(row["relative_error"]) < 1 for row in run.table.values())


def test_alpha_is_an_axis_of_a_study(fit, matrix_method, matrices, tmp_path: Path) -> None:
    run = fit(tmp_path, matrix_method(), matrices(alphas=[0.5, 2.0], seeds=2), 100)
    assert len(run.data.batches) == 1
    assert [float(row["alpha"]) for row in run.table.values()] == pytest.approx([f * 12**0.5 for f in (0.5, 2.0)] * 2)
    alone = fit(tmp_path / "one", matrix_method(alpha=2.0 * 12**0.5), matrices(seeds=[1]), 100)
    name = next(name for name in run.table if name.endswith("seed1-alpha2"))
    assert np.allclose(run.recovered(name), alone.recovered(*alone.table), rtol=1e-4, atol=1e-6)


def test_asymmetric_data_give_a_hint(dop, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(20, 2, generator=generator) @ torch.randn(2, 20, generator=generator)
    np.save(tmp_path / "X.npy", X.numpy())
    files = ["fit", "--config", "configs/matrix.yaml", "--data.files", str(tmp_path / "X.npy"), "--data.noise", "null"]
    files += ["--data.seeds", "1", "--trainer.max_steps", "10", "--trainer.default_root_dir"]
    assert "UVᵀ instead: --model.signal Factor" in dop(*files, str(tmp_path / "a")).err
    assert "UVᵀ" not in dop(*files, str(tmp_path / "b"), "--model.signal", "Factor").err
    paper = ["fit", "--config", "configs/matrix.yaml", "--data.seeds", "2", "--trainer.max_steps", "10"]
    assert "UVᵀ" not in dop(*paper, "--trainer.default_root_dir", str(tmp_path / "c")).err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.tau", "quick"], "tau"),
        (["--model.steps", "SemiImplicit", "--model.steps.growth", "0.5"], "growth must be above 1, got 0.5"),
        (["--model.signal.init_args.rank", "0"], "rank must be a whole number of at least 1, got 0"),
        (["--model.solver", "InexactALM", "--model.solver.svd", "half"], "svd"),
        (
            ["--model.loss", "AbsoluteLoss", "--model.tau", "auto"],
            "tau 'auto' supports only matrices with a squared loss",
        ),
        ([*GAUSSIAN, "9", "--model.steps", "SemiImplicit"], "use Nesterov"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, dop, tmp_path: Path) -> None:
    run = ["--trainer.default_root_dir", str(tmp_path / "run")]
    said = dop("fit", "--config", "configs/matrix.yaml", *arguments, *run)
    assert said.status == 2
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_gaussian_sensing_is_recovered(fit, matrix_method, matrices, tmp_path: Path) -> None:
    data = matrices(n=12, rank=1, sensing=GaussianMeasurements(100), seeds=2)
    run = fit(tmp_path, matrix_method(steps=Nesterov(), tau="auto"), data, 600)
    assert all(float(row["relative_error"]) < 0.05 for row in run.table.values())


def test_a_start_of_equation_11(fit, matrix_method, matrices, tmp_path: Path) -> None:
    signal = partial(SymmetricFactor, start="identity", scale=1e-3)
    corruption = partial(HadamardCorruption, start="constant", scale=1e-3)
    run = fit(tmp_path, matrix_method(signal=signal, corruption=corruption), matrices(dtype="float64"), 400)
    assert run.recovered(next(iter(run.table))).dtype == np.float64
