"""Restore the sample photograph with the napari plugin, and save a screenshot of the window.

It needs napari, ``pip install "dop_lightning[napari]"``, and a display, for example that of ``xvfb-run``.
"""

import argparse
import sys
from pathlib import Path

import napari
from PIL import Image
from qtpy.QtCore import QDeadlineTimer
from qtpy.QtWidgets import QApplication


def main() -> None:
    """Save the screenshot, and print the message of the widget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/napari.png"))
    parser.add_argument("--preset", default="quick", help="default: quick")
    parser.add_argument("--minutes", type=float, default=10, help="time limit (default: 10)")
    options = parser.parse_args()
    viewer = napari.Viewer(title="napari")
    viewer.window.resize(1300, 800)
    viewer.open_sample("dop_lightning", "photograph")
    _, widget = viewer.window.add_plugin_dock_widget("dop_lightning", "Restore image")
    widget.reset_choices()
    widget.preset.value = options.preset
    widget.restore.changed.emit(True)
    deadline = QDeadlineTimer(int(60_000 * options.minutes))
    while widget.is_working and not deadline.hasExpired():
        QApplication.processEvents()
    if len(viewer.layers) < 3:
        sys.exit(f"the image was not restored: {widget.said.value}")
    print(widget.said.value)
    for layer in viewer.layers:
        layer.visible = True
    grid = viewer.canvas.grid if hasattr(viewer, "canvas") else viewer.grid  # before 0.9
    grid.enabled = True
    viewer.reset_view()
    for _ in range(50):
        QApplication.processEvents()
    viewer.window.screenshot(str(options.out), flash=False, canvas_only=False)
    viewer.close()
    with Image.open(options.out) as picture:
        small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(options.out, optimize=True)


if __name__ == "__main__":
    main()
