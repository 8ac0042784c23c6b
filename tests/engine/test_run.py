"""The loop of every run, on states that count."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from dop_lightning.engine.evaluated import Ending, EvaluatedBatch
from dop_lightning.engine.outcome import Status
from dop_lightning.engine.roster import Roster
from dop_lightning.engine.run import Listener, Run
from dop_lightning.engine.runners import run_to_end
from dop_lightning.engine.state import Evaluation, OutOfMemoryError, State
from dop_lightning.problems.problem import Attribute, Problem, ProblemBatch


class Counting(State):
    """X of each problem is the number of its iterations. A problem diverges, or is finished, at an iteration."""

    def __init__(self, problems: ProblemBatch, method: "Counter", counts: Sequence[int] | None = None) -> None:
        self.problems, self.method = problems, method
        self.iteration = 0
        self.tau, self.alpha, self.optimizers = [1.0] * len(problems), [1.0] * len(problems), []
        self.counts = list(counts or [0] * len(problems))

    def advance(self, iterations: int) -> list[int]:
        if len(self) > self.method.most:
            raise OutOfMemoryError("out of memory")
        if iterations:
            self.method.turns.append((*self.problems.names, iterations))
        before, self.counts = self.counts, [count + iterations for count in self.counts]
        self.iteration += iterations
        bad = [k for k, name in enumerate(self.problems.names) if self.counts[k] >= self.method.diverge.get(name, 1e9)]
        for k in bad:
            self.counts[k] = before[k]
        return bad

    def evaluate(self) -> Evaluation:
        self.method.evaluations += 1
        X = torch.tensor(self.counts, dtype=torch.float32).view(-1, 1, 1)
        return Evaluation(self.iteration, X, torch.zeros_like(X), torch.zeros(len(self)))

    def finished(self) -> dict[int, Status]:
        ends = self.method.finish
        return {k: "stable" for k, name in enumerate(self.problems.names) if self.counts[k] >= ends.get(name, 1e9)}

    def settings(self, k: int) -> dict[str, Attribute]:
        return {}

    def problem_state(self, k: int) -> dict[str, Any]:
        return {"count": self.counts[k]}

    def load_problem_state(self, k: int, state: Mapping[str, Any]) -> None:
        self.counts[k] = state["count"]

    def select(self, keep: Sequence[int]) -> "Counting":
        other = Counting(self.problems.select(keep), self.method, [self.counts[k] for k in keep])
        other.iteration = self.iteration
        return other


class Counter:
    """Begins such states."""

    def __init__(
        self,
        diverge: Mapping[str, int] | None = None,
        finish: Mapping[str, int] | None = None,
        most: int = 9,
        grid: int | None = None,
    ) -> None:
        self.diverge, self.finish, self.most, self.grid = diverge or {}, finish or {}, most, grid
        self.first: int | None = None
        self.turns: list[Any] = []
        self.evaluations = 0

    def begin(self, problems: ProblemBatch, tau: Any, alpha: Any = None) -> Counting:
        return Counting(problems, self)


class Log(Listener):
    """Writes down what happens."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def on_states_change(self, run: Run) -> None:
        self.said.append(("change", [state.problems.names for state in run.states]))

    def on_block(self, run: Run, state: State, iterations: int) -> None:
        self.said.append(("block", *state.problems.names, iterations))

    def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
        self.said.append(("evaluation", *batch.problems.names, batch.iteration))

    def on_evaluated(self, run: Run) -> None:
        self.said.append("evaluated")

    def on_end(self, run: Run, ending: Ending) -> None:
        at = {name: int(ending.evaluation.signal[k]) for k, name in ending.names.items()}
        self.said.append(("end", {ending.names[k]: status for k, status in ending.ends.items()}, at))

    def on_split(self, run: Run, state: State, error: OutOfMemoryError) -> None:
        self.said.append(("split", *state.problems.names))


def batch(*names: str) -> ProblemBatch:
    return ProblemBatch([Problem(name, torch.zeros(1, 1)) for name in names])


def make_run(method: Counter, *batches: ProblemBatch, **options: Any) -> tuple[Run, Log]:
    log = Log()
    names = [name for each in batches for name in each.names]
    roster = Roster(method, batches, 1.0, 1.0, names, torch.device("cpu"))
    return Run(roster, listeners=[log], **options), log


def blocks(log: Log) -> list[int]:
    return [event[-1] for event in log.said if event[0] == "block"]


def test_batches_take_turns_until_the_maximum() -> None:
    run, log = make_run(Counter(), batch("a"), batch("b", "c"), block=10, maximum=20)
    run.to_end()
    ends = [("end", {"a": "done"}, {"a": 20}), ("end", {"b": "done", "c": "done"}, {"b": 20, "c": 20})]
    assert [event for event in log.said if event[0] in ("block", "end")] == [
        *(("block", "a", 10), ("block", "b", "c", 10)) * 2,
        *ends,
    ]
    assert {record.status for record in run.records.values()} == {"done"}
    assert log.said[-1] == "evaluated"


@pytest.mark.parametrize(
    ("options", "grid", "expected"),
    [
        ({"block": 7, "maximum": 20}, None, [7, 7, 6]),
        ({"block": 7, "maximum": 20, "evaluate_every": 5}, None, [5, 2, 3, 4, 1, 5]),
        ({"block": 100, "maximum": 20}, 8, [8, 8, 4]),
    ],
)
def test_blocks_end_on_the_grids_of_block_evaluation_and_method(options: Any, grid: Any, expected: list[int]) -> None:
    run, log = make_run(Counter(grid=grid), batch("a"), **options)
    run.to_end()
    assert blocks(log) == expected


def test_evaluations_need_a_listener() -> None:
    method = Counter()
    ending = run_to_end(method, batch("a")[0], 30, block=10)
    assert (method.evaluations, ending.ends, ending.iteration) == (0, {0: "done"}, 30)
    assert float(ending.evaluation.signal) == 30
    assert float(ending.evaluation.signal) == 30
    assert method.evaluations == 1


def test_diverging_problem_ends_at_the_start_of_its_block() -> None:
    run, log = make_run(Counter(diverge={"b": 15}), batch("a", "b"), block=10, maximum=30)
    run.to_end()
    assert ("end", {"b": "diverged"}, {"b": 10}) in log.said
    assert (run.records["b"].iteration, run.records["a"].iteration) == (10, 30)
    assert log.said.index(("end", {"b": "diverged"}, {"b": 10})) < log.said.index(("block", "a", 10))


def test_finished_problem_leaves_early_and_stays_finished() -> None:
    run, log = make_run(Counter(finish={"a": 15}), batch("a", "b"), block=10, maximum=30)
    run.to_end()
    assert ("end", {"a": "stable"}, {"a": 20}) in log.said
    run.maximum = 50
    run.begin()
    assert [state.problems.names for state in run.states] == [["b"]]


def test_finished_problem_leaves_before_the_next_turn() -> None:
    run, log = make_run(Counter(finish={"a": 10, "b": 10}), batch("a"), batch("b"), block=10, maximum=30)
    run.to_end()
    events = [event for event in log.said if event[0] in ("block", "end")]
    assert [event[0] for event in events] == ["block", "end"] * 2
    assert run.states == []


def test_first_block_ends_where_the_method_requests() -> None:
    method = Counter(finish={"a": 1})
    method.first = 1
    run, log = make_run(method, batch("a", "b"), block=10, maximum=30)
    run.to_end()
    assert ("end", {"a": "stable"}, {"a": 1}) in log.said
    assert blocks(log) == [1, 9, 10, 10]


def test_a_listener_ends_a_problem_after_an_evaluation() -> None:
    class Ends(Listener):
        def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
            if batch.iteration == 20:
                run.stop("a", "stable")

    run, log = make_run(Counter(), batch("a", "b"), block=10, evaluate_every=10, maximum=30)
    run.listeners.insert(0, Ends())
    run.to_end()
    assert ("end", {"a": "stable"}, {"a": 20}) in log.said
    assert ("end", {"b": "done"}, {"b": 30}) in log.said


def test_a_problem_may_end_in_an_earlier_state() -> None:
    class GoesBack(Listener):
        def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
            if batch.iteration == 10:
                self.earlier = {**batch.state.problem_state(1), "iteration": 10}
            if batch.iteration == 20:
                run.stop("b", "stable", self.earlier)

    run, log = make_run(Counter(), batch("a", "b"), block=10, evaluate_every=10, maximum=30)
    run.listeners.insert(0, GoesBack())
    run.to_end()
    assert ("end", {"b": "stable"}, {"b": 10}) in log.said
    assert run.records["b"].iteration == 10
    assert ("end", {"a": "done"}, {"a": 30}) in log.said


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    run, log = make_run(Counter(most=1), batch("a", "b", "c"), block=10, maximum=10)
    run.to_end()
    assert [event for event in log.said if event[0] == "split"] == [("split", "a", "b", "c"), ("split", "a", "b")]
    assert sorted(event[1] for event in log.said if event[0] == "block") == ["a", "b", "c"]


def test_one_problem_that_does_not_fit_is_an_error_with_its_name() -> None:
    run, _ = make_run(Counter(most=0), batch("a"), maximum=10)
    with pytest.raises(OutOfMemoryError, match=r"^a: out of memory$"):
        run.to_end()


def test_interruption_between_turns_leaves_problems_resumable() -> None:
    method = Counter()
    stop = lambda: len(method.turns) >= 3  # noqa: E731 — in the second turn of «a»
    run, log = make_run(method, batch("a"), batch("b"), block=10, maximum=30, interrupted=stop)
    run.to_end()
    assert log.said[-2:] == [("end", {"a": "interrupted"}, {"a": 20}), ("end", {"b": "interrupted"}, {"b": 10})]
    assert [len(state) for state in run.states] == [1, 1]
    method.turns.clear()
    again, _ = make_run(method, batch("a"), batch("b"), block=10, maximum=30)
    again.roster.load({name: entry for batches in run.roster.save().values() for name, entry in batches.items()})
    again.begin()
    again.to_end()
    assert method.turns == [("b", 10), ("a", 10), ("b", 10)]


def test_earlier_stop_does_not_end_a_later_run() -> None:
    run, log = make_run(Counter(), batch("a"), block=10, maximum=20)
    run.stop("a", "stable")
    run.begin()
    run.to_end()
    assert ("end", {"a": "done"}, {"a": 20}) in log.said
    with pytest.raises(ValueError, match=r"^name must be the name of an active problem, got 'a'$"):
        run.stop("a", "stable")


def test_a_batch_that_ended_is_released() -> None:
    class Noted(Counting):
        def release(self) -> None:
            released.append(self.problems.names)

    released: list[list[str]] = []
    method = Counter()
    method.begin = lambda problems, tau, alpha=None: Noted(problems, method)  # type: ignore[method-assign,assignment]
    run, _ = make_run(method, batch("a"), block=10, maximum=10)
    run.to_end()
    assert released == [["a"]]


def test_scores_of_the_last_evaluation_equal_final_ones() -> None:
    method = Counter()
    run, _ = make_run(method, batch("a"), block=10, evaluate_every=10, maximum=10)
    scores: list[Any] = []

    class Scores(Listener):
        def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
            scores.append(batch.scores)

        def on_end(self, run: Run, ending: Ending) -> None:
            scores.append(ending.scores)

    run.listeners.append(Scores())
    run.to_end()
    assert scores[0] is scores[1]
    assert method.evaluations == 1


def test_final_states_are_kept_on_request_only() -> None:
    kept, _ = make_run(Counter(), batch("a"), maximum=10)
    kept.to_end()
    assert kept.roster.entries()["a"]["state"] == {"count": 10, "iteration": 10}
    roster = Roster(Counter(), [batch("a")], 1.0, 1.0, ["a"], torch.device("cpu"), keeps_states=False)
    run = Run(roster, maximum=10)
    run.to_end()
    assert run.records["a"].state is None


def test_batch_whose_problems_all_end_is_kept() -> None:
    run, _ = make_run(Counter(finish={"b": 10}), batch("a"), batch("b", "c"), block=10, maximum=20)
    at_work = run.roster.states[0]
    run.to_end()
    assert [state.problems.names for state in run.roster.resting] == [["a"], ["c"]]
    assert run.roster.resting[0] is at_work
    assert run.records["b"].state == {"count": 10, "iteration": 10}
    assert all(run.roster.is_inactive(name) for name in "abc")
    saved = run.roster.entries()
    assert [saved[name]["state"]["count"] for name in "abc"] == [20, 10, 20]


def test_resting_batch_continues_with_more_iterations() -> None:
    run, _ = make_run(Counter(), batch("a"), batch("b"), block=10, maximum=20)
    run.to_end()
    run.begin()
    assert run.states == []
    assert len(run.roster.resting) == 2
    run.maximum = 30
    run.begin()
    assert run.roster.resting == []
    run.to_end()
    assert [entry["state"]["count"] for entry in run.roster.entries().values()] == [30, 30]


def test_batch_with_a_diverged_problem_is_not_kept() -> None:
    run, _ = make_run(Counter(diverge={"a": 15}), batch("a"), block=10, maximum=20)
    run.to_end()
    assert run.roster.resting == []
    assert run.records["a"].state == {"count": 10, "iteration": 10}


def test_gpu_batches_are_not_kept() -> None:
    roster = Roster(Counter(), [batch("a")], 1.0, 1.0, ["a"], torch.device("cpu"))
    roster.device = torch.device("cuda")
    run = Run(roster, maximum=10)
    run.to_end()
    assert roster.resting == []
    assert run.records["a"].state == {"count": 10, "iteration": 10}


def test_change_is_notified_once_for_all_ended_batches() -> None:
    run, log = make_run(Counter(), *(batch(name) for name in "abcd"), block=10, maximum=20)
    run.begin()
    run.to_end()
    assert [event for event in log.said if event[0] == "change"][1:] == [("change", [])]


def test_a_batch_is_saved_by_its_label() -> None:
    run, _ = make_run(Counter(), batch("a"), batch("b", "c"), block=10, maximum=20)
    run.to_end()
    assert run.roster.save() == {label: run.roster.save_batch(label) for label in ("batch-0000", "batch-0001")}
    assert list(run.roster.save_batch("batch-0001")) == ["b", "c"]
    with pytest.raises(KeyError):
        run.roster.save_batch("batch-0002")


def tiles(*names: str) -> list[ProblemBatch]:
    return [ProblemBatch([Problem(name, torch.zeros(1, 1), folder=f"whole/{name}")]) for name in names]


def tiled_run(method: Counter, *names: str, at_once: int = 2, **options: Any) -> tuple[Run, Log]:
    log = Log()
    roster = Roster(method, tiles(*names), 1.0, 1.0, names, torch.device("cpu"), at_once=at_once)
    return Run(roster, listeners=[log], **options), log


def test_tiles_wait_until_half_of_the_active_ones_end() -> None:
    run, log = tiled_run(Counter(finish={"a": 10, "d": 10}), *"abcd", block=10, maximum=20)
    run.to_end()
    assert [event for event in log.said if event[0] in ("block", "end")] == [
        ("block", "a", 10),
        ("end", {"a": "stable"}, {"a": 10}),
        ("block", "b", 10),
        ("block", "c", 10),  # has caught up
        ("block", "b", 10),
        ("block", "c", 10),
        ("end", {"b": "done"}, {"b": 20}),
        ("end", {"c": "done"}, {"c": 20}),
        ("block", "d", 10),
        ("end", {"d": "stable"}, {"d": 10}),
    ]
    assert [run.records[name].state["count"] for name in "abcd"] == [10, 20, 20, 10]
    assert run.roster.resting == []


def test_run_counts_iterations_of_all_tiles() -> None:
    run, _ = tiled_run(Counter(), *"abcd", block=10, maximum=20)
    run.begin()
    moved = []
    while run.states:
        moved.append(run.step())
    assert moved == [0, 0, 10, 10]


def test_interrupted_run_starts_no_tile() -> None:
    run, log = tiled_run(Counter(), *"abc", block=10, maximum=10, interrupted=lambda: len(blocks(log)) == 2)
    run.to_end()
    assert [run.records[name].status for name in "abc"] == ["done", "done", "interrupted"]
    assert run.states == []
    again = Run(run.roster, listeners=[log], block=10, maximum=10)
    again.begin()
    again.to_end()
    assert [run.records[name].status for name in "abc"] == ["done"] * 3


def test_active_tiles_end_with_waiting_ones() -> None:
    run, _ = tiled_run(Counter(), *"abc", block=10, maximum=20)
    run.step()
    run.finish()
    assert [(record.status, record.iteration) for record in run.records.values()] == [
        ("done", 10),
        ("done", 10),
        ("done", 0),
    ]


def test_problem_interrupted_at_the_last_iteration_ends_later() -> None:
    run, log = make_run(
        Counter(), batch("a"), batch("b"), block=10, maximum=10, interrupted=lambda: len(blocks(log)) == 1
    )
    run.to_end()
    assert [(record.status, record.iteration) for record in run.records.values()] == [
        ("interrupted", 10),
        ("interrupted", 0),
    ]
    again = Run(run.roster, listeners=[log], block=10, maximum=10)
    again.begin()
    again.to_end()
    assert [record.status for record in run.records.values()] == ["done", "done"]


@pytest.mark.parametrize("options", [{"block": 0}, {"evaluate_every": 0}])
def test_arguments_are_checked(options: Any) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must be"):
        make_run(Counter(), batch("a"), **options)


def test_hooks_of_a_bare_listener_do_nothing() -> None:
    run, _ = make_run(Counter(most=1), batch("a", "b"), maximum=10)
    run.listeners = [Listener()]
    run.to_end()
    assert not run.states


# ------------------------------------------------------------------------------------------------- metrics of the user


class Scores(Listener):
    """Keeps scores of evaluations, and of ends, by the name of the problem."""

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {}
        self.ends: dict[str, float] = {}

    def on_evaluation(self, run: Run, batch: EvaluatedBatch) -> None:
        for name, scores in zip(batch.problems.names, batch.scores, strict=True):
            self.curves.setdefault(name, []).append(scores["own"])

    def on_end(self, run: Run, ending: Ending) -> None:
        self.ends.update({outcome.problem.name: outcome.scores["own"] for outcome in ending.outcomes()})


class Calls:
    """X itself, and for which problems it was asked."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, signal: torch.Tensor, problem: Problem) -> torch.Tensor:
        self.names.append(problem.name)
        return signal


def test_metrics_are_scores_of_evaluations_and_of_the_end() -> None:
    scores, own = Scores(), Calls()
    method = Counter(diverge={"c": 15}, finish={"b": 10})
    options = {"block": 10, "evaluate_every": 10, "maximum": 20, "metrics": {"own": own}}
    run, _ = make_run(method, batch("a", "b", "c"), **options)
    run.listeners.append(scores)
    run.to_end()
    assert scores.curves == {"a": [10.0, 20.0], "c": [10.0]}
    assert scores.ends == {"a": 20.0, "b": 10.0, "c": 10.0}


def test_metrics_are_computed_once_per_evaluation_and_for_ended_problems() -> None:
    own = Calls()
    options = {"block": 10, "evaluate_every": 20, "maximum": 20, "metrics": {"own": own}}
    run, _ = make_run(Counter(finish={"b": 10}), batch("a", "b", "c"), **options)
    run.listeners.append(Scores())
    run.to_end()
    assert own.names == ["b", "a", "c"]


def test_metrics_are_tested_on_one_problem_per_shape() -> None:
    own = Calls()
    known = ProblemBatch([Problem("a", torch.zeros(1, 1)), Problem("b", torch.zeros(1, 1), truth=torch.ones(1, 1))])
    other = ProblemBatch([Problem("c", torch.zeros(1, 1), data_range=1.0)])
    run, log = make_run(Counter(), known, batch("d"), other, maximum=10, metrics=[own])
    run.begin()
    assert own.names == ["b", "c"]
    assert [event[0] for event in log.said] == ["change"]


def test_failing_metric_ends_a_run_at_its_start() -> None:
    def fails(signal: torch.Tensor) -> float:
        raise RuntimeError("no way")

    method = Counter()
    run, _ = make_run(method, batch("a"), maximum=10, metrics={"own": fails})
    with pytest.raises(ValueError, match=r"^metrics: 'own' \(fails\) failed on problem 'a', .*: RuntimeError: no way$"):
        run.begin()
    assert method.turns == []


def test_no_test_without_metrics() -> None:
    method = Counter()
    run, _ = make_run(method, batch("a"), maximum=10)
    run.begin()
    assert method.evaluations == 0
