"""The background of all pixels and frames, out of some."""

import numpy as np
import pytest
import torch

from dop_lightning.matrices.scenes.background import background_of, median_frame
from tests.matrices.scenes.builders import scene


@pytest.mark.parametrize("some", [False, True])
def test_a_background_of_rank_one_is_found_from_some_pixels_and_frames(some: bool) -> None:
    frames, backgrounds = (values.reshape(60, -1) for values in scene())
    looked_at = frames[::2]
    median = median_frame(looked_at, 255.0)
    np.testing.assert_allclose(median.numpy(), np.median(looked_at, axis=0) / 255, atol=1e-6)
    pixels = torch.arange(0, frames.shape[1], 5) if some else None
    clean = torch.from_numpy(backgrounds[::2].T / np.float32(255)).float() - median[:, None]
    low_rank = clean if pixels is None else clean[pixels]
    background = background_of(looked_at, 255.0, median, low_rank, 50.0, pixels)
    assert background.rank in (1, 2)  # the lamp, and a little of what the median makes of it
    found = background.of(torch.from_numpy(frames / np.float32(255)).float()) * 255  # frames not looked at among them
    wrong = (found - torch.from_numpy(backgrounds)).abs().flatten()
    assert float(wrong.mean()) < 1.2
    assert float((wrong > 6).double().mean()) < 0.06


def test_a_background_that_does_not_change_is_the_median() -> None:
    frames = scene()[0].reshape(60, -1)
    median = median_frame(frames, 255.0)
    background = background_of(frames, 255.0, median, torch.zeros(frames.shape[1], 60), 50.0, None)
    assert background.rank == 0
    torch.testing.assert_close(background.of(torch.rand(2, frames.shape[1])), median.expand(2, -1))


def test_parts_do_not_change_results(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = scene()[0].reshape(60, -1)
    whole = median_frame(frames, 255.0)
    monkeypatch.setattr("dop_lightning.matrices.scenes.background.AT_ONCE", 60 * 7)
    torch.testing.assert_close(median_frame(frames, 255.0), whole)
