import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dop_lightning.engine.outcome import Outcome
from dop_lightning.images.pictures import (
    PANEL_LIMIT,
    colour_limit,
    comparison,
    corruption_map,
    heatmap,
    probability_map,
    recovery_pictures,
)
from dop_lightning.problems.problem import Problem


def outcome(signal: Tensor, corruption: Tensor | None = None, **problem: Any) -> Outcome:
    observation = problem.pop("observation", signal)
    corruption = torch.zeros_like(observation) if corruption is None else corruption
    return Outcome(Problem("p", observation, **problem), "done", 1, 1.0, 1.0, 1.0, signal, corruption)


class TestCorruptionMap:
    def test_is_the_largest_of_the_channels(self) -> None:
        s = torch.zeros(3, 1, 4)
        s[0, 0, 0], s[1, 0, 1], s[2, 0, 1], s[2, 0, 2] = -1.0, 0.2, -0.4, 3.0
        assert corruption_map(s).tolist() == [[255, 102, 255, 0]]
        assert corruption_map(s, data_range=4.0).tolist() == [[64, 26, 191, 0]]

    def test_refuses_other_shapes_and_ranges(self) -> None:
        with pytest.raises(ValueError, match=r"\(C, H, W\), got \(2, 2\)"):
            corruption_map(torch.zeros(2, 2))
        with pytest.raises(ValueError, match="data_range"):
            corruption_map(torch.zeros(1, 2, 2), 0.0)


class TestProbabilityMap:
    def test_is_the_largest_of_the_channels(self) -> None:
        p = torch.tensor([[[0.0, 0.25, 1.0]], [[0.5, 0.0, 0.0]]])
        assert probability_map(p).tolist() == [[128, 64, 255]]

    def test_refuses_other_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"probability must have shape \(C, H, W\), got \(2, 2\)"):
            probability_map(torch.zeros(2, 2))

    def test_corruption_is_next_to_the_comparison(self) -> None:
        image = outcome(torch.full((1, 2, 2), 0.5), data_range=1.0)
        known = replace(image, corruption_probability=torch.ones(1, 2, 2))
        without, found = recovery_pictures(image), recovery_pictures(known)
        assert found.keys() - without.keys() == {"corruption_probability"}
        assert np.array_equal(found["comparison"], without["comparison"])
        assert (found["corruption_probability"] == 255).all()


class TestHeatmap:
    def test_is_white_at_0_and_clipped_at_the_limit(self) -> None:
        colours = heatmap(torch.tensor([[0.0, -1.0, 1.0, -9.0, 9.0, math.inf, math.nan]]), limit=1.0)
        assert colours.shape == (1, 7, 3)
        assert colours.dtype == np.uint8
        white, blue, red, *rest = colours[0].tolist()
        assert white == [255, 255, 255]
        assert rest == [blue, red, red, [128, 128, 128]]
        assert blue[2] > blue[0] + 50
        assert red[0] > red[2] + 50

    def test_limit_is_shown_above_outliers(self) -> None:
        matrix = torch.ones(20, 20)
        matrix[0, 0] = 1e6
        assert colour_limit(matrix) == 1.0
        assert colour_limit(torch.diag(torch.tensor([5.0] + [0.0] * 19))) == 5.0
        assert colour_limit(torch.zeros(2, 2)) == 1.0
        assert colour_limit(torch.full((1, 1), math.nan)) == 1.0

    def test_refuses_other_shapes_and_limits(self) -> None:
        with pytest.raises(ValueError, match=r"\(n, m\), got \(3,\)"):
            heatmap(torch.zeros(3))
        with pytest.raises(ValueError, match="limit"):
            heatmap(torch.zeros(2, 2), limit=0.0)


class TestComparison:
    def test_small_pictures_are_enlarged_by_a_whole_factor(self) -> None:
        grey = np.array([[0, 90], [180, 30]], dtype=np.uint8)
        sheet = comparison([("one", grey), ("two", np.stack([grey] * 3, axis=-1))])
        assert sheet.dtype == np.uint8
        for corner in (12, 264):
            panel = sheet[32 : 32 + 240, corner : corner + 240]
            assert np.array_equal(panel, np.repeat(np.repeat(grey, 120, 0), 120, 1)[..., None].repeat(3, axis=2))
        assert sheet.shape == (32 + 240 + 12, 12 + 2 * (240 + 12), 3)

    def test_labels_are_drawn_and_never_cut(self) -> None:
        thin = np.zeros((240, 1), dtype=np.uint8)
        sheet = comparison([("a label far wider than its panel", thin), ("b", thin)])
        columns = np.flatnonzero((sheet[:32] < 128).any(axis=(0, 2)))
        assert columns.min() > 5
        assert columns.max() < sheet.shape[1] - 5
        assert len(columns) > 150

    def test_large_pictures_are_reduced(self) -> None:
        sheet = comparison([("large", np.zeros((10, 3 * PANEL_LIMIT), dtype=np.uint8))])
        assert sheet.shape[1] == PANEL_LIMIT + 24

    @pytest.mark.parametrize("panel", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)])
    def test_refuses_non_pictures(self, panel: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"panels must be uint8 .* for 'odd'"):
            comparison([("odd", panel)])

    def test_refuses_empty_input(self) -> None:
        with pytest.raises(ValueError, match="at least one picture"):
            comparison([])


class TestRecoveryPictures:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pictures_of_an_image(self, channels: int) -> None:
        x = torch.rand(channels, 4, 5)
        pictures = recovery_pictures(outcome(x, data_range=1.0))
        assert list(pictures) == ["observation", "recovered", "corruption", "comparison"]
        expected = x.mul(255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(pictures["recovered"], expected if channels == 3 else expected[..., 0])
        assert not pictures["corruption"].any()
        with_truth = recovery_pictures(outcome(x, data_range=1.0, truth=x))
        assert with_truth["comparison"].shape[1] > pictures["comparison"].shape[1]

    @pytest.mark.parametrize("channels", [2, 4, 7])
    def test_some_of_many_channels_are_shown(self, channels: int) -> None:
        x, s = torch.rand(channels, 4, 5), torch.zeros(channels, 4, 5)
        s[-1, 2, 3] = 0.4
        pictures = recovery_pictures(outcome(x, s, data_range=1.0, truth=x))
        shown = recovery_pictures(outcome(x[:1] if channels == 2 else x[:3], data_range=1.0))
        assert np.array_equal(pictures["recovered"], shown["recovered"])
        assert pictures["corruption"][2, 3] == 102
        assert pictures["comparison"].ndim == 3

    @pytest.mark.parametrize("shape", [(1, 2, 2), (3, 2, 2), (2, 2)])
    def test_missing_entries_are_grey_in_the_observation(self, shape: tuple[int, ...]) -> None:
        mask = torch.ones(shape, dtype=torch.bool)
        mask[..., 0, 0] = False
        pictures = recovery_pictures(outcome(torch.zeros(shape), mask=mask, data_range=1.0))
        observation, recovered = pictures["comparison"][32:272, 12:252], pictures["comparison"][32:272, 264:504]
        assert (observation[:120, :120] == 128).all()
        assert not (observation[120:] == 128).any()
        assert not (recovered == 128).any()

    def test_matrix_pictures_have_one_limit(self) -> None:
        x = torch.randn(6, 4)
        s = torch.zeros(6, 4)
        s[0, 0] = 100.0
        pictures = recovery_pictures(outcome(x, s, observation=x + s, truth=2 * x))
        assert list(pictures) == ["observation", "recovered", "corruption", "truth", "comparison"]
        assert np.array_equal(pictures["recovered"], heatmap(x, colour_limit(2 * x)))
        assert np.array_equal(pictures["corruption"], heatmap(s, colour_limit(2 * x)))

    def test_large_matrix_is_subsampled(self) -> None:
        pictures = recovery_pictures(outcome(torch.ones(PANEL_LIMIT + 1, 3)))
        assert pictures["recovered"].shape == ((PANEL_LIMIT + 2) // 2, 3, 3)

    def test_vector_measurements(self) -> None:
        x = torch.randn(4, 4)
        pictures = recovery_pictures(outcome(x, observation=torch.ones(9), truth=x))
        assert list(pictures) == ["recovered", "truth", "comparison"]
        of_image = recovery_pictures(outcome(torch.rand(3, 4, 4), observation=torch.ones(9), data_range=1.0))
        assert list(of_image) == ["recovered", "comparison"]

    @pytest.mark.parametrize(("shape", "data_range"), [((5,), None), ((2, 3, 4, 4), 1.0), ((3, 4, 4), None)])
    def test_other_shapes_have_no_pictures(self, shape: tuple[int, ...], data_range: float | None) -> None:
        assert recovery_pictures(outcome(torch.zeros(shape), data_range=data_range)) == {}
