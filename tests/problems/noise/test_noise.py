"""Every noise inherits ``NoiseSuite``: a class, arguments it takes, arguments it refuses."""

import math
import re
from typing import Any, ClassVar

import jsonargparse
import pytest
import torch
from torch import Tensor

from dop_lightning.problems.noise import (
    Corrupted,
    DeadLines,
    GaussianNoise,
    GrossOutliers,
    MissingEntries,
    Mixture,
    Noise,
    NoNoise,
    Occlusion,
    RandomValuedImpulse,
    SaltAndPepper,
    Scratches,
)
from dop_lightning.problems.noise.outliers import floor_of_share
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.randomness import stream


def corrupted(noise: Noise, clean: Tensor, seed: int = 0) -> Corrupted:
    return noise.corrupt(clean, stream(seed, "corruption"))


def image(*shape: int) -> Tensor:
    """Values away from 0 and 1, so that every hit entry changes."""
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7)) * 0.8 + 0.1


def hits(result: Corrupted) -> Tensor:
    return result.corruption != 0


def assert_binomial(hit: Tensor, chance: float) -> None:
    """The fraction of true entries is within five standard deviations of ``chance``."""
    assert abs(hit.double().mean().item() - chance) <= 5 * math.sqrt(chance * (1 - chance) / hit.numel())


class NoiseSuite:
    """What holds for every noise."""

    kind: ClassVar[type[Noise]]
    init_args: ClassVar[dict[str, Any]] = {}
    refused: ClassVar[list[dict[str, Any]]] = []
    """Each a change of ``init_args`` that is refused, its first key being the argument named."""
    shape: ClassVar[tuple[int, ...]] = (3, 12, 10)
    dense_std: ClassVar[float] = 0.0
    random: ClassVar[bool] = True
    paired_over: ClassVar[str | None] = "ratio"

    def noise(self) -> Noise:
        return self.kind(**self.init_args)

    def test_seed_determines_every_bit(self) -> None:
        clean = image(*self.shape)
        first, again, other = (corrupted(self.noise(), clean, seed) for seed in (3, 3, 4))
        assert torch.equal(first.observation, again.observation)
        assert torch.equal(first.corruption, again.corruption)
        assert torch.equal(first.observation, other.observation) is not self.random

    def test_float32_and_float64_draw_the_same(self) -> None:
        clean = image(*self.shape)
        double, single = corrupted(self.noise(), clean), corrupted(self.noise(), clean.float())
        assert torch.equal(hits(double), hits(single))
        torch.testing.assert_close(single.observation.double(), double.observation, rtol=1e-6, atol=1e-6)
        if double.mask is not None and single.mask is not None:
            assert torch.equal(double.mask, single.mask)

    def test_observation_is_clean_plus_corruption_plus_dense(self) -> None:
        clean = image(*self.shape)
        result = corrupted(self.noise(), clean)
        mask = torch.ones_like(clean, dtype=torch.bool) if result.mask is None else result.mask
        assert mask.dtype == torch.bool
        assert mask.any()
        assert not result.observation[~mask].any()
        assert not result.corruption[~mask].any()
        dense = (result.observation - clean - result.corruption)[mask]
        if self.dense_std == 0:
            assert torch.allclose(dense, torch.zeros_like(dense), rtol=0, atol=1e-13)
        else:
            assert 0.1 * self.dense_std < dense.std() < 1.3 * self.dense_std
            assert dense.abs().max() < 6 * self.dense_std

    def test_clean_signal_is_unchanged(self) -> None:
        clean = image(*self.shape)
        before = clean.clone()
        result = corrupted(self.noise(), clean)
        result.observation.fill_(9.0)
        result.corruption.fill_(9.0)
        assert torch.equal(clean, before)

    def test_corrupted_entries_are_nested_in_the_ratio(self) -> None:
        if self.paired_over is None:
            pytest.skip("has no ratio")
        clean = image(*self.shape)
        small, large = (corrupted(self.kind(**{**self.init_args, self.paired_over: r}), clean) for r in (0.1, 0.3))
        if small.mask is None or large.mask is None:
            assert 0 < hits(small).sum() < hits(large).sum()
            assert torch.equal(small.corruption[hits(small)], large.corruption[hits(small)])
        else:
            assert small.mask.sum() > large.mask.sum()
            assert not (large.mask & ~small.mask).any()

    def test_makes_a_problem(self) -> None:
        clean = image(*self.shape)
        result = corrupted(self.noise(), clean)
        problem = Problem(
            name=self.noise().slug,
            observation=result.observation,
            truth=clean,
            true_corruption=result.corruption,
            mask=result.mask,
            attributes=self.noise().attributes,
        )
        assert torch.equal(problem.observation, result.observation)

    def test_names_in_tables_and_files(self) -> None:
        noise = self.noise()
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", noise.slug)
        assert re.fullmatch(r"[a-z_+]+", str(noise.attributes["noise"]))
        assert all(isinstance(value, str | int | float) for value in noise.attributes.values())
        if self.paired_over is not None:
            other = self.kind(**{**self.init_args, self.paired_over: 0.123456789})
            assert other.slug != noise.slug
            assert other.attributes[self.paired_over] == 0.123456789

    def test_builds_from_a_config(self) -> None:
        parser = jsonargparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--noise", type=Noise)
        path = f"dop_lightning.problems.noise.{self.kind.__name__}"
        config = parser.parse_object({"noise": {"class_path": path, "init_args": self.config()}})
        assert config.noise.class_path == path
        # the older name is deprecated since jsonargparse 4.49
        noise = getattr(parser, "instantiate", parser.instantiate_classes)(config).noise
        assert type(noise) is self.kind
        assert noise.slug == self.noise().slug
        assert noise.attributes == self.noise().attributes

    def config(self) -> dict[str, Any]:
        return self.init_args

    def test_refuses_wrong_arguments(self) -> None:
        for wrong in self.refused:
            with pytest.raises(ValueError, match=next(iter(wrong))):
                self.kind(**{**self.init_args, **wrong})

    @pytest.mark.parametrize("clean", [torch.zeros(3, 4, 4, dtype=torch.int64), torch.zeros(3, 0, 4)])
    def test_refuses_signals_without_floats(self, clean: Tensor) -> None:
        with pytest.raises(ValueError, match="clean must"):
            corrupted(self.noise(), clean)


class TestNoNoise(NoiseSuite):
    kind = NoNoise
    random = False
    paired_over = None

    def test_observes_the_signal(self) -> None:
        clean = image(3, 4, 5)
        result = corrupted(NoNoise(), clean)
        assert torch.equal(result.observation, clean)
        assert not result.corruption.any()
        assert result.mask is None
        assert NoNoise().slug == NoNoise().attributes["noise"] == "none"


class ImpulseSuite(NoiseSuite):
    """What replaces entries by values of a range."""

    init_args: ClassVar[dict[str, Any]] = {"ratio": 0.4}
    refused: ClassVar[list[dict[str, Any]]] = [
        {"ratio": 1.1},
        {"ratio": -0.1},
        {"ratio": math.nan},
        {"per": "block"},
        {"low": 1.0},
        {"low": -math.inf},
        {"high": math.nan},
    ]

    def test_the_corruption_is_the_difference_to_the_bit(self) -> None:
        clean = image(3, 20, 20).float()
        result = corrupted(self.noise(), clean)
        assert torch.equal(result.corruption, result.observation - clean)
        assert torch.equal(hits(result), result.observation != clean)

    @pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9, 1.0])
    def test_share(self, ratio: float) -> None:
        result = corrupted(self.kind(ratio=ratio), image(3, 60, 60))  # type: ignore[call-arg]
        assert_binomial(hits(result), ratio)

    def test_channels_are_drawn_independently(self) -> None:
        hit = hits(corrupted(self.kind(ratio=0.5), image(3, 60, 60)))  # type: ignore[call-arg]
        assert_binomial(hit.all(dim=0), 0.5**3)

    def test_channels_of_a_pixel_are_corrupted_together(self) -> None:
        hit = hits(corrupted(self.kind(ratio=0.5, per="pixel"), image(3, 60, 60)))  # type: ignore[call-arg]
        assert torch.equal(hit.all(dim=0), hit.any(dim=0))
        assert_binomial(hit.all(dim=0), 0.5)

    def test_pixels_require_an_image(self) -> None:
        with pytest.raises(ValueError, match="per='pixel' requires"):
            corrupted(self.kind(ratio=0.5, per="pixel"), image(8, 8))  # type: ignore[call-arg]

    def test_slug_contains_nondefault_settings(self) -> None:
        name = self.kind.name.replace("_", "-")
        assert self.kind(ratio=0.5).slug == f"{name}-0.5"  # type: ignore[call-arg]
        assert self.kind(ratio=0.5, per="pixel", low=-1.0).slug == f"{name}-0.5-per-pixel-low--1"  # type: ignore[call-arg]


class TestSaltAndPepper(ImpulseSuite):
    kind = SaltAndPepper

    def test_black_and_white_have_equal_chance(self) -> None:
        clean = image(3, 60, 60)
        for per in ("entry", "pixel"):
            result = corrupted(SaltAndPepper(0.5, per=per, low=-0.1, high=1.3), clean)
            values = result.observation[hits(result)]
            assert values.unique().tolist() == [-0.1, 1.3]
            # channels of a pixel are one draw, not three
            assert_binomial(values[: len(values) // (3 if per == "pixel" else 1)] == 1.3, 0.5)

    def test_whole_pixels_are_black_or_white(self) -> None:
        result = corrupted(SaltAndPepper(1.0, per="pixel"), image(3, 20, 20))
        assert torch.equal(result.observation.amin(dim=0), result.observation.amax(dim=0))
        split = corrupted(SaltAndPepper(1.0), image(3, 20, 20)).observation
        assert not torch.equal(split.amin(dim=0), split.amax(dim=0))


class TestRandomValuedImpulse(ImpulseSuite):
    kind = RandomValuedImpulse

    def test_values_are_uniform(self) -> None:
        result = corrupted(RandomValuedImpulse(1.0, low=-2.0, high=3.0), image(3, 60, 60))
        values = result.observation.flatten().sort().values
        assert values[0] >= -2
        assert values[-1] < 3
        steps = (torch.arange(len(values)) + 0.5) / len(values) * 5 - 2
        assert (values - steps).abs().max() < 5 * 2 / math.sqrt(len(values))  # Kolmogorov's distance, far out

    def test_pixels_get_one_colour(self) -> None:
        result = corrupted(RandomValuedImpulse(1.0, per="pixel"), image(3, 20, 20))
        assert (result.observation.amin(dim=0) < result.observation.amax(dim=0)).all()


class TestGrossOutliers(NoiseSuite):
    kind = GrossOutliers
    init_args: ClassVar[dict[str, Any]] = {"ratio": 0.3}
    shape = (20, 20)
    refused: ClassVar[list[dict[str, Any]]] = [{"ratio": 2}, {"ratio": -1}, {"std": 0.0}, {"std": math.inf}]

    @pytest.mark.parametrize(
        ("ratio", "count", "expected"),
        [
            (0.3, 2500, 750),
            (0.29, 100, 29),  # 28.999999999999996 in floating point
            (0.58, 100, 58),  # 57.99999999999999
            (1 / 3, 3, 1),
            (0.299, 100, 29),
            (0.9999, 100, 99),
            (0.0, 100, 0),
            (1.0, 100, 100),
            (1, 100, 100),
            (0.001, 100, 0),
        ],
    )
    def test_the_number_of_outliers_is_exact(self, ratio: float, count: int, expected: int) -> None:
        assert floor_of_share(ratio, count) == expected
        assert hits(corrupted(GrossOutliers(ratio), torch.ones(count))).sum() == expected

    def test_every_ratio_of_two_decimals_is_exact(self) -> None:
        counts = [9, 50, 64, 100, 2500, 10_000, 1_000_000]
        assert all(floor_of_share(i / 100, n) == i * n // 100 for i in range(101) for n in counts)

    def test_values_are_normal_and_added(self) -> None:
        clean = image(100, 100)
        result = corrupted(GrossOutliers(0.5, std=4.0), clean)
        values = result.corruption[hits(result)]
        assert abs(values.mean()) < 5 * 4 / math.sqrt(5000)
        assert abs(values.std() / 4 - 1) < 5 / math.sqrt(2 * 5000)
        assert torch.equal(result.corruption, result.observation - clean)
        # added to the signal, not put in its place
        moved = corrupted(GrossOutliers(0.5, std=4.0), clean + 100)
        torch.testing.assert_close(moved.corruption, result.corruption, rtol=0, atol=1e-11)

    def test_positions_are_uniform_and_not_symmetric(self) -> None:
        hit = torch.stack([hits(corrupted(GrossOutliers(0.3), torch.ones(10, 10), seed)) for seed in range(400)])
        assert (hit.double().mean(dim=0) - 0.3).abs().max() < 5 * math.sqrt(0.21 / 400)
        assert not torch.equal(hit[0], hit[0].T)


class TestMissingEntries(NoiseSuite):
    kind = MissingEntries
    init_args: ClassVar[dict[str, Any]] = {"ratio": 0.4}
    refused: ClassVar[list[dict[str, Any]]] = [{"ratio": 1.0}, {"ratio": -0.1}, {"ratio": 1.5}, {"per": "row"}]

    @pytest.mark.parametrize("ratio", [0.0, 0.1, 0.9])
    def test_share(self, ratio: float) -> None:
        mask = corrupted(MissingEntries(ratio), image(3, 60, 60)).mask
        assert mask is not None
        assert_binomial(~mask, ratio)

    def test_observed_entries_are_clean(self) -> None:
        clean = image(3, 12, 10)
        result = corrupted(self.noise(), clean)
        assert result.mask is not None
        assert torch.equal(result.observation, clean * result.mask)
        assert not result.corruption.any()

    def test_channels_of_a_pixel_are_hidden_together(self) -> None:
        mask = corrupted(MissingEntries(0.5, per="pixel"), image(3, 60, 60)).mask
        assert mask is not None
        assert torch.equal(mask.all(dim=0), mask.any(dim=0))
        assert_binomial(mask[0], 0.5)
        split = corrupted(MissingEntries(0.5), image(3, 60, 60)).mask
        assert split is not None
        assert_binomial(split.all(dim=0), 0.5**3)

    @pytest.mark.parametrize("seed", range(20))
    def test_some_entries_stay_observed(self, seed: int) -> None:
        nearly_all = MissingEntries(0.999)
        mask = corrupted(nearly_all, torch.ones(2, 2), seed).mask
        assert mask is not None
        assert mask.sum() == 1
        pixels = corrupted(MissingEntries(0.999, per="pixel"), torch.ones(3, 2, 2), seed).mask
        assert pixels is not None
        assert pixels.sum() == 3
        # two draws may leave disjoint entries; one of the first draw's stays
        both = corrupted(Mixture([MissingEntries(0.5), nearly_all]), torch.ones(2, 2), seed).mask
        alone = corrupted(MissingEntries(0.5), torch.ones(2, 2), seed).mask
        assert both is not None
        assert alone is not None
        assert both.sum() == 1
        assert not (both & ~alone).any()

    def test_pixels_require_an_image(self) -> None:
        with pytest.raises(ValueError, match="per='pixel' requires"):
            corrupted(MissingEntries(0.5, per="pixel"), image(8, 8))


class TestOcclusion(NoiseSuite):
    kind = Occlusion
    init_args: ClassVar[dict[str, Any]] = {"ratio": 0.2}
    refused: ClassVar[list[dict[str, Any]]] = [{"ratio": 1.5}, {"ratio": -0.5}, {"value": math.nan}]

    @pytest.mark.parametrize("ratio", [0.0, 0.05, 0.25, 0.5, 1.0])
    def test_is_one_rectangle_of_the_given_fraction(self, ratio: float) -> None:
        for seed in range(10):
            result = corrupted(Occlusion(ratio, value=0.95), image(3, 40, 60), seed)
            hit = hits(result)
            assert torch.equal(hit.all(dim=0), hit.any(dim=0))
            rows, columns = hit[0].any(dim=1), hit[0].any(dim=0)
            assert torch.equal(hit[0], rows[:, None] & columns[None, :])
            for line in (rows, columns):
                places = line.nonzero().flatten().tolist()
                assert not places or places == list(range(places[0], places[-1] + 1))
            # half a pixel a side
            assert abs(hit[0].double().mean().item() - ratio) <= 0.5 / 40 + 0.5 / 60
            assert (result.observation[hit] == 0.95).all()

    def test_reaches_every_position(self) -> None:
        hit = torch.stack([hits(corrupted(Occlusion(0.25), torch.ones(6, 6), seed)) for seed in range(200)])
        assert hit.any(dim=0).all()
        assert not hit.all(dim=0).any()

    def test_area_must_be_positive(self) -> None:
        with pytest.raises(ValueError, match="Occlusion requires at least two dimensions"):
            corrupted(Occlusion(0.5), torch.ones(9))


class TestDeadLines(NoiseSuite):
    kind = DeadLines
    init_args: ClassVar[dict[str, Any]] = {"ratio": 0.2}
    refused: ClassVar[list[dict[str, Any]]] = [{"ratio": 1.5}, {"value": math.nan}, {"value": "dark"}, {"per": "line"}]
    paired_over = None  # values differ where lines cross

    def test_dead_lines_are_nested_in_the_ratio(self) -> None:
        small, large = (hits(corrupted(DeadLines(ratio), image(3, 40, 60))) for ratio in (0.1, 0.3))
        assert small.sum() < large.sum()
        assert not (small & ~large).any()

    @pytest.mark.parametrize("value", [0.0, "random", "noise"])
    def test_kills_whole_lines_inside_the_image(self, value: Any) -> None:
        result = corrupted(DeadLines(0.1, value), image(3, 40, 60))
        hit = hits(result)
        rows, columns = hit.all(dim=2).all(dim=0), hit.all(dim=1).all(dim=0)
        assert (int(rows.sum()), int(columns.sum())) == (4, 6)
        assert torch.equal(hit, (rows[:, None] | columns[None]).expand_as(hit))
        assert not rows[[0, -1]].any()
        assert not columns[[0, -1]].any()

    def test_lines_have_one_value_or_one_per_entry(self) -> None:
        constant, noise = (corrupted(DeadLines(0.1, value), image(1, 40, 60)) for value in ("random", "noise"))
        row = int(hits(constant)[0].all(dim=1).nonzero()[0])
        own = ~hits(constant)[0, 0]  # not where dead columns cross
        assert constant.observation[0, row][own].unique().numel() == 1
        assert noise.observation[0, row][own].unique().numel() > 20

    def test_per_entry_kills_a_line_in_one_channel(self) -> None:
        hit = hits(corrupted(DeadLines(0.05, per="entry"), image(3, 80, 60)))
        rows = hit.all(dim=2)
        assert int(rows.sum()) == 4
        assert int(rows.any(dim=0).sum()) == 4

    def test_image_is_required(self) -> None:
        with pytest.raises(ValueError, match="DeadLines requires an image"):
            corrupted(DeadLines(0.5), torch.ones(9, 9))


class TestScratches(NoiseSuite):
    kind = Scratches
    init_args: ClassVar[dict[str, Any]] = {"ratio": 0.2}
    refused: ClassVar[list[dict[str, Any]]] = [
        {"ratio": 1.0},
        {"value": math.inf},
        {"value": "dark"},
        {"opacity": 0.0},
        {"opacity": 1.5},
        {"thinnest": 0},
        {"thickest": 0},
        {"shortest": 0.0},
        {"longest": 0.1},
    ]

    def test_covers_the_given_fraction_in_all_channels(self) -> None:
        hit = hits(corrupted(Scratches(0.05), image(3, 90, 70)))
        assert torch.equal(hit.all(dim=0), hit.any(dim=0))
        assert 0.05 <= float(hit.double().mean()) < 0.05 + 5 * 95 / (90 * 70)

    @pytest.mark.parametrize("width", [1, 3])
    def test_has_the_requested_width(self, width: int) -> None:
        hit = hits(corrupted(Scratches(0.001, thinnest=width, thickest=width), image(1, 90, 90)))[0]  # one scratch
        squares = torch.nn.functional.avg_pool2d(hit.float()[None], width + 2, 1)[0]
        assert float(squares.max()) < 1  # no full square that is wider
        if width > 1:
            assert float(torch.nn.functional.avg_pool2d(hit.float()[None], 2, 1).max()) == 1

    def test_opacity_mixes(self) -> None:
        clean = image(1, 60, 60)
        result = corrupted(Scratches(0.05, value=1.0, opacity=0.25), clean)
        torch.testing.assert_close(result.corruption[hits(result)], 0.25 * (1 - clean)[hits(result)])

    def test_image_is_required(self) -> None:
        with pytest.raises(ValueError, match="Scratches requires an image"):
            corrupted(Scratches(0.5), torch.ones(9, 9))


class TestGaussianNoise(NoiseSuite):
    kind = GaussianNoise
    init_args: ClassVar[dict[str, Any]] = {"std": 0.1}
    refused: ClassVar[list[dict[str, Any]]] = [{"std": 0.0}, {"std": -1.0}, {"std": math.nan}]
    dense_std = 0.1
    paired_over = None

    def test_is_dense_and_not_corruption(self) -> None:
        clean = image(3, 60, 60)
        result = corrupted(GaussianNoise(0.2), clean)
        dense = result.observation - clean
        assert not result.corruption.any()
        assert (dense != 0).all()
        assert abs(dense.mean()) < 5 * 0.2 / math.sqrt(dense.numel())
        assert abs(dense.std() / 0.2 - 1) < 5 / math.sqrt(2 * dense.numel())


class TestMixture(NoiseSuite):
    kind = Mixture
    init_args: ClassVar[dict[str, Any]] = {
        "parts": [GrossOutliers(0.2), GaussianNoise(0.1), SaltAndPepper(0.1), MissingEntries(0.3)]
    }
    refused: ClassVar[list[dict[str, Any]]] = [{"parts": []}, {"parts": ["salt"]}, {"parts": GaussianNoise(0.1)}]
    dense_std = 0.1
    paired_over = None

    def config(self) -> dict[str, Any]:
        return {
            "parts": [
                {"class_path": "dop_lightning.problems.noise.GrossOutliers", "init_args": {"ratio": 0.2}},
                {"class_path": "dop_lightning.problems.noise.GaussianNoise", "init_args": {"std": 0.1}},
                {"class_path": "dop_lightning.problems.noise.SaltAndPepper", "init_args": {"ratio": 0.1}},
                {"class_path": "dop_lightning.problems.noise.MissingEntries", "init_args": {"ratio": 0.3}},
            ]
        }

    def test_single_part_equals_that_part(self) -> None:
        clean = image(3, 12, 10)
        for part in (SaltAndPepper(0.3), GrossOutliers(0.2), GaussianNoise(0.1), MissingEntries(0.3)):
            mixed, alone = corrupted(Mixture([part]), clean), corrupted(part, clean)
            assert torch.equal(mixed.observation, alone.observation)
            assert torch.equal(mixed.corruption, alone.corruption)

    def test_outliers_add_up(self) -> None:
        clean = torch.zeros(30, 30, dtype=torch.float64)
        result = corrupted(Mixture([GrossOutliers(1.0, std=3.0), GrossOutliers(1.0, std=4.0)]), clean)
        assert abs(result.corruption.std() / 5 - 1) < 5 / math.sqrt(2 * 900)
        assert torch.equal(result.observation, result.corruption)

    def test_dense_noise_is_not_corruption_at_any_position(self) -> None:
        clean = image(50, 50)
        outliers, dense = GrossOutliers(0.2), GaussianNoise(0.1)
        for parts in ([outliers, dense], [dense, outliers]):
            result = corrupted(Mixture(parts), clean)
            residual = result.observation - clean - result.corruption
            assert hits(result).sum() == 500
            assert (residual != 0).all()
            assert abs(residual.std() / 0.1 - 1) < 5 / math.sqrt(2 * 2500)

    def test_replaced_entry_is_corrupted_entirely(self) -> None:
        clean = image(3, 30, 30)
        result = corrupted(Mixture([GaussianNoise(0.1), SaltAndPepper(0.5)]), clean)
        replaced = hits(result)
        assert_binomial(replaced, 0.5)
        assert torch.equal(result.corruption[replaced], (result.observation - clean)[replaced])
        assert result.observation[replaced].unique().tolist() == [0.0, 1.0]
        # dense noise over it is dense again
        over = corrupted(Mixture([SaltAndPepper(0.5), GaussianNoise(0.1)]), clean)
        assert ((over.corruption + clean - 0.5).abs()[hits(over)] - 0.5).abs().max() < 1e-12
        assert not (over.observation[hits(over)] == 1).any()

    def test_masks_are_intersected_and_hide_corruption(self) -> None:
        clean = image(3, 60, 60)
        result = corrupted(Mixture([MissingEntries(0.5), SaltAndPepper(1.0), MissingEntries(0.2)]), clean)
        assert result.mask is not None
        assert_binomial(result.mask, 0.4)
        assert torch.equal(hits(result), result.mask)

    def test_parts_are_paired_over_the_ratio_of_one(self) -> None:
        clean = image(20, 20)
        light, heavy = (corrupted(Mixture([SaltAndPepper(r), MissingEntries(0.3)]), clean) for r in (0.1, 0.6))
        assert light.mask is not None
        assert heavy.mask is not None
        assert torch.equal(light.mask, heavy.mask)

    def test_words(self) -> None:
        noise = Mixture([SaltAndPepper(0.1), MissingEntries(0.3), SaltAndPepper(0.2, per="pixel")])
        assert noise.slug == "salt-and-pepper-0.1_missing-entries-0.3_salt-and-pepper-0.2-per-pixel"
        assert noise.attributes["noise"] == "salt_and_pepper+missing_entries+salt_and_pepper"
        assert noise.attributes["salt_and_pepper_ratio"] == 0.1
        assert noise.attributes["salt_and_pepper_2_ratio"] == 0.2
        assert noise.attributes["missing_entries_ratio"] == 0.3
