"""Filters in the place of gradient descent."""

import threading
from typing import Any

import numpy as np
import pytest
import torch

from dop_lightning.engine.rivals import DetectAndFill, ExtremeValues, FilterMethod, ImageFilter, NormalisedConvolution
from dop_lightning.engine.rivals.base import Flags, Image
from dop_lightning.engine.roster import Roster
from dop_lightning.engine.run import Run
from dop_lightning.engine.runners import run_to_end
from dop_lightning.lightning.module import DoubleOverparameterization
from dop_lightning.model.operators import Downsampling
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.engine.rivals.builders import salted, smooth

FILL = DetectAndFill(ExtremeValues(), NormalisedConvolution())


def problem(name: str = "a", seed: int = 0, **more: Any) -> Problem:
    truth = torch.from_numpy(smooth())
    damaged = torch.from_numpy(salted(smooth(), 0.3, seed))
    return Problem(name, damaged, **{"truth": truth, "true_corruption": damaged - truth, "data_range": 1.0, **more})


class Broken(ImageFilter):
    """Returns the image that is passed to it."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def restore(self, image: Image, missing: Flags) -> Image:
        result: Image = self.result
        return result


def test_a_problem_ends_after_one_iteration_with_the_scores_of_all_methods() -> None:
    ending = run_to_end(FilterMethod(FILL), problem(), 100, block=10)
    outcome = next(ending.outcomes())
    assert (outcome.status, outcome.iteration, outcome.alpha, outcome.tau) == ("done", 1, None, 0.0)
    assert outcome.scores["psnr"] > 30 > 15 > outcome.scores["input_psnr"]
    assert outcome.scores["support_recall"] > 0.99
    assert outcome.scores["corruption_density"] == pytest.approx(outcome.scores["true_density"], abs=0.01)
    torch.testing.assert_close(outcome.signal + outcome.corruption, outcome.problem.observation)
    assert ending.state.settings(0) == {"filter": "ExtremeValues NormalisedConvolution"}


def test_filters_use_range_and_mask_of_the_problem() -> None:
    mask = torch.ones(2, 20, 24, dtype=torch.bool)
    mask[:, 3:5, 3:5] = False
    small, large = problem(mask=mask), problem(mask=mask)
    large = Problem("b", small.observation * 50, truth=small.truth * 50, mask=mask, data_range=50.0)  # type: ignore[operator]
    one, other = (next(run_to_end(FilterMethod(FILL), p, 1, block=1).outcomes()) for p in (small, large))
    torch.testing.assert_close(one.signal * 50, other.signal)
    assert not one.corruption[~mask].any()
    assert float((one.signal - small.truth)[~mask].abs().max()) < 0.1


def test_a_state_moves_between_batches() -> None:
    both = FilterMethod(FILL).begin(ProblemBatch([problem("a"), problem("b", 1)]))
    torch.testing.assert_close(both.evaluate().signal, both.problems.observation)
    assert (both.finished(), both.advance(0), both.iteration) == ({}, [], 0)
    assert (both.advance(1), both.finished()) == ([], {0: "done", 1: "done"})
    alone = FilterMethod(FILL).begin(ProblemBatch([problem("b", 1)]))
    alone.load_problem_state(0, both.problem_state(1))
    torch.testing.assert_close(alone.evaluate().signal[0], both.evaluate().signal[1])
    assert alone.finished() == {0: "done"}
    part = both.select([1])
    assert (part.problems.names, part.iteration, part.finished()) == (["b"], 1, {0: "done"})
    with pytest.raises(ValueError, match=r"a: state must be of .*, got a state of None"):
        both.load_problem_state(0, {"tensors": {}})
    wrong = {"filter": FILL.name, "tensors": {"signal": torch.zeros(1, 2, 3), "done": torch.tensor(True)}}
    with pytest.raises(ValueError, match=r"a: state must have the shape \(2, 20, 24\), got \(1, 2, 3\)"):
        both.load_problem_state(0, wrong)


def test_nonfinite_result_is_divergence() -> None:
    outcome = next(run_to_end(FilterMethod(Broken(np.full((2, 20, 24), np.nan))), problem(), 1, block=1).outcomes())
    assert outcome.status == "diverged"
    torch.testing.assert_close(outcome.signal, outcome.problem.observation)


@pytest.mark.parametrize(
    ("result", "text"), [(None, "restore must return .* got None"), (np.zeros((1, 2, 2)), r"of shape \(2, 20, 24\)")]
)
def test_a_filter_must_return_an_image(result: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        run_to_end(FilterMethod(Broken(result)), problem(), 1, block=1)


def test_filters_require_images() -> None:
    matrix = Problem("m", torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"m: DetectAndFill requires images .* got a signal of shape \(4, 4\)"):
        FilterMethod(FILL).begin(ProblemBatch([matrix]))
    measured = Problem("x", torch.zeros(1, 4, 4), sensing=Downsampling(2), signal_shape=(1, 8, 8), data_range=1.0)
    with pytest.raises(ValueError, match="x: DetectAndFill requires the image itself, got a measurement"):
        FilterMethod(FILL).begin(ProblemBatch([measured]))
    with pytest.raises(ValueError, match="filter must be an ImageFilter"):
        FilterMethod(ExtremeValues())  # type: ignore[arg-type]


def test_module_accepts_a_filter_or_a_solver() -> None:
    assert isinstance(DoubleOverparameterization(filter=FILL).method, FilterMethod)
    with pytest.raises(ValueError, match="filter and solver cannot be combined"):
        DoubleOverparameterization(filter=FILL, solver=lambda problems: None)  # type: ignore[arg-type,return-value]


def test_a_filter_in_another_thread_stops_at_its_next_poll() -> None:
    class Waiting(ImageFilter):
        def restore(self, image: Image, missing: Flags) -> Image:
            started.set()
            while True:
                self.poll()

    started = threading.Event()
    problem = Problem("one", torch.zeros(1, 8, 8), data_range=1.0)
    state = FilterMethod(Waiting()).begin(ProblemBatch([problem]))
    state.interrupt()  # no filter is running
    worker = threading.Thread(target=state.advance, args=(1,))
    worker.start()
    assert started.wait(60)
    state.interrupt()
    worker.join(60)
    assert not worker.is_alive()
    assert state.iteration == 0
    assert state.finished() == {}


def test_run_resumes_after_an_interruption() -> None:
    class Polling(ImageFilter):
        def restore(self, image: Image, missing: Flags) -> Image:
            self.poll()
            return image

    method = FilterMethod(Polling())
    batches = [ProblemBatch([problem(name)]) for name in ("a", "b")]
    run = Run(Roster(method, batches, 1.0, None, ["a", "b"], torch.device("cpu")), maximum=10)
    run.begin()
    method.filter.is_interrupted = True
    run.step()
    assert all(not record.ended for record in run.records.values())
    run.begin()
    run.to_end()
    assert all(record.ended for record in run.records.values())
