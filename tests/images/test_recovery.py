"""What a recovery shows of itself: a line, a picture, a plot, a file."""

import base64
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dop_lightning import Recovery, recover_image
from dop_lightning.images.recovery import SHOWN_WIDTH

TINY: dict[str, Any] = {"preset": "quick", "width": 2, "iterations": 2, "device": "cpu", "precision": "fp32"}
GIVEN = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def recovery() -> Recovery:
    return recover_image(GIVEN, **TINY)


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from matplotlib import pyplot as plt

    backend = plt.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def test_repr_is_one_line(recovery: Recovery) -> None:
    assert repr(recovery).startswith("Recovery(ndarray of 20×16 with 3 channels, done after 2 iterations in ")
    assert repr(recovery).endswith(" of the values corrupted)")
    assert len(repr(recovery)) < 150


def test_notebooks_show_a_picture_and_the_main_numbers(recovery: Recovery) -> None:
    html = recovery._repr_html_()
    (encoded,) = re.findall(r'<img alt="[^"]+" src="data:image/png;base64,([^"]+)">', html)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.format == "PNG"
        assert image.width > 3 * image.height / 2
        assert max(image.size) <= SHOWN_WIDTH
    numbers = dict(re.findall("<tr><th>([^<]+)</th><td>([^<]+)</td></tr>", html))
    assert list(numbers) == ["size", "status", "time", "corrupted"]
    assert numbers["size"] == "20×16, 3 channels"
    assert numbers["status"] == "done after 2 iterations"
    assert numbers["corrupted"] == f"{recovery.mask.mean():.1%} of the values"
    scored = recover_image(GIVEN, truth=GIVEN, **TINY)
    assert f"<th>PSNR</th><td>{scored.history['psnr'][-1]:.2f} dB</td>" in scored._repr_html_()


def test_recovery_is_immutable(recovery: Recovery) -> None:
    with pytest.raises(AttributeError):
        recovery.status = "done"  # type: ignore[misc]


def test_a_plot_has_before_after_corruption_and_curve(recovery: Recovery) -> None:
    figure = recovery.plot()
    assert [axis.get_title() for axis in figure.axes] == ["before", "after", "corruption", "loss"]
    assert (np.asarray(figure.axes[0].images[0].get_array()) == GIVEN).all()
    assert (np.asarray(figure.axes[1].images[0].get_array()) == recovery.image).all()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    assert buffer.getvalue()


def test_plot_uses_given_axes_and_shows_psnr_if_known() -> None:
    from matplotlib import pyplot as plt

    scored = recover_image(GIVEN, truth=GIVEN, **TINY)
    figure, axes = plt.subplots(2, 2)
    assert scored.plot(axes.ravel()) is figure
    line = axes[1, 1].lines[0]
    assert axes[1, 1].get_title() == "PSNR in dB"
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([2], scored.history["psnr"])
    with pytest.raises(ValueError, match=r"^axes must contain 4 axes \(before, after, corruption, curve\), got 2$"):
        scored.plot(axes[0])


def test_a_missing_matplotlib_is_named(recovery: Recovery, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r'^plot requires matplotlib: pip install "dop_lightning\[figures\]"$'):
            recovery.plot()


def test_an_image_from_a_file_is_saved_like_it(tmp_path: Path) -> None:
    given = Image.fromarray(GIVEN).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    given.save(tmp_path / "a.png", dpi=(300, 300))
    recovery = recover_image(tmp_path / "a.png", **TINY)
    recovery.save(tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "P"
        assert (np.array(image.convert("RGB")) == recovery.image).all()
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    with pytest.raises(ValueError, match=r"the image is written as \.png, got suffix '\.jpg'$"):
        recovery.save(tmp_path / "b.jpg")


def test_in_memory_image_cannot_be_saved(recovery: Recovery, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^save supports only images that were read from a file, got ndarray; save \.image"
    ):
        recovery.save(tmp_path / "a.png")
