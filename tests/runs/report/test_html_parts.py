"""Axes, lines and pictures of the page of ``dop report``."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.runs.histograms import corruption_histogram
from dop_lightning.runs.report.axes import Axis, fitted, linear_ticks, log_ticks
from dop_lightning.runs.report.chart import BOTTOM, MAX_POINTS, TOP, thinned
from dop_lightning.runs.report.embed import Embedded, embed
from dop_lightning.runs.report.histogram import histogram_chart


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 17), (9.98, 10.02), (0, 150000), (-1e-9, 1e-9), (5, 5.0001)])
def test_linear_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = linear_ticks(low, high)
    assert 2 <= len(ticks) <= 5
    assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


@pytest.mark.parametrize(("low", "high"), [(1e-12, 1e3), (0.5, 2e6), (0.11, 0.13), (0.02, 0.9), (3, 2000), (1e-300, 1)])
def test_log_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)


@pytest.mark.parametrize("values", [[0.0], [3.0], [-2.0, 5.0], [1e-3, 10.0], [0.0, 0.0]])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_has_room_for_all_values(values: list[float], log: bool) -> None:
    if log and min(values) <= 0:
        return
    axis = fitted(values, BOTTOM, TOP, log)
    assert all(TOP <= axis(value) <= BOTTOM for value in values)


def test_equal_ratios_are_equally_far_on_a_logarithmic_axis() -> None:
    axis = Axis(0.01, 100, 0, 100, log=True)
    assert [round(axis(value)) for value in (0.01, 0.1, 1, 10, 100)] == [0, 25, 50, 75, 100]


def test_a_long_line_keeps_its_ends_and_its_extremes() -> None:
    values = np.sin(np.linspace(0, 20, 50_001))
    values[[123, 40_000]] = -7, 9
    points = list(enumerate(values.tolist()))
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert (123, -7.0) in kept
    assert (40_000, 9.0) in kept
    assert kept == sorted(kept)
    assert thinned(points[:50]) == points[:50]


def test_a_single_entry_is_seen_in_a_histogram() -> None:
    s = np.zeros(100_000)
    s[0] = 5.0
    heights = [bottom - top for _, top, _, bottom in histogram_chart(corruption_histogram(s)).bars]
    assert len(heights) == 2
    assert heights[0] > 3 * heights[1] > 9


# ------------------------------------------------------------------------------------------------------------- pictures


def opened(embedded: Embedded) -> Image.Image:
    kind, _, data = embedded.uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"  # type: ignore[union-attr]
    assert image.size == (embedded.width, embedded.height)
    return image


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    Image.fromarray(pixels, mode).save(path)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_small_picture_is_embedded_unchanged(shape: tuple[int, ...], tmp_path: Path) -> None:
    pixels = noise(*shape)
    embedded = embed(save(tmp_path / "p.png", pixels), is_matrix=False)
    assert np.array_equal(np.asarray(opened(embedded)), pixels)
    assert (embedded.scale, embedded.sharp) == (1.0, True)
    assert (embedded.width, embedded.height) == (7, 9)


def test_a_large_image_is_averaged_and_a_large_matrix_is_thinned(tmp_path: Path) -> None:
    pixels = np.zeros((40, 300), dtype=np.uint8)
    pixels[:, ::2] = 200
    path = save(tmp_path / "p.png", pixels)
    image, matrix = embed(path, is_matrix=False, side=100), embed(path, is_matrix=True, side=300)
    assert (image.width, image.height, image.scale) == (100, 13, 3.0)
    assert 60 < np.asarray(opened(image)).mean() < 140
    assert (np.asarray(opened(matrix)) == 200).all()
    assert (matrix.width, matrix.height, matrix.sharp) == (150, 20, True)


def test_many_pixels_are_compressed(tmp_path: Path) -> None:
    path = save(tmp_path / "p.png", noise(400, 400, 3))
    image, matrix = embed(path, is_matrix=False), embed(path, is_matrix=True)
    assert (opened(image).format, image.sharp) == ("WEBP", False)
    assert (opened(matrix).mode, matrix.sharp) == ("P", True)
    assert max(len(image.uri), len(matrix.uri)) < 400 * 400 * 3 / 2


def test_16_bits_palettes_and_transparency(tmp_path: Path) -> None:
    deep = save(tmp_path / "deep.png", np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(opened(embed(deep, is_matrix=False))).tolist() == [[0, 128, 255]]
    clear = save(tmp_path / "clear.png", np.array([[[10, 20, 30, 0]]], dtype=np.uint8))
    assert np.asarray(opened(embed(clear, is_matrix=False))).tolist() == [[[10, 20, 30]]]
    Image.fromarray(noise(4, 4)).convert("P").save(tmp_path / "palette.png")
    assert opened(embed(tmp_path / "palette.png", is_matrix=False)).mode == "RGB"
    Image.new("1", (3, 2), 1).save(tmp_path / "bits.png")
    assert np.asarray(opened(embed(tmp_path / "bits.png", is_matrix=False))).tolist() == [[255] * 3] * 2


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n damaged", b"no picture"])
def test_non_pictures_are_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.png: cannot be read as a picture"):
        embed(tmp_path / "p.png", is_matrix=False)
