"""Live display in notebooks: progress, remaining time, and the current result."""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar

from PIL import Image

from dop_lightning.foundation.units import format_duration
from dop_lightning.images.listener import ProgressListener, current_listener, use_listener
from dop_lightning.images.pictures import Picture
from dop_lightning.images.progress import SHOWN, in_notebook


class LiveWidget(ProgressListener):
    """Progress and picture of a recovery as ipywidgets.

    Attributes:
        bar: progress bar of the iterations.
        text: label with iterations, score and remaining time.
        picture: PNG of the image in progress.
        box: container of these widgets.
    """

    wants_pictures: ClassVar[bool] = True

    def __init__(self) -> None:
        import ipywidgets

        self.bar: Any = ipywidgets.IntProgress(min=0, max=1)
        self.text: Any = ipywidgets.Label("")
        self.picture: Any = ipywidgets.Image(format="png", layout={"max_width": "512px", "object_fit": "contain"})
        self.picture.layout.display = "none"
        self.box: Any = ipywidgets.VBox([ipywidgets.HBox([self.bar, self.text]), self.picture])
        self._began = time.monotonic()

    def begin(self, total: int) -> None:
        """Display the widgets in the current cell."""
        from IPython.display import display

        self.bar.max, self._began = max(1, total), time.monotonic()
        display(self.box)

    def advance(self, done: int, scores: Mapping[str, float]) -> None:
        """Advance the bar, and update the label."""
        self.bar.value += done
        tag = next((tag for tag in SHOWN if tag in scores), None)
        score = "" if tag is None else ", " + SHOWN[tag].format(scores[tag])
        seconds = time.monotonic() - self._began
        left = seconds * (self.bar.max - self.bar.value) / max(1, self.bar.value)
        self.text.value = f"{self.bar.value} of {self.bar.max} iterations{score}, {format_duration(left)} left"

    def show(self, picture: Picture) -> None:
        """Show a picture."""
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, format="PNG")
        self.picture.value, self.picture.layout.display = buffer.getvalue(), None

    def finish(self, is_complete: bool) -> None:
        """Show whether the recovery finished or was stopped."""
        seconds = format_duration(time.monotonic() - self._began)
        self.bar.bar_style = "success" if is_complete else "warning"
        done = "done" if is_complete else f"stopped after {self.bar.value} of {self.bar.max} iterations"
        self.text.value = f"{done} in {seconds}"


@contextmanager
def live_widget(wanted: bool | None) -> Iterator[bool]:
    """Show a live display if requested and possible, and yield whether it is shown.

    Args:
        wanted: ``False`` disables the display; otherwise, it is shown in notebooks if ipywidgets is installed and no
            other listener is set.
    """
    if wanted is False or current_listener() is not None or not in_notebook() or find_spec("ipywidgets") is None:
        yield False
        return
    widget = LiveWidget()
    with use_listener(widget):
        try:
            yield True
        except BaseException:
            widget.finish(False)
            raise
    widget.finish(widget.bar.value >= widget.bar.max)
