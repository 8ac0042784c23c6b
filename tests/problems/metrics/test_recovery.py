"""The torchmetrics classes: means over problems, batches and processes."""

import math
import pickle

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from dop_lightning.problems.metrics import (
    CorruptionDensity,
    NumericalRank,
    RelativeError,
    corruption_density,
    numerical_rank,
    relative_error,
)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class MetricSuite:
    """What holds for every mean of a score."""

    def metric(self, **kwargs: object) -> Metric:
        raise NotImplementedError

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        raise NotImplementedError

    preds, target = rand(5, 6, 4), rand(5, 6, 4, seed=1)

    def expected(self) -> Tensor:
        return self.scores(self.preds, self.target).mean().float()

    def test_mean_over_problems_does_not_depend_on_batching(self) -> None:
        metric = self.metric()
        for part in ([0], [1, 2, 3], [4]):
            metric.update(self.preds[part], self.target[part])
        torch.testing.assert_close(metric.compute(), self.expected())
        metric.reset()
        metric.update(self.preds[:2], self.target[:2])
        torch.testing.assert_close(metric.compute(), self.scores(self.preds[:2], self.target[:2]).mean().float())

    def test_forward_gives_the_batch_and_keeps_the_mean(self) -> None:
        metric = self.metric()
        metric(self.preds[:3], self.target[:3])
        last = metric(self.preds[3:], self.target[3:])
        torch.testing.assert_close(last, self.scores(self.preds[3:], self.target[3:]).mean().float())
        torch.testing.assert_close(metric.compute(), self.expected())

    def test_merges(self) -> None:
        one, other = self.metric(), self.metric()
        one.update(self.preds[:1], self.target[:1])
        other.update(self.preds[1:], self.target[1:])
        one.merge_state(other)
        torch.testing.assert_close(one.compute(), self.expected())

    def test_reduces_over_processes(self) -> None:
        """A process that saw one problem, beside one that saw four."""
        other = self.metric()
        other.update(self.preds[1:], self.target[1:])
        names = iter(other._defaults)

        def gather(state: Tensor, group: object) -> list[Tensor]:
            return [state, getattr(other, next(names))]

        metric = self.metric(distributed_available_fn=lambda: True, dist_sync_fn=gather)
        metric.update(self.preds[:1], self.target[:1])
        torch.testing.assert_close(metric.compute(), self.expected())

    def test_failed_problem_is_not_omitted(self) -> None:
        preds = self.preds.clone()
        preds[2, 0, 0] = math.nan
        metric = self.metric()
        metric.update(preds, self.target)
        assert metric.compute().isnan()

    def test_pickles(self) -> None:
        metric = self.metric()
        metric.update(self.preds, self.target)
        torch.testing.assert_close(pickle.loads(pickle.dumps(metric)).compute(), self.expected())

    def test_describes_itself(self) -> None:
        metric = self.metric()
        assert metric.full_state_update is False
        assert metric.is_differentiable is False
        assert metric.plot_lower_bound == 0

    def test_plots(self) -> None:
        plt = pytest.importorskip("matplotlib.pyplot")
        plt.switch_backend("agg")
        metric = self.metric()
        metric.update(self.preds, self.target)
        figure, _ = metric.plot()
        plt.close(figure)


class TestRelativeError(MetricSuite):
    def metric(self, **kwargs: object) -> Metric:
        return RelativeError(**kwargs)

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        return relative_error(preds, target)

    def test_lower_is_better(self) -> None:
        assert RelativeError.higher_is_better is False


class TestCorruptionDensity(MetricSuite):
    def metric(self, **kwargs: object) -> Metric:
        return CorruptionDensity(0.5, **kwargs)

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        return corruption_density(preds, 0.5)

    def test_accepts_a_mask(self) -> None:
        mask = self.target > 0
        metric = CorruptionDensity(0.5)
        metric.update(self.preds, mask=mask)
        torch.testing.assert_close(metric.compute(), corruption_density(self.preds, 0.5, mask).mean().float())

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match="threshold"):
            CorruptionDensity(-1.0)


class TestNumericalRank(MetricSuite):
    def metric(self, **kwargs: object) -> Metric:
        return NumericalRank(0.4, **kwargs)

    def scores(self, preds: Tensor, target: Tensor) -> Tensor:
        return numerical_rank(preds, 0.4)

    def test_refuses(self) -> None:
        with pytest.raises(ValueError, match="tolerance"):
            NumericalRank(1.5)


def test_collection_gives_each_metric_its_arguments() -> None:
    metrics = MetricCollection(
        {
            "error": RelativeError(),
            "rank": NumericalRank(),
            "coarse_rank": NumericalRank(0.9),
            "dense": CorruptionDensity(0.0),
            "gross": CorruptionDensity(10.0),
        }
    )
    zero, truth = torch.zeros(1, 3, 3), torch.diag(torch.tensor([4.0, 2.0, 1.0]))[None]
    metrics.update(truth, truth)  # error 0 and gross density 0
    metrics.update(zero, truth)  # both ranks and both densities 0
    metrics.update(100 * truth, truth)
    values = {name: value.item() for name, value in metrics.compute().items()}
    assert values == pytest.approx(
        {"error": (0 + 1 + 99) / 3, "rank": 2.0, "coarse_rank": 2 / 3, "dense": 2 / 9, "gross": 1 / 9}
    )


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ({"low": CorruptionDensity(0.0), "high": CorruptionDensity(10.0)}, {"low": 1 / 6, "high": 0.0}),
        ({"low": NumericalRank(), "high": NumericalRank(0.9)}, {"low": 1.5, "high": 0.5}),
    ],
)
def test_two_settings_are_distinguished_despite_equal_first_scores(
    pair: dict[str, Metric], expected: dict[str, float]
) -> None:
    metrics = MetricCollection(dict(pair))
    truth = torch.diag(torch.tensor([4.0, 2.0, 1.0]))[None]
    metrics.update(torch.zeros_like(truth), truth)
    metrics.update(truth, truth)
    assert {name: value.item() for name, value in metrics.compute().items()} == pytest.approx(expected)


def test_collection_passes_keywords_to_metrics_that_accept_them() -> None:
    metrics = MetricCollection({"error": RelativeError(), "density": CorruptionDensity(0.5)})
    preds = torch.tensor([[1.0, 0.0]])
    metrics.update(preds=preds, target=preds, mask=torch.tensor([[True, False]]))
    assert {name: value.item() for name, value in metrics.compute().items()} == {"error": 0.0, "density": 1.0}
