"""Pictures of images in progress, and the listener that receives them."""

from typing import Any

import numpy as np
import pytest

from dop_lightning import recover_image
from dop_lightning.images import live_pictures
from dop_lightning.images.listener import ProgressListener, use_listener
from tests.images.test_many_images import TINY, pictures


class Watcher(ProgressListener):
    """Keeps the pictures."""

    wants_pictures = True

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def show(self, picture: np.ndarray) -> None:
        self.shown.append(picture)


@pytest.fixture(autouse=True)
def _every_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_pictures, "MIN_INTERVAL", 0.0)


@pytest.mark.parametrize("options", [{}, {"tile": 16}], ids=["whole", "tiles"])
def test_last_picture_is_the_result_and_pictures_do_not_change_it(options: dict[str, Any]) -> None:
    image = pictures(1, 24, 28)[0]
    settings = {**TINY, "iterations": 25, **options}
    alone = recover_image(image, **settings)
    watcher = Watcher()
    with use_listener(watcher):
        watched = recover_image(image, **settings)
    assert np.array_equal(alone.image, watched.image)
    assert alone.history == watched.history
    assert len(watcher.shown) >= 2
    assert np.abs(watcher.shown[-1].astype(int) - watched.image).max() <= 1


def test_each_image_of_a_list_is_shown() -> None:
    watcher = Watcher()
    with use_listener(watcher):
        recover_image([pictures(1)[0], pictures(1, 12, 12, 1)[0, ..., 0]], **TINY)
    assert {picture.shape for picture in watcher.shown} == {(16, 20, 3), (12, 12)}
