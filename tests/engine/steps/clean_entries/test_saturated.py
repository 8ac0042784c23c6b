"""Black or white areas of the clean image under salt and pepper."""

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries.support import first_support
from dop_lightning.problems.noise import SaltAndPepper


def half_black() -> Tensor:
    """Black beside a bright texture, with a dark one at a part of the border."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(1, 96, 96)
    image[:, :, 48:] = 0.7 + 0.05 * torch.rand(1, 96, 48, generator=generator)
    image[:, :40, 40:48] = 0.3 * torch.rand(1, 40, 8, generator=generator)
    return (image * 255).round() / 255


@pytest.mark.parametrize("white", [False, True])
@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.15])
def test_saturated_area_is_not_rejected(white: bool, ratio: float) -> None:
    truth = 1 - half_black() if white else half_black()
    y = SaltAndPepper(ratio).corrupt(truth, torch.Generator().manual_seed(1)).observation
    clean = first_support(y).clean
    area = (y == truth) & (truth == float(white))
    assert float((clean[area] < 0.5).double().mean()) < 0.05
    assert float((clean[y != truth] > 0.5).double().mean()) < 0.05
