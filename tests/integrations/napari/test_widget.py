"""The plugin in napari: found by its manifest, and restoring sample data on a display."""

import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of napari and pydantic
    napari = pytest.importorskip("napari", exc_type=ImportError)
    npe2 = pytest.importorskip("npe2")
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    pytest.skip("napari needs a display, such as that of xvfb-run", allow_module_level=True)

from dop_lightning import recover_image

pytestmark = [
    pytest.mark.filterwarnings("default"),  # those of napari, Qt and OpenGL
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def viewer() -> Iterator[Any]:
    shown = napari.Viewer(show=True)
    yield shown
    shown.close()


@pytest.fixture
def widget(viewer: Any) -> Iterator[Any]:
    viewer.layers.clear()
    viewer.open_sample("dop_lightning", "photograph")
    viewer.layers[0].data = viewer.layers[0].data[:48, :56]
    dock, made = viewer.window.add_plugin_dock_widget("dop_lightning", "Restore image")
    made.reset_choices()
    yield made
    made.cancel.changed.emit(True)
    wait(made, viewer)
    viewer.window.remove_dock_widget(dock)


def wait(widget: Any, viewer: Any, until: Any = None, seconds: float = 120) -> None:
    """Let Qt work until the widget has ended."""
    from qtpy.QtCore import QDeadlineTimer
    from qtpy.QtWidgets import QApplication

    deadline = QDeadlineTimer(int(1000 * seconds))
    until = until or (lambda: not widget.is_working)
    while not until():
        assert not deadline.hasExpired(), widget.said.value
        QApplication.processEvents()


def test_the_plugin_is_listed() -> None:
    manager = npe2.PluginManager()
    manager.discover()
    manifest = manager.get_manifest("dop_lightning")
    assert isinstance(manifest, npe2.PluginManifest)
    assert [w.display_name for w in manifest.contributions.widgets] == ["Restore image"]
    assert {s.key for s in manifest.contributions.sample_data} == {"photograph", "stack"}


def test_sample_data_is_restored_into_layers_that_agree_with_the_map(viewer: Any, widget: Any) -> None:
    layer = viewer.layers[0]
    layer.scale = (2, 2)
    widget.preset.value = "instant"
    widget.restore.changed.emit(True)
    assert widget.is_working
    assert not widget.restore.enabled
    wait(widget, viewer)
    own = recover_image(layer.data, preset="instant", progress=False)
    assert [shown.name for shown in viewer.layers[1:]] == [
        "photograph restored",
        "photograph probability",
        "photograph corruption",
    ]
    image, probability, labels = viewer.layers[1:]
    assert np.array_equal(image.data, own.image)
    assert image.rgb
    assert isinstance(labels, napari.layers.Labels)
    assert np.array_equal(labels.data.astype(bool), own.mask.any(axis=-1))
    assert np.array_equal(probability.data, own.corruption_probability.max(axis=-1))
    assert all(tuple(shown.scale) == (2, 2) for shown in viewer.layers)
    assert "of the values were corrupted" in widget.said.value
    assert widget.restore.enabled


def test_cancelling_keeps_what_is_recovered(viewer: Any, widget: Any) -> None:
    widget.iterations.value = 100_000
    widget.restore.changed.emit(True)
    wait(widget, viewer, lambda: widget.bar.value > 0)
    assert re.fullmatch(r"\d+ of 100000 iterations(, loss .*)?", widget.said.value)
    widget.cancel.changed.emit(True)
    wait(widget, viewer)
    assert widget.said.value.startswith("interrupted: ")
    assert [shown.name for shown in viewer.layers[1:3]] == ["photograph restored", "photograph corruption"]


def test_a_stack_is_restored_slice_by_slice(viewer: Any, widget: Any) -> None:
    viewer.layers.clear()
    viewer.open_sample("dop_lightning", "stack")
    viewer.layers[0].data = viewer.layers[0].data[:2, :32, :32]
    widget.reset_choices()
    widget.preset.value = "instant"
    widget.restore.changed.emit(True)
    wait(widget, viewer)
    assert [shown.data.shape for shown in viewer.layers] == [(2, 32, 32)] * 4


def test_errors_are_shown_in_a_line(viewer: Any, widget: Any) -> None:
    widget.preset.value = "instant"
    widget.iterations.value = 5
    widget.restore.changed.emit(True)
    wait(widget, viewer)
    assert widget.said.value.startswith("iterations is not supported by the preset instant")
    viewer.layers.clear()
    widget.reset_choices()
    widget.restore.changed.emit(True)
    assert widget.said.value == "Select an image layer."
