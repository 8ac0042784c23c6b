"""When an output has settled, on made-up outputs."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.state import Evaluation
from dop_lightning.lightning.callbacks import StableOutput
from dop_lightning.problems.problem import Problem, ProblemBatch
from tests.lightning.callbacks.builders import look_at

EVERY = 10
Output = Callable[[int], Tensor]


def constant(value: float) -> Output:
    return lambda t: torch.full((2, 2), value)


def ends(callback: StableOutput, outputs: dict[str, tuple[Output, Output]], until: int = 100, start: int = 1):
    """Show the callback evaluations ``start … until`` of problems by name; when it ends each."""
    ended: dict[str, int] = {}
    for t in range(start, until + 1):
        names = [name for name in outputs if name not in ended]
        if not names:
            break
        module: Any = SimpleNamespace(
            evaluate_every=EVERY,
            stop_problem=lambda name, status, t=t: ended.update({name: t} if status == "stable" else {}),
        )
        problems = ProblemBatch([Problem(name, torch.zeros(2, 2)) for name in names])
        X, s = (torch.stack([outputs[name][i](t) for name in names]) for i in (0, 1))
        evaluation = Evaluation(EVERY * t, X, s, torch.zeros(len(names)))
        callback.on_evaluation(None, module, look_at(problems, evaluation))  # type: ignore[arg-type]
    return ended


@pytest.mark.parametrize(("window", "patience", "end"), [(1, 1, 2), (1, 3, 4), (5, 1, 10), (5, 2, 15), (3, 3, 12)])
def test_constant_output_settles_after_enough_windows(window: int, patience: int, end: int) -> None:
    callback = StableOutput(1e-6, window, patience)
    assert ends(callback, {"a": (constant(1.0), constant(2.0))}) == {"a": end}


def test_no_stop_without_tolerance() -> None:
    assert ends(StableOutput(), {"a": (constant(1.0), constant(2.0))}) == {}


def test_an_output_of_zeros_has_settled() -> None:
    assert ends(StableOutput(1e-3, 1, 1), {"a": (constant(0.0), constant(0.0))}) == {"a": 2}


@pytest.mark.parametrize("which", ["signal", "corruption"])
def test_both_outputs_must_settle(which: str) -> None:
    def moves(t: int) -> Tensor:
        return torch.full((2, 2), 1.0 + 0.1 * t)

    outputs = (moves, constant(1.0)) if which == "signal" else (constant(1.0), moves)
    assert ends(StableOutput(1e-3, 1, 1), {"a": outputs}) == {}


def test_a_plateau_of_the_signal_while_s_still_grows_is_not_the_end() -> None:
    """g and h start tiny and grow by a factor: the residual looks settled long before s is seen."""

    def grows(t: int) -> Tensor:
        return torch.full((2, 2), min(1e-10 * 1.5**t, 1.0))  # reaches 1 at t = 57

    (end,) = ends(StableOutput(0.01, window=5, patience=2), {"a": (constant(1.0), grows)}).values()
    assert end > 57


def test_fluctuations_are_averaged_over_a_window() -> None:
    def flickers(t: int) -> Tensor:
        return torch.full((2, 2), 1.0 + 0.2 * (-1.0) ** t)

    outputs = {"a": (flickers, constant(1.0))}
    assert ends(StableOutput(0.01, window=1, patience=1), outputs) == {}
    assert ends(StableOutput(0.01, window=4, patience=1), outputs) == {"a": 8}


def test_the_tolerance_is_relative_to_the_output() -> None:
    def creeps(size: float) -> Output:
        return lambda t: torch.full((2, 2), size * (1 + 0.001 * t))

    outputs = {f"{size:g}": (creeps(size), constant(1.0)) for size in (1e-6, 1.0, 1e6)}
    assert ends(StableOutput(0.002, 1, 1), outputs) == {"1e-06": 2, "1": 2, "1e+06": 2}
    assert ends(StableOutput(0.0001, 1, 1), outputs) == {}


def test_one_changing_window_resets_the_patience() -> None:
    def jumps(t: int) -> Tensor:
        return torch.full((2, 2), 1.0 if t < 4 else 2.0)

    assert ends(StableOutput(0.01, window=1, patience=3), {"a": (jumps, constant(1.0))}) == {"a": 7}


def test_problems_are_evaluated_separately() -> None:
    def settles(at: int) -> Output:
        return lambda t: torch.full((2, 2), float(min(t, at)))

    outputs = {f"{at}": (settles(at), constant(1.0)) for at in (3, 9, 6)}
    together = ends(StableOutput(0.01, 1, 1), outputs)
    assert together == {"3": 4, "9": 10, "6": 7}
    for name, of_problem in outputs.items():
        assert ends(StableOutput(0.01, 1, 1), {name: of_problem}) == {name: together[name]}


def test_an_evaluation_out_of_turn_does_not_count() -> None:
    callback = StableOutput(0.01, 1, 1)
    module: Any = SimpleNamespace(evaluate_every=EVERY, stop_problem=pytest.fail)
    evaluation = Evaluation(437, torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.zeros(1))
    for _ in range(5):
        batch = look_at(ProblemBatch([Problem("a", torch.zeros(2, 2))]), evaluation)
        callback.on_evaluation(None, module, batch)  # type: ignore[arg-type]
    assert callback.problem_state("a") == {}


@pytest.mark.parametrize("breaks", [1, 2, 3, 4, 7, 8, 11])
def test_window_resumes_in_another_process(breaks: int) -> None:
    def settles(t: int) -> Tensor:
        return torch.full((2, 2), 1.0 - 0.5**t)

    outputs = {"a": (settles, settles)}
    undisturbed = ends(StableOutput(0.02, window=3, patience=2), outputs)
    assert undisturbed["a"] > 11
    before, after = (StableOutput(0.02, window=3, patience=2) for _ in range(2))
    assert ends(before, outputs, until=breaks) == {}
    state = before.problem_state("a")
    kept = {key: torch.as_tensor(value).clone() for key, value in state.items()}
    ends(before, outputs, start=breaks + 1, until=breaks + 1)  # what was saved is a copy
    assert all(torch.equal(kept[key], torch.as_tensor(value)) for key, value in state.items())
    after.load_problem_state("a", state)
    assert ends(after, outputs, start=breaks + 1) == undisturbed


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tolerance": 0.0}, "tolerance must be a finite number above 0, got 0.0"),
        ({"tolerance": float("inf")}, "tolerance must be a finite number above 0, got inf"),
        ({"window": 0}, "window must be a whole number of at least 1, got 0"),
        ({"patience": 0}, "patience must be a whole number of at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        StableOutput(**arguments)
