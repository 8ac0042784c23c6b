"""What the plugin does with the data of a layer, without a display."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dop_lightning import recover_image
from dop_lightning.images.listener import ProgressListener, use_listener
from dop_lightning.integrations.napari.layers import layers_of, restored
from dop_lightning.integrations.napari.samples import photograph, stack
from dop_lightning.integrations.napari.worker import Finished, Job, Progress, work

OPTIONS: dict[str, Any] = {"preset": "quick", "width": 4, "iterations": 3, "device": "cpu", "precision": "fp32"}


INSTANT: dict[str, Any] = {"preset": "instant", "device": "cpu"}


def layer(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth uint8 values with salt and pepper."""
    random = np.random.default_rng(0)
    smooth = 128 + 60 * np.sin(np.indices(shape).sum(axis=0) / 4)
    return np.where(random.random(shape) < 0.15, random.choice([0, 255], shape), smooth).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "rgb", "leading", "axis", "labels"),
    [
        ((16, 18), False, "slices", None, (16, 18)),
        ((16, 18, 3), True, "slices", -1, (16, 18)),
        ((3, 16, 18), False, "channels", 0, (3, 16, 18)),
        ((2, 16, 18), False, "slices", None, (2, 16, 18)),
        ((2, 16, 18, 3), True, "slices", -1, (2, 16, 18)),
    ],
)
def test_layers_equal_the_results_of_recover_image(
    shape: tuple[int, ...], rgb: bool, leading: Any, axis: int | None, labels: tuple[int, ...]
) -> None:
    data = layer(shape)
    found = layers_of(restored(data, rgb, leading, INSTANT), data, "mine", rgb, {"scale": (2, 2)})
    own = recover_image(data, channel_axis=axis, progress=False, **INSTANT)
    (image, settings, kind), (probability, _, second), (corruption, _, third) = found
    assert (kind, second, third) == ("image", "image", "labels")
    assert np.array_equal(image, own.image)
    assert settings == {"name": "mine restored", "rgb": rgb, "scale": (2, 2)}
    assert np.array_equal(corruption, own.mask.any(-1) if rgb else own.mask)
    assert corruption.shape == probability.shape == labels
    assert set(np.unique(corruption)) == {0, 1}
    assert np.array_equal(probability, own.corruption_probability.max(-1) if rgb else own.corruption_probability)


def test_alpha_of_a_layer_is_kept() -> None:
    data = layer((16, 18, 4))
    (image, _, _), *_ = layers_of(restored(data, True, "slices", OPTIONS), data, "mine", True, {})
    assert image.shape == data.shape
    assert np.array_equal(image[..., 3], data[..., 3])
    assert np.array_equal(image[..., :3], recover_image(data[..., :3], progress=False, **OPTIONS).image)


def test_channels_require_an_axis() -> None:
    with pytest.raises(ValueError, match="the leading axis must be slices for a layer with 2 axes, got 'channels'"):
        restored(layer((16, 18)), False, "channels", OPTIONS)


def test_samples_are_corrupted_photographs() -> None:
    ((image, settings, kind),) = photograph()
    assert (image.shape, image.dtype, settings["rgb"], kind) == ((192, 192, 3), np.uint8, True, "image")
    assert 0.15 < np.isin(image, (0, 255)).mean() < 0.3
    ((frames, _, _),) = stack()
    assert (frames.shape, frames.dtype) == ((3, 96, 96), np.uint8)


def ended(generator: Iterator[Progress]) -> tuple[list[Progress], Finished]:
    """The yields of a worker, and its end."""
    seen = []
    while True:
        try:
            seen.append(next(generator))
        except StopIteration as end:
            return seen, end.value


def test_worker_reports_progress_and_returns_the_result() -> None:
    data, job = layer((16, 18)), Job()
    _, finished = ended(work(job, lambda: restored(data, False, "slices", OPTIONS)))
    assert finished.error == ""
    assert np.array_equal(finished.recovery.image, recover_image(data, progress=False, **OPTIONS).image)
    assert (job.progress.done, job.progress.total) == (3, 3)
    assert job.progress.loss is not None


def test_an_error_is_one_line() -> None:
    _, finished = ended(work(Job(), lambda: restored(np.zeros((0, 3)), False, "slices", OPTIONS)))
    assert finished.recovery is None
    assert finished.error
    assert "\n" not in finished.error


@pytest.mark.filterwarnings("ignore:interrupted after:RuntimeWarning")
def test_cancelled_job_keeps_the_current_result() -> None:
    class AfterTen(Job):
        def advance(self, done: int, scores: Any) -> None:
            super().advance(done, scores)
            if self.progress.done >= 10:
                self.cancel()

    data, many = layer((40, 40)), {**OPTIONS, "iterations": 100_000}
    _, finished = ended(work(AfterTen(), lambda: restored(data, False, "slices", many)))
    assert finished.recovery.status == "interrupted"
    assert 10 <= finished.recovery.iterations < 100_000


def test_job_cancelled_before_its_start_has_no_result() -> None:
    job = Job()
    job.cancel()
    _, finished = ended(work(job, lambda: restored(layer((16, 18)), False, "slices", OPTIONS)))
    assert finished == Finished(None)


@pytest.mark.filterwarnings("ignore:interrupted after:RuntimeWarning")
def test_abandoned_worker_stops() -> None:
    job, many = Job(), {**OPTIONS, "iterations": 100_000}
    generator = work(job, lambda: restored(layer((40, 40)), False, "slices", many))
    next(generator)
    generator.close()
    assert job.is_cancelled
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("recovery")]


def test_a_listener_is_limited_to_one_thread_and_one_block() -> None:
    class Counts(ProgressListener):
        total = done = 0

        def begin(self, total: int) -> None:
            self.total += total

        def advance(self, done: int, scores: Any) -> None:
            self.done += done

    counts, images = Counts(), [layer((16, 18)), layer((12, 12))]
    with use_listener(counts):
        recover_image(images, progress=False, **OPTIONS)
        other = threading.Thread(target=recover_image, args=(images[0],), kwargs={"progress": False, **OPTIONS})
        other.start()
        other.join()
    recover_image(images[0], progress=False, **OPTIONS)
    assert (counts.total, counts.done) == (6, 6)
