"""Sources × noises × seeds, the names of problems, and batches."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dop_lightning.lightning.data import RecoveryDataModule, Source
from dop_lightning.lightning.data.base import data_of, one_file_each
from dop_lightning.model.operators import GaussianMeasurements
from dop_lightning.problems.noise import GrossOutliers, MissingEntries, Mixture, NoNoise, SaltAndPepper
from dop_lightning.problems.problem import Attribute

SAFE = re.compile(r"[\w.-]{1,140}")


class Made(Source):
    """A signal of a given name and shape, whose entries are its seed plus a ramp."""

    def __init__(self, name: str, shape: Sequence[int] = (4, 4), clean: bool = True, hidden: bool = False) -> None:
        self.name = name
        self.shape = tuple(shape)
        self.clean = clean
        self.hidden = hidden

    def signal(self, seed: int) -> Tensor:
        count = int(torch.tensor(self.shape).prod())
        return torch.arange(count, dtype=torch.float32).reshape(self.shape) + seed

    @property
    def attributes(self) -> dict[str, Attribute]:
        return {"kind": self.name}

    @property
    def is_clean(self) -> bool:
        return self.clean

    def mask(self) -> Tensor | None:
        if not self.hidden:
            return None
        mask = torch.ones(self.shape, dtype=torch.bool)
        mask[0] = False
        return mask


class Data(RecoveryDataModule):
    def __init__(self, sources: Sequence[Source], **options: Any) -> None:
        super().__init__(**options)
        self._sources = sources
        self.setup()

    def sources(self) -> Sequence[Source]:
        return self._sources


OUTLIERS = [GrossOutliers(0.25), GrossOutliers(0.5)]


def test_problems_are_ordered_by_source_noise_and_seed() -> None:
    data = Data([Made("a"), Made("b")], noise=OUTLIERS, seeds=[5, 3])
    assert [(p.attributes["kind"], p.attributes["ratio"], p.seed) for p in data.problems] == [
        (kind, ratio, seed) for kind in "ab" for ratio in (0.25, 0.5) for seed in (5, 3)
    ]
    assert [p.name for p in data.problems][:3] == [
        "a-gross-outliers-0.25-seed5",
        "a-gross-outliers-0.25-seed3",
        "a-gross-outliers-0.5-seed5",
    ]
    assert data.problems[0].attributes == {"kind": "a", "noise": "gross_outliers", "ratio": 0.25, "std": 10.0}
    assert all(p.source is data._sources[k // 4] for k, p in enumerate(data.problems))


@pytest.mark.parametrize(("seeds", "listed"), [(1, [0]), (3, [0, 1, 2]), ([7], [7]), ([4, -1, 0], [4, -1, 0])])
def test_seeds_are_listed_or_counted(seeds: int | list[int], listed: list[int]) -> None:
    assert [p.seed for p in Data([Made("a")], seeds=seeds).problems] == listed


def test_one_recovery_of_each_file_is_named_like_the_file() -> None:
    assert [p.name for p in Data([Made("a"), Made("b")]).problems] == ["a", "b"]
    assert [p.name for p in Data([Made("a")], noise=[NoNoise()], seeds=[9]).problems] == ["a"]
    assert [p.name for p in Data([Made("a")], seeds=2).problems] == ["a-seed0", "a-seed1"]


def test_names_are_unique_and_safe() -> None:
    hostile = ["../../etc/passwd", "a b", "a_b", "A_B", "ä", "", "x" * 500, "x" * 501, "checkpoints", "a/b\\c:d*e"]
    for noise in (None, [SaltAndPepper(0.5), SaltAndPepper(0.5)], Mixture([GrossOutliers(0.1), MissingEntries(0.1)])):
        names = [p.name for p in Data([Made(name) for name in hostile], noise=noise, seeds=2).problems]
        assert len({name.lower() for name in names}) == len(names)
        assert all(SAFE.fullmatch(name) and name[0] not in ".-_" for name in names)


def test_noise_depends_on_the_seed_only() -> None:
    one = Data([Made("a")], noise=OUTLIERS[0], seeds=[3, 4]).problems
    other = Data([Made("renamed", (4, 4)), Made("b")], noise=OUTLIERS[0], seeds=[4]).problems
    assert torch.equal(one[1].observation, other[0].observation)
    assert not torch.equal(one[0].true_corruption, one[1].true_corruption)


def test_noise_makes_the_clean_signal_the_truth() -> None:
    for clean in (True, False):
        (problem,) = Data([Made("a", clean=clean)], noise=GrossOutliers(0.25)).problems
        assert torch.equal(problem.truth, Made("a").signal(0))
        torch.testing.assert_close(problem.observation, problem.truth + problem.true_corruption)
        assert problem.true_corruption.count_nonzero() == 4


def test_without_noise_only_a_synthetic_signal_is_its_own_truth() -> None:
    (problem,) = Data([Made("a", clean=True)]).problems
    assert torch.equal(problem.truth, problem.observation)
    assert not problem.true_corruption.any()
    (problem,) = Data([Made("a", clean=False)]).problems
    assert problem.truth is problem.true_corruption is None
    assert "noise" not in problem.attributes


def test_masks_of_source_and_noise_are_combined() -> None:
    (by_source,) = Data([Made("a", clean=False, hidden=True)]).problems
    assert by_source.mask.tolist() == [[False] * 4] + [[True] * 4] * 3
    assert not by_source.observation[0].any()
    (by_noise,) = Data([Made("a")], noise=MissingEntries(0.5)).problems
    assert 0 < by_noise.mask.sum() < 16
    assert torch.equal(by_noise.truth, Made("a").signal(0))
    (by_both,) = Data([Made("a", clean=False, hidden=True)], noise=MissingEntries(0.5)).problems
    assert torch.equal(by_both.mask, by_noise.mask & by_source.mask)
    assert by_both.truth is None  # a file with gaps is no truth
    assert not by_both.true_corruption[~by_both.mask].any()
    (nothing,) = Data([Made("a")], noise=MissingEntries(0.0)).problems
    assert nothing.mask is None


def test_clean_signals_are_measured_and_files_define_their_signal() -> None:
    sensing = GaussianMeasurements(3)
    (problem,) = Data([Made("a")], sensing=sensing).problems
    assert (problem.name, problem.sensing) == ("a-gaussian-3-seed0", sensing)
    assert torch.equal(problem.observation, sensing.measure(Made("a").signal(0), 0))
    with pytest.raises(ValueError, match=r"a: the shape of the signal cannot be inferred from GaussianMeasurements"):
        Data([Made("a", clean=False)], sensing=sensing)
    with pytest.raises(ValueError, match="a: a signal must be complete to be measured, got 4 missing entries"):
        Data([Made("a", hidden=True)], sensing=sensing)


def test_problems_of_one_shape_are_batched() -> None:
    data = Data([Made("a"), Made("b", (3, 5)), Made("c")], seeds=2)
    assert [batch.names for batch in data.batches] == [
        ["a-seed0", "a-seed1", "c-seed0", "c-seed1"],
        ["b-seed0", "b-seed1"],
    ]


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (99, [5]), (None, [5])])
def test_batch_size_is_a_maximum(size: int | None, lengths: list[int]) -> None:
    assert [len(batch) for batch in Data([Made("a")], seeds=5, batch_size=size).batches] == lengths


def test_masked_problems_have_separate_batches() -> None:
    data = Data([Made("a"), Made("b", clean=False, hidden=True)], noise=GrossOutliers(0.25))
    assert [(len(batch), batch.mask is None) for batch in data.batches] == [(1, True), (1, False)]


def test_setting_up_again_keeps_the_problems() -> None:
    data = Data([Made("a")], noise=GrossOutliers(0.25))
    problems, batches = data.problems, data.batches
    for stage in ("fit", "validate", "test", "predict"):
        data.setup(stage)
    assert data.problems is problems
    assert data.batches is batches


def test_loaders_name_the_problems_and_blocks_have_no_end() -> None:
    data = Data([Made("a")], seeds=3)
    names = [p.name for p in data.problems]
    assert data.val_dataloader() == data.test_dataloader() == data.predict_dataloader() == names
    before = torch.get_rng_state()
    blocks = iter(data.train_dataloader())
    assert [next(blocks) for _ in range(4)] == [0, 1, 2, 3]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"noise": []}, "noise must be at least one noise"),
        ({"seeds": 0}, "seeds must be a whole number of at least 1, got 0"),
        ({"seeds": -3}, "seeds must be a whole number of at least 1, got -3"),
        ({"seeds": True}, "seeds must be a whole number"),
        ({"seeds": []}, r"seeds must be different integers, at least one, got \[\]"),
        ({"seeds": [1, 2, 1]}, r"seeds must be different integers, at least one, got \[1, 2, 1\]"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number of at least 1, got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Data([Made("a")], **options)


def test_one_truth_for_all_or_one_each() -> None:
    files, truths = [Path("a"), Path("b"), Path("c")], [Path("x"), Path("y"), Path("z")]
    find = {"x": truths[:1], "xy": truths[:2], "z": truths[2:], "none": []}.__getitem__
    assert one_file_each("truth", files, None, find) == [None] * 3
    assert one_file_each("truth", files, "x", find) == [Path("x")] * 3
    assert one_file_each("truth", files, ["xy", "z"], find) == truths
    assert one_file_each("truth", files, ["z", "x", "z"], find) == [Path("z"), Path("x"), Path("z")]
    with pytest.raises(ValueError, match=r"truth must be one file for all, or one per file \(3\), got 2"):
        one_file_each("truth", files, "xy", find)


def test_callbacks_refuse_other_data_modules() -> None:
    with pytest.raises(TypeError, match="datamodule must be a RecoveryDataModule, got dict"):
        data_of(SimpleNamespace(datamodule={}))  # type: ignore[arg-type]
