"""recover_image of lists, stacks and volumes, masked and labelled arrays: the results are those of single images."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dop_lightning import recover_image
from dop_lightning.images.layout import layout_of
from dop_lightning.images.stack_recovery import StackRecovery

TINY: dict[str, Any] = {
    "preset": "quick",
    "width": 4,
    "iterations": 3,
    "device": "cpu",
    "precision": "fp32",
    "progress": False,
}


def pictures(count: int = 3, height: int = 16, width: int = 20, channels: int = 3) -> np.ndarray:
    """N×H×W×C, smooth, with 20 % salt and pepper."""
    rng = np.random.default_rng(0)
    k, rows, columns, c = np.mgrid[:count, :height, :width, :channels]
    smooth = (128 + 90 * np.sin(0.2 * (c + 1) * rows + 0.15 * columns + k)).round()
    return np.where(rng.random(smooth.shape) < 0.2, rng.choice([0, 255], smooth.shape), smooth).astype(np.uint8)


@pytest.fixture(scope="module")
def alone() -> list[Any]:
    """Each of three images separately."""
    return [recover_image(image, **TINY) for image in pictures()]


# --------------------------------------------------------------------------------------------------------------- lists


def test_list_gives_a_list_of_recoveries(alone: list[Any]) -> None:
    found = recover_image(list(pictures()), **TINY)
    assert isinstance(found, list)
    for one, other in zip(found, alone, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.corruption_probability, other.corruption_probability)
        assert one.history == other.history


def test_images_of_a_list_may_differ_in_kind_size_and_mask(alone: list[Any]) -> None:
    images = pictures()
    known = np.ones((16, 20), dtype=bool)
    known[4:6] = False
    found = recover_image([Image.fromarray(images[0]), images[1, :12, :, 0]], mask=[known, None], **TINY)
    assert found[0].image.size == (20, 16)
    assert found[1].image.shape == (12, 20)
    assert np.array_equal(found[0].image, recover_image(images[0], mask=known, **TINY).image)
    with pytest.raises(ValueError, match="mask must have one entry per image, 2, got 1"):
        recover_image([images[0], images[1]], mask=[known], **TINY)
    with pytest.raises(ValueError, match=r"image\[1\] must be a single image, got shape \(3, 16, 20, 3\)"):
        recover_image([images[0], images], **TINY)
    assert recover_image([], **TINY) == []


# -------------------------------------------------------------------------------------------------------------- stacks


def test_a_batch_is_recovered_image_by_image(alone: list[Any]) -> None:
    found = recover_image(pictures(), **TINY)
    assert isinstance(found, StackRecovery)
    assert (found.image.shape, found.image.dtype) == ((3, 16, 20, 3), np.uint8)
    for k, one in enumerate(alone):
        for name in ("image", "corruption", "corruption_probability", "mask"):
            mine, own = getattr(found, name), getattr(one, name)
            assert mine is own is None or np.array_equal(mine[k], own), name
        assert found.histories[k,] == one.history
    assert found.statuses.tolist() == [one.status for one in alone]
    assert found.iterations.tolist() == [3, 3, 3]
    assert "3 images, done in" in repr(found)


def test_probabilities_of_a_batch() -> None:
    found = recover_image(pictures(), progress=False, **INSTANT)
    for k, image in enumerate(pictures()):
        own = recover_image(image, progress=False, **INSTANT).corruption_probability
        assert np.array_equal(found.corruption_probability[k], own)


@pytest.mark.parametrize("axis", [1, 2, -4, 0])
def test_channels_on_any_axis(axis: int, alone: list[Any]) -> None:
    stack = np.moveaxis(pictures(), 3, axis)
    found = recover_image(stack, channel_axis=axis, **TINY)
    assert np.array_equal(np.moveaxis(found.image, axis, 3), np.stack([one.image for one in alone]))


def test_batch_of_tensors_stays_a_batch(alone: list[Any]) -> None:
    batch = torch.from_numpy(pictures()).permute(0, 3, 1, 2)
    found = recover_image(batch, **TINY)
    assert isinstance(found.image, torch.Tensor)
    assert found.image.dtype == torch.uint8
    for k, one in enumerate(alone):
        assert np.array_equal(found.image[k].permute(1, 2, 0), one.image)


def test_slices_of_a_volume() -> None:
    volume = pictures(channels=1)[..., 0]
    found = recover_image(volume, channel_axis=None, **TINY)
    assert found.image.shape == volume.shape
    for k in range(3):
        assert np.array_equal(found.image[k], recover_image(volume[k], **TINY).image)
    series = recover_image(np.stack([volume, volume]), channel_axis=None, **TINY)
    assert series.statuses.shape == (2, 3)
    assert np.array_equal(series.image[1], found.image)


def test_an_explicit_axis_of_one_image() -> None:
    image = pictures()[0]
    found = recover_image(np.moveaxis(image, 2, 1), channel_axis=1, **TINY)
    assert np.array_equal(np.moveaxis(found.image, 1, 2), recover_image(image, **TINY).image)


@pytest.mark.parametrize("shape", ["whole", "pixels", "one"])
def test_masks_of_stacks(shape: str) -> None:
    stack = pictures(2)
    missing = np.zeros(stack.shape, dtype=bool)
    missing[:, 3:5] = True
    told = {"whole": missing, "pixels": missing[..., 0], "one": missing[0, ..., 0]}[shape]
    found = recover_image(stack, missing=told, **TINY)
    for k in range(2):
        assert np.array_equal(found.image[k], recover_image(stack[k], mask=~missing[k], **TINY).image)
    with pytest.raises(ValueError, match=r"missing must have one of the shapes \(2, 16, 20, 3\), .* got \(4, 4\)"):
        recover_image(stack, missing=np.zeros((4, 4)), **TINY)


def test_ambiguous_shapes_require_an_axis() -> None:
    with pytest.raises(ValueError, match="channel_axis must be specified for shape"):
        recover_image(np.zeros((2, 3, 16, 20)), **TINY)
    with pytest.raises(ValueError, match=r"must be 'auto', None or an axis of shape \(3, 16, 20, 3\), got 4"):
        recover_image(pictures(), channel_axis=4, **TINY)
    with pytest.raises(ValueError, match="names are for xarray"):
        recover_image(pictures(), channel_axis="band", **TINY)
    with pytest.raises(ValueError, match="must be 'auto' for str"):
        recover_image("coffee", channel_axis=0, **TINY)
    with pytest.raises(ValueError, match="must be None for an image of shape"):
        layout_of((8, 8), 0)
    with pytest.raises(ValueError, match="truth must have the shape of the stack"):
        recover_image(pictures(), truth=pictures()[0], **TINY)


def test_stopping_keeps_finished_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from dop_lightning.images import stacks

    stack, calls = pictures(), []
    monkeypatch.setattr(stacks, "AT_ONCE", 1)

    def restore(asked: Any, *rest: Any, before: Any = stacks.restore) -> Any:
        calls.append(len(asked))
        return before(asked, *rest) if len(calls) == 1 else [None] * len(asked)

    monkeypatch.setattr(stacks, "restore", restore)
    with pytest.warns(RuntimeWarning, match="interrupted: 2 of 3 images were not finished"):
        found = recover_image(stack, **TINY)
    assert found.status == "interrupted"
    assert found.statuses.tolist() == ["done", "interrupted", "interrupted"]
    assert np.array_equal(found.image[1:], stack[1:])
    assert (found.corruption[1:] == 0).all()


# ---------------------------------------------------------------------------------------------------------- containers


def test_missing_is_the_opposite_of_mask() -> None:
    image = pictures()[0]
    missing = np.zeros((16, 20), dtype=np.uint8)
    missing[2:4] = 255
    one = recover_image(image, missing=missing, **TINY)
    two = recover_image(image, mask=missing == 0, **TINY)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(recover_image(image, missing=missing * 0, **TINY).image, recover_image(image, **TINY).image)
    with pytest.raises(ValueError, match="must be above 0 where the image is observed"):
        recover_image(image, missing=np.ones((16, 20), dtype=bool), **TINY)


def test_masked_arrays_are_filled_in() -> None:
    image = pictures()[0]
    missing = np.zeros(image.shape, dtype=bool)
    missing[2:4] = True
    found = recover_image(np.ma.array(image, mask=missing, fill_value=7), **TINY)
    assert isinstance(found.image, np.ma.MaskedArray)
    assert not found.image.mask.any()
    assert found.image.fill_value == 7
    assert np.array_equal(found.image.data, recover_image(image, missing=missing, **TINY).image)
    more = np.zeros(image.shape, dtype=bool)
    more[8:9] = True
    both = recover_image(np.ma.array(image, mask=missing), missing=more, **TINY)
    assert np.array_equal(both.image.data, recover_image(image, missing=missing | more, **TINY).image)


def test_arrays_of_xarray_keep_labels() -> None:
    xr = pytest.importorskip("xarray")
    image = pictures()[0]
    given = xr.DataArray(
        image.transpose(1, 2, 0),  # x, band, y
        dims=("x", "band", "y"),
        coords={"x": np.arange(20) * 10.0, "y": np.arange(16), "band": ["r", "g", "b"]},
        attrs={"units": "DN"},
        name="scene",
    )
    found = recover_image(given, **TINY)
    for array in (found.image, found.corruption):
        assert array.dims == given.dims
        assert array.attrs == {"units": "DN"}
        xr.testing.assert_equal(array.coords.to_dataset(), given.coords.to_dataset())
    assert found.image.name == "scene"
    assert found.mask.attrs == {}
    assert np.array_equal(found.image.transpose("y", "x", "band").values, recover_image(image, **TINY).image)


def test_a_series_of_xarray_is_a_stack() -> None:
    xr = pytest.importorskip("xarray")
    series = pictures(2)[..., 0]
    given = xr.DataArray(np.moveaxis(series, 0, 2), dims=("lat", "lon", "time"))
    found = recover_image(given, **TINY)
    assert found.image.dims == ("lat", "lon", "time")
    for k in range(2):
        assert np.array_equal(found.image.isel(time=k).values, recover_image(series[k], **TINY).image)
    with pytest.raises(ValueError, match="channel_axis must be one of the dimensions lat, lon, time, got 'band'"):
        recover_image(given, channel_axis="band", **TINY)


# -------------------------------------------------------------------------------------------------------------- chunks

INSTANT: dict[str, Any] = {"preset": "instant", "device": "cpu"}


def scene(dtype: Any = np.uint8) -> np.ndarray:
    """(2, 70, 90), 10 % salt and pepper."""
    stack = pictures(2, 70, 90, 1)[..., 0]
    return stack if dtype == np.uint8 else (stack / 255).astype(dtype)


def same(found: Any, given: np.ndarray) -> None:
    """As the whole image is recovered, but for filled entries that depend on what is beyond the overlap."""
    for k, image in enumerate(given):
        whole = recover_image(image, progress=False, **INSTANT)
        assert np.array_equal(np.asarray(found.mask[k]), whole.mask)
        assert np.abs(np.asarray(found.image[k], dtype=float) - whole.image).max() <= 0.02 * float(given.max())


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_dask_chunks_are_recovered_on_compute(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    da = pytest.importorskip("dask.array")
    given = scene(dtype)
    lazy = da.from_array(given, chunks=(1, 40, 90))
    found = recover_image(lazy, channel_axis=None, **INSTANT)
    assert isinstance(found.image, da.Array)
    assert (found.image.shape, found.image.dtype, found.image.chunks) == (lazy.shape, lazy.dtype, lazy.chunks)
    monkeypatch.setattr("dask.config.config", {**__import__("dask").config.config, "scheduler": "synchronous"})
    image, mask = __import__("dask").compute(found.image, found.mask)
    assert image.dtype == dtype
    same(replace(found, image=image, mask=mask), given)
    with pytest.raises(ValueError, match=r"missing must have the shape of the image, \(2, 70, 90\), got \(70, 90\)"):
        recover_image(lazy, channel_axis=None, missing=np.zeros((70, 90)), **INSTANT)
    with pytest.raises(ValueError, match="truth must be None"):
        recover_image(lazy, channel_axis=None, truth=given, **INSTANT)


def test_zarr_chunks_stay_zarr() -> None:
    zarr = pytest.importorskip("zarr")
    given = scene()
    stored = zarr.create_array(store={}, shape=given.shape, chunks=(1, 40, 90), dtype=given.dtype)
    stored[:] = given
    stored.attrs["units"] = "DN"
    found = recover_image(stored, channel_axis=None, **INSTANT)
    assert isinstance(found.image, zarr.Array)
    assert found.image.chunks == stored.chunks
    assert found.image.attrs["units"] == "DN"
    same(found, given)


def test_a_lazy_array_of_xarray_stays_lazy() -> None:
    xr, da = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    given = xr.DataArray(da.from_array(scene(), chunks=(1, 70, 90)), dims=("time", "y", "x"), attrs={"a": 1})
    found = recover_image(given, **INSTANT)
    assert found.image.chunks is not None
    assert found.image.attrs == {"a": 1}
    same(replace(found, image=found.image.values, mask=found.mask.values), scene())
