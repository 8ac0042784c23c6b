"""DOP beside astroscrappy, on the frame of the latter's tests."""

from types import ModuleType

import numpy as np
import pytest

from dop_lightning import recover_image

pytest.importorskip("astroscrappy")

SCRIPT = "compare_astroscrappy"


@pytest.mark.slow
def test_exactly_the_rays_of_the_crops_are_found(script: ModuleType) -> None:
    frame, hit, _ = script.make_frame()
    for top, left in script.crops(hit, 128, 3):
        place = np.s_[top : top + 128, left : left + 128]
        found = recover_image(frame[place], preset="quick", width=2, iterations=1, device="cpu", progress=False)
        assert np.array_equal(found.mask, hit[place])
        assert np.array_equal(found.image[~hit[place]], frame[place][~hit[place]])


def test_scores(script: ModuleType) -> None:
    found, hit = np.array([True, True, False, False]), np.array([True, False, True, False])
    filled, truth = np.array([3.0, 9.0, 9.0, 9.0]), np.array([1.0, 0.0, 0.0, 0.0])
    assert script.scores([(found, hit, filled, truth)]) == (0.5, 0.5, 2.0, 2.0)
