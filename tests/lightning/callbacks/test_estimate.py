"""How long a run is going to take."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dop_lightning.engine.rivals import DetectAndFill, ExtremeValues, NormalisedConvolution
from dop_lightning.engine.rivals.state import FilterState
from dop_lightning.lightning.callbacks import estimate as module
from dop_lightning.problems.problem import Problem, ProblemBatch


def filter_state(height: int, width: int, mask: torch.Tensor | None = None) -> FilterState:
    image_filter = DetectAndFill(ExtremeValues(), NormalisedConvolution())
    problem = Problem("photo", torch.full((1, height, width), 0.5), mask=mask, data_range=1.0)
    return FilterState(image_filter, ProblemBatch([problem]))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes that were timed: 1 s for each, and 1 ms a pixel."""
    shapes: list[tuple[int, ...]] = []

    def seconds(_: Any, problem: Problem) -> float:
        shapes.append(tuple(problem.observation.shape))
        return 1.0 + 1e-3 * problem.observation.numel()

    monkeypatch.setattr(module, "_seconds", seconds)
    return shapes


def test_a_filter_is_timed_by_two_parts_of_an_image(timed: list[tuple[int, ...]]) -> None:
    assert module._seconds_of_filter(filter_state(300, 400)) == pytest.approx(1 + 120)
    assert timed == [(1, 64, 64)] * 2 + [(1, 192, 192)]


def test_a_small_image_is_timed_whole(timed: list[tuple[int, ...]]) -> None:
    assert module._seconds_of_filter(filter_state(20, 30)) == pytest.approx(1 + 0.6)
    assert timed == [(1, 20, 30)] * 2


def test_an_image_without_a_centre_is_timed_whole(timed: list[tuple[int, ...]]) -> None:
    mask = torch.ones(1, 300, 300, dtype=torch.bool)
    mask[:, 30:270, 30:270] = False
    assert module._seconds_of_filter(filter_state(300, 300, mask)) == pytest.approx(1 + 90)
    assert timed == [(1, 300, 300)] * 2


def test_instant_says_how_long_it_takes(dop: Callable[..., Any], tmp_path: Any) -> None:
    said = dop("recover", "chelsea", "--out", str(tmp_path / "out"), "--preset", "instant", "--device", "cpu")
    assert said.status == 0
    assert "It takes a" in said.err
    assert "100 %, 0:00:00 left" in said.err
