"""``recover_image(..., undamaged=...)``: values that are known to be undamaged are returned unchanged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dop_lightning import recover_image

INSTANT: dict[str, Any] = {"preset": "instant", "device": "cpu"}


@pytest.fixture
def given() -> np.ndarray:
    """A photograph with white pixels."""
    pixels = np.fromfunction(lambda i, j, k: 80 + i + j + 5 * k, (40, 40, 3)).astype(np.uint8)
    pixels[np.random.default_rng(0).random((40, 40)) < 0.05] = 255
    pixels[5, 5], pixels[30, 30] = 255, 0
    return pixels


@pytest.fixture
def known() -> np.ndarray:
    """Mask of the values that are known to be undamaged."""
    where = np.zeros((40, 40), dtype=bool)
    where[4:10, 4:10] = True
    return where


def test_equals_dop_recover(given: np.ndarray, known: np.ndarray, tmp_path: Path, dop: Callable[..., Any]) -> None:
    Image.fromarray(given).save(tmp_path / "photo.png")
    Image.fromarray(known).save(tmp_path / "known.png")
    words = ["--preset", "instant", "--device", "cpu", "--undamaged", f"{tmp_path}/known.png"]
    assert dop("recover", f"{tmp_path}/photo.png", "--out", f"{tmp_path}/run", *words).status == 0
    expected = np.asarray(Image.open(tmp_path / "run/photo/recovered.png"))
    for undamaged in (known, known[..., None], 7.0 * known, tmp_path / "known.png"):
        found = recover_image(given, undamaged=undamaged, **INSTANT)
        assert np.array_equal(found.image, expected)
        assert np.array_equal(found.image[known], given[known])
        assert not found.mask[known].any()
    assert expected[30, 30].min() > 100
    assert recover_image(given, **INSTANT).image[5, 5].max() < 200


def test_missing_values_are_filled_as_usual(given: np.ndarray, known: np.ndarray) -> None:
    hole = np.zeros_like(known)
    hole[5, 5] = True
    found = recover_image(given, missing=hole, undamaged=known, **INSTANT).image
    assert found[5, 5].max() < 200
    assert np.array_equal(found[known & ~hole], given[known & ~hole])


def test_images_of_a_stack_or_list_have_separate_flags(given: np.ndarray, known: np.ndarray) -> None:
    stack, nothing = np.stack([given, given]), np.zeros_like(known)
    told, plain = (recover_image(given, undamaged=each, **INSTANT).image for each in (known, nothing))
    assert np.array_equal(plain, recover_image(given, **INSTANT).image)
    found = recover_image(stack, undamaged=np.stack([known, nothing]), **INSTANT).image
    assert np.array_equal(found, np.stack([told, plain]))
    assert np.array_equal(recover_image(stack, undamaged=known, **INSTANT).image, np.stack([told, told]))
    listed = recover_image([given, given], undamaged=[known, None], **INSTANT)
    assert all(np.array_equal(one.image, image) for one, image in zip(listed, (told, plain), strict=True))


def test_chunks_have_their_part_of_the_flags(given: np.ndarray, known: np.ndarray) -> None:
    zarr = pytest.importorskip("zarr")
    chunks = zarr.create_array(store={}, shape=given.shape, chunks=(40, 20, 3), dtype=given.dtype)
    chunks[...] = given
    undamaged = np.repeat(known[..., None], 3, axis=2)
    found = recover_image(chunks, undamaged=undamaged, channel_axis=2, **INSTANT).image[...]
    assert np.array_equal(found[known], given[known])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper"}, "undamaged must be None with the preset paper, which does not use it; got one"),
        ({"undamaged": np.ones((3, 3))}, "undamaged: the mask must have the size of the image, 40×40, got 3×3"),
        ({"undamaged": np.zeros((3, 3))}, "undamaged: the mask must have the size of the image, 40×40, got 3×3"),
    ],
)
def test_mismatched_shapes_are_refused(
    options: dict[str, Any], message: str, given: np.ndarray, known: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        recover_image(given, **{"undamaged": known, **INSTANT, **options})
