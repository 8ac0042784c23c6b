"""Histograms of |s|."""

from pathlib import Path

import numpy as np
import pytest

from dop_lightning.runs import histograms
from dop_lightning.runs.histograms import BINS, corruption_histogram, read_histogram, write_histogram


def test_counts_absolute_values_in_equal_bins() -> None:
    histogram = corruption_histogram(np.array([[-6.0, 0.0], [0.04, np.nan]]))
    assert np.allclose(histogram.edges, np.linspace(0, 6, BINS + 1))
    assert {place: count for place, count in enumerate(histogram.found) if count} == {0: 2, BINS - 1: 1}
    assert histogram.true is None


def test_histogram_of_zeros() -> None:
    histogram = corruption_histogram(np.zeros(5), np.zeros(5))
    assert histogram.edges[-1] == 1.0
    assert histogram.found == histogram.true == [5] + [0] * (BINS - 1)


def test_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    s, true, mask = draw.normal(size=(20, 30)), draw.normal(size=(20, 30)), draw.random((20, 30)) < 0.5
    whole = corruption_histogram(s, true, mask)
    assert sum(whole.found) == mask.sum()
    monkeypatch.setattr(histograms, "AT_ONCE", 70)
    assert corruption_histogram(s, true, mask) == whole


@pytest.mark.parametrize("true", [None, np.array([1.0, 0.0, 2.0])])
def test_round_trip(true: np.ndarray | None, tmp_path: Path) -> None:
    histogram = corruption_histogram(np.array([0.5, -3.0, 0.0]), true)
    write_histogram(tmp_path / "histogram.csv", histogram)
    read = read_histogram(tmp_path / "histogram.csv")
    assert read.edges == pytest.approx(histogram.edges)
    assert read[1:] == histogram[1:]


@pytest.mark.parametrize("text", ["", "from,to\n0,1\n", "from,to,entries\n0,1,x\n"])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "histogram.csv").write_text(text)
    with pytest.raises(ValueError, match=r"histogram\.csv: not a histogram written by dop"):
        read_histogram(tmp_path / "histogram.csv")
