"""Widget of the plugin: restores the selected layer in a thread, and adds the result to the viewer."""

from functools import partial
from typing import Any

from dop_lightning.images.presets import PRESETS
from dop_lightning.integrations.napari.layers import PLACE, layers_of, restored
from dop_lightning.integrations.napari.worker import Finished, Job, Progress, work

try:
    from magicgui.widgets import CheckBox, ComboBox, Container, Label, ProgressBar, PushButton, SpinBox, create_widget
    from napari.layers import Image
    from napari.qt.threading import create_worker
except ImportError as error:
    raise ImportError(
        'dop_lightning.integrations.napari requires napari and Qt: pip install "dop_lightning[napari]"'
    ) from error

PRESET_NAMES = ("quick", "default", "best", "instant")
"""Presets that are fast enough for interactive use."""

DAMAGE = {
    "isolated values, dead rows and columns": "auto",
    "isolated values only": "points",
    "scratches": "scratches",
    "dust": "dust",
    "text": "text",
    "rectangles": "rectangles",
    "all of these": "scratches+dust+text+rectangles",
}
"""Labels of kinds of damage, and the values for ``recover_image``."""


class RestoreWidget(Container):
    """Restore an image layer.

    Args:
        napari_viewer: the viewer; napari passes it by this name.

    Attributes:
        layer: image layer to restore.
        preset: preset of the recovery.
        damage: kinds of damage to detect.
        pixels: whether corruption is detected per pixel instead of per value.
        leading: whether the axis before rows and columns contains slices or channels, if the layer is not RGB.
        iterations: number of gradient iterations; 0 for that of the preset.
        restore: button that starts the recovery.
        cancel: button that stops the recovery and keeps the current result.
        bar: progress bar of the iterations.
        said: status line.
    """

    def __init__(self, napari_viewer: Any) -> None:
        self._viewer = napari_viewer
        self._job: Job | None = None
        self._worker: Any = None
        self.layer = create_widget(annotation=Image, label="image")
        presets = [(f"{name} ({PRESETS[name].text})", name) for name in PRESET_NAMES]
        self.preset = ComboBox(label="preset", choices=presets, value="quick")
        self.damage = ComboBox(label="damage", choices=list(DAMAGE.items()), value="auto")
        self.pixels = CheckBox(text="whole pixels are corrupted", value=False)
        self.leading = ComboBox(label="leading axis", choices=["slices", "channels"], value="slices")
        self.iterations = SpinBox(label="iterations", value=0, min=0, max=1_000_000)
        self.iterations.tooltip = "0: as in the preset"
        self.restore, self.cancel = PushButton(text="Restore"), PushButton(text="Cancel", enabled=False)
        self.bar, self.said = ProgressBar(value=0, min=0, max=100), Label(value="")
        settings = [self.layer, self.preset, self.damage, self.pixels, self.leading, self.iterations]
        super().__init__(widgets=[*settings, self.restore, self.cancel, self.bar, self.said])
        self.restore.changed.connect(self._start)
        self.cancel.changed.connect(self._cancel)

    @property
    def is_working(self) -> bool:
        """Whether a recovery is in progress."""
        return self._worker is not None

    def _start(self) -> None:
        layer = self.layer.value
        if self.is_working:
            return
        if layer is None:
            self.said.value = "Select an image layer."
            return
        # the finest of several resolutions
        data = layer.data[0] if layer.multiscale else layer.data
        place = {name: getattr(layer, name) for name in PLACE if hasattr(layer, name)}
        options = {
            "preset": self.preset.value,
            "damage": self.damage.value,
            "per": "pixel" if self.pixels.value else "auto",
            "iterations": self.iterations.value or None,
        }
        recover = partial(restored, data, layer.rgb, self.leading.value, options)
        self._job = Job()
        self._worker = create_worker(work, self._job, recover)
        self._worker.yielded.connect(self._show)
        self._worker.aborted.connect(self._job.cancel)
        self._worker.returned.connect(partial(self._finish, data, layer.name, layer.rgb, place))
        self.bar.value = 0
        self._set_running(True, "Starting …")
        self._worker.start()

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self.said.value = "Cancelling …"

    def _set_running(self, working: bool, message: str) -> None:
        self.restore.enabled, self.cancel.enabled = not working, working
        self.said.value = message

    def _show(self, progress: Progress) -> None:
        self.bar.max, self.bar.value = max(1, progress.total), progress.done
        if self._job is not None and not self._job.is_cancelled and progress.total:
            loss = "" if progress.loss is None else f", loss {progress.loss:.3g}"
            self.said.value = f"{progress.done} of {progress.total} iterations{loss}"

    def _finish(self, data: Any, name: str, rgb: bool, place: dict[str, Any], finished: Finished) -> None:
        """Add the layers; called in the GUI thread."""
        self._worker = self._job = None
        recovery = finished.recovery
        if recovery is None:
            self._set_running(False, finished.error or "Cancelled before the first iteration.")
            return
        for values, arguments, kind in layers_of(recovery, data, name, rgb, place):
            getattr(self._viewer, f"add_{kind}")(values, **arguments)
        self.bar.value = self.bar.max
        share = float(recovery.mask.sum()) / recovery.mask.size
        self._set_running(False, f"{recovery.status}: {share:.1%} of the values were corrupted.")
