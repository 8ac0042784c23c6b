"""Robust PCA that chooses its method."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dop_lightning.cli.main import main
from dop_lightning.engine.descent import BatchState
from dop_lightning.engine.projections import ProjectionsState, Recovery
from dop_lightning.engine.runners import run_to_end
from dop_lightning.matrices.robust_separation import RobustSeparation, singular_values
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.engine.projections.builders import corrupted, low_rank, problem, relative_error


def decaying(n: int = 90, m: int = 70) -> Problem:
    """Of full rank: no certificate holds."""
    U, V = (torch.linalg.qr(low_rank(side, m, m, seed))[0] for side, seed in ((n, 1), (m, 2)))
    L = U @ torch.diag(100 / torch.arange(1.0, m + 1)) @ V.mT
    return Problem("decaying", corrupted(L, 0.1), truth=L)


def test_certified_projections_are_kept() -> None:
    outcome = next(run_to_end(RobustSeparation(), problem(), 300, block=25).outcomes())
    assert outcome.report["method"] == "projections"
    assert outcome.scores["relative_error"] < 2e-6


def test_dop_replaces_rejected_projections_with_a_reason() -> None:
    given = decaying()
    method = RobustSeparation(iterations=100)
    outcome = next(run_to_end(method, given, 300, block=25).outcomes())
    assert outcome.report["method"] == "dop"
    assert str(outcome.report["reason"]).startswith("projections rejected: ")
    alone = next(run_to_end(RobustSeparation(fallback=False), given, 300, block=25).outcomes())
    assert alone.report["method"] == "projections"
    assert alone.report["certificate"] == "rejected"
    descent = method.descent(given, float(outcome.report["alpha"]), torch.device("cpu"))
    while not descent.finished():
        descent.advance(25)
    assert torch.equal(descent.evaluate().signal[0], outcome.signal), "as DOP alone"


def test_matrices_of_a_batch_may_differ_in_method() -> None:
    problems = [decaying(150, 120), problem(150, 120)]
    state = RobustSeparation(iterations=50).begin(ProblemBatch(problems))
    for _ in range(8):
        state.advance(25)
    assert [state.report(k)["method"] for k in range(2)] == ["dop", "projections"]
    assert relative_error(state.evaluate().signal[1], problems[1].truth) < 2e-6
    for k in range(2):
        left, values, right = singular_values(state, k)
        torch.testing.assert_close((left * values) @ right, state.evaluate().signal[k], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("done", [0, 5, 25, 60])
def test_separation_resumes_bit_for_bit(done: int) -> None:
    batch = ProblemBatch([decaying(150, 120), problem(150, 120)])
    method = RobustSeparation(iterations=50)
    whole, first, second = (method.begin(batch) for _ in range(3))
    for _ in range(20):
        whole.advance(5)
    for _ in range(done // 5):
        first.advance(5)
    for k in range(2):
        second.load_problem_state(k, first.problem_state(k))
    for _ in range(20 - done // 5):
        second.advance(5)
    assert torch.equal(whole.evaluate().signal, second.evaluate().signal)
    assert [whole.report(k) for k in range(2)] == [second.report(k) for k in range(2)]


def test_small_matrix_uses_dop_directly() -> None:
    state = RobustSeparation(iterations=50).begin(ProblemBatch([problem(30, 20, 1)]))
    assert isinstance(state.parts[0], ProjectionsState)
    state.advance(5)
    assert state.parts[0].iteration == 5
    assert state.report(0)["reason"] == "projections rejected: the matrix is too small for a verdict"


def test_the_command_names_the_method_in_its_output_and_its_result(tmp_path: Path, capsys) -> None:
    given = problem()
    np.save(tmp_path / "a.npy", given.observation.numpy())
    out = tmp_path / "out"
    assert main(["separate", str(tmp_path / "a.npy"), "--out", str(out)]) == 0
    assert "a: alternating projections, rank 3; hidden entries are predicted exactly" in capsys.readouterr().err
    assert json.loads((out / "a" / "result.json").read_text())["report"]["certificate"] == "exact"
    assert given.truth is not None
    error = np.linalg.norm(np.load(out / "a" / "recovered.npy") - given.truth.numpy())
    assert error < 2e-6 * float(torch.linalg.vector_norm(given.truth))
    before = (out / "a" / "recovered.npy").read_bytes()
    assert main(["separate", str(tmp_path / "a.npy"), "--out", str(out)]) == 0
    assert (out / "a" / "recovered.npy").read_bytes() == before


@pytest.mark.parametrize("method", ["dop", "convex", "projections"])
def test_each_method_can_be_requested(tmp_path: Path, method: str) -> None:
    given = problem(80, 60, 2)
    np.save(tmp_path / "a.npy", given.observation.numpy())
    assert main(["separate", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), "--method", method]) == 0
    found = torch.from_numpy(np.load(tmp_path / "out" / "a" / "recovered.npy"))
    assert relative_error(found, given.truth) < 0.02


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "fast"], "method must be one of auto, dop, projections, convex, got 'fast'"),
        (["--method", "projections", "--alpha", "3"], "--alpha does not apply to --method projections, got 3"),
        (["--method", "convex", "--rank", "3"], "--rank does not apply to --method convex, got 3"),
    ],
)
def test_conflicting_options_are_refused(tmp_path: Path, capsys, options: list[str], message: str) -> None:
    np.save(tmp_path / "a.npy", np.eye(30))
    assert main(["separate", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out"), *options]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def interrupting(monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], object]) -> list[float]:
    """Call ``interrupt`` in the second block of the choice of α; the values of α that were begun."""
    advance, tried, blocks = BatchState.advance, list[float](), list[int]()

    def noted(state: BatchState, iterations: int) -> list[int]:
        tried.append(state.alpha[0])
        blocks.append(iterations)
        if len(blocks) == 2:
            interrupt()
        return advance(state, iterations)

    monkeypatch.setattr(BatchState, "advance", noted)
    return tried


def test_an_interrupted_choice_of_alpha_keeps_the_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, method = ProblemBatch([decaying()]), RobustSeparation(iterations=100)
    whole, state, later = (method.begin(batch) for _ in range(3))
    while whole.iteration < 400:
        whole.advance(25)
    with monkeypatch.context() as patch:
        tried = interrupting(patch, state.interrupt)
        while not tried:
            state.advance(25)
        assert len(tried) == 2, "the search ends after the block in which it is interrupted"
        assert state.finished() == {}, "DOP is still to come"
        done = state.iteration
        assert state.advance(25) == []
        assert state.iteration == done, "nothing is done until the run is resumed"
    assert state.report(0)["method"] == "projections"
    assert state.report(0)["certificate"] == "rejected"
    later.load_problem_state(0, state.problem_state(0))
    later.iteration = done
    monkeypatch.setattr(Recovery, "step", lambda _: pytest.fail("the projections are repeated"))
    for resumed in (state, later):
        resumed.resume()
        while resumed.iteration < 400:
            resumed.advance(25)
        assert torch.equal(resumed.evaluate().signal, whole.evaluate().signal)
        assert resumed.report(0) == whole.report(0)


def test_ctrl_c_while_choosing_alpha_is_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", decaying().observation.numpy())

    def command(out: str) -> list[str]:
        return ["separate", str(tmp_path / "a.npy"), "--out", str(tmp_path / out), "--iterations", "150"]

    assert main(command("whole")) == 0
    with monkeypatch.context() as patch:
        tried = interrupting(patch, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert main(command("out")) == 130
        assert len(tried) == 2
    assert "not certified" in capsys.readouterr().err
    stopped = json.loads((tmp_path / "out" / "a" / "result.json").read_text())
    assert stopped["status"] == "interrupted"
    assert stopped["report"]["method"] == "projections"
    monkeypatch.setattr(Recovery, "step", lambda _: pytest.fail("the projections are repeated"))
    assert main(command("out")) == 0
    results = [json.loads((tmp_path / out / "a" / "result.json").read_text()) for out in ("whole", "out")]
    assert results[0]["report"] == results[1]["report"]
    recovered = [np.load(tmp_path / out / "a" / "recovered.npy") for out in ("whole", "out")]
    np.testing.assert_array_equal(*recovered)


def test_matrix_ahead_after_an_interrupted_block_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ProblemBatch([replace(problem(seed=seed), name=f"m{seed}") for seed in (0, 1)])
    whole, cut, later = (RobustSeparation().begin(batch) for _ in range(3))
    step = cut.parts[1].recoveries[0].step

    def stepped() -> None:
        step()
        cut.interrupt()
        pytest.fail("the block was not cut")

    with monkeypatch.context() as patch:
        patch.setattr(cut.parts[1].recoveries[0], "step", stepped)
        assert cut.advance(2) == []
    assert [cut.iteration, *(part.iteration for part in cut.parts)] == [0, 2, 0]
    for k in range(2):
        later.load_problem_state(k, cut.problem_state(k))
    whole.advance(2)
    later.advance(2)
    assert [later.iteration, *(part.iteration for part in later.parts)] == [2, 2, 2]
    assert torch.equal(later.evaluate().signal, whole.evaluate().signal)
    assert "ahead" not in later.problem_state(0)
