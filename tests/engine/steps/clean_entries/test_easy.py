"""Images that the interpolation restores alone."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries.easy import is_easy


@pytest.mark.parametrize(
    ("share", "error", "beside", "expected"),
    [(0.01, 0.01, False, True), (0.01, 0.05, False, False), (0.05, 0.01, False, False), (0.01, 0.01, True, False)],
)
def test_easy_images_have_few_independent_outliers_and_small_errors(
    share: float, error: float, beside: bool, expected: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(3, 96, 96, generator=generator)
    clean = (torch.rand(y.shape, generator=generator) >= share).float()
    if beside:  # highlights of four pixels
        clean = 1 - torch.nn.functional.max_pool2d((torch.rand(y.shape, generator=generator) < share / 4).float(), 2, 1)
        y = y[:, 1:, 1:]
    held_out = torch.rand(y.shape, generator=generator) < 0.05
    assert is_easy(y, clean, y + error, held_out) is expected
    assert is_easy(255 * y, clean, 255 * (y + error), held_out, scale=255.0) is expected


def test_no_image_is_easy_without_outliers_or_held_out_entries() -> None:
    y = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    clean, nowhere = torch.ones_like(y), torch.zeros_like(y, dtype=torch.bool)
    assert not is_easy(y, clean, y, ~nowhere)
    clean[0, 5, 5] = 0
    assert not is_easy(y, clean, y, nowhere)
