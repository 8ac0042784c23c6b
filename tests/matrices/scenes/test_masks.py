"""Masks of what moves: evidence, connected components, and their support in space and time."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from dop_lightning.matrices.scenes.components import Runs
from dop_lightning.matrices.scenes.masks import candidates, connected_masks, evidence


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 0.9, 1.0])
def test_components_equal_scipy(share: float) -> None:
    masks = np.random.default_rng(0).random((3, 17, 23)) < share
    runs = Runs.of(masks)
    numbers = runs.components()
    np.testing.assert_array_equal(runs.mask(np.ones(len(numbers), dtype=bool)), masks)
    assert runs.totals(masks).tolist() == (runs.end - runs.start).tolist()
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        own = np.unique(numbers[runs.frame == index])
        found = {runs.mask(numbers == number)[index].tobytes() for number in own}
        assert found == {(labels == number).tobytes() for number in range(1, count + 1)}
    one, other = runs.touching()
    both = sum(runs.mask(np.arange(len(numbers)) == k).any(axis=0) for k in (*one[:1], *other[:1]))
    assert np.max(both, initial=0) == (2 if len(one) else 0)
    assert bool(len(one)) == bool((masks[1:] & masks[:-1]).any())


def test_evidence_counts_the_noise_of_each_entry() -> None:
    residuals = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1).expand(2, 2, 4, 5)
    z = evidence(residuals, torch.tensor([1.0, 2.0]).view(2, 1, 1).expand(2, 4, 5))
    torch.testing.assert_close(z, torch.full((2, 4, 5), (13 / 2) ** 0.5))


def test_single_pixels_are_noise_and_blocks_are_not() -> None:
    z = torch.zeros(1, 120, 130)
    z[0, 10, 10] = 50
    z[0, 40:50, 60:70] = 4
    z[0, 45, 65] = 8
    weak, strong = candidates(z)
    assert not weak[0, :30].any()
    assert weak[0, 42:48, 62:68].all()
    assert strong.nonzero().tolist() == [[0, 45, 65]]


def test_objects_in_a_single_frame_must_be_large() -> None:
    weak = torch.zeros(4, 200, 200, dtype=torch.bool)
    weak[1, 10:14, 10:14] = True  # 16 pixels of 40000, in one frame
    weak[1:3, 50:54, 50:54] = True  # in two frames
    weak[2, 100:110, 100:110] = True  # 100 pixels
    weak[0:4, 150:160, 150:160] = True  # without strong evidence
    weak[3, 180:182, 180:184] = weak[2, 180:182, 180:184] = True  # 8 pixels
    strong = weak.clone()
    strong[:, 150:160, 150:160] = False
    expected = torch.zeros_like(weak)
    expected[1:3, 50:54, 50:54] = expected[2, 100:110, 100:110] = True
    assert torch.equal(connected_masks(weak, strong), expected)


def test_scene_without_motion_has_no_mask() -> None:
    nothing = torch.zeros(3, 8, 9, dtype=torch.bool)
    assert not connected_masks(nothing, nothing).any()
