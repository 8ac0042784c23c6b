import pytest

from dop_lightning.foundation import threads
from dop_lightning.foundation.threads import ThreadChoice, avoid_busy_cores, choose_threads


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "measure_idle_cores", lambda enough: pytest.fail("it was measured"))


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"])
def test_requested_number_of_threads_is_used(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "3")
    assert choose_threads() == choose_threads(recorded=2, is_resumed=True) == ThreadChoice(3)


@pytest.mark.parametrize(
    ("idle", "expected"), [(4.0, 4), (3.6, 4), (3.5, 3), (2.0, 2), (1.0, 1), (0.3, 1), (0.0, 1), (40.0, 4)]
)
def test_new_run_does_not_use_busy_cores(idle: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "measure_idle_cores", lambda enough: idle)
    choice = choose_threads()
    assert choice.threads == expected
    assert (choice.reason == "") is (expected == 4)


def test_the_reason_is_one_line_with_numbers() -> None:
    assert avoid_busy_cores(2, 0.25).reason == (
        "Using 1 thread on 2 cores, because other processes leave 0.2 idle; set OMP_NUM_THREADS to override"
    )


def test_one_core_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert choose_threads() == ThreadChoice(1)


def test_a_resumed_run_keeps_its_threads() -> None:
    choice = choose_threads(recorded=2, is_resumed=True)
    assert choice.threads == 2
    assert choice.reason.startswith("Using 2 threads on 4 cores, as at the start of the run")
    assert choose_threads(recorded=4, is_resumed=True) == ThreadChoice(4)


def test_resumed_run_uses_at_most_all_cores() -> None:
    choice = choose_threads(recorded=8, is_resumed=True)
    assert choice.threads == 4
    assert "started with 8" in choice.reason


def test_resumed_run_of_unknown_threads_uses_all_cores() -> None:
    assert choose_threads(is_resumed=True) == ThreadChoice(4)
