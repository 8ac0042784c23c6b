"""Style of figures: a colour-blind safe palette, plain axes, PNG and PDF output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dop_lightning.foundation.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Palette of Okabe and Ito (2008), without yellow, which is hard to see on paper."""

GREY = "#777777"

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,  # embed fonts as TrueType, so that text remains text
}


def require_matplotlib() -> None:
    """Check early that matplotlib is installed.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError('dop figure requires matplotlib: pip install "dop_lightning[figures]"') from error


@contextmanager
def canvas(width: float, height: float) -> Iterator[Canvas]:
    """Yield an empty matplotlib figure in this style, independent of the other figures of the process.

    Args:
        width: width in inches.
        height: height in inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(SETTINGS):
        drawing = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawing)
        yield drawing


def save(drawing: Canvas, path: Path) -> None:
    """Write ``path.png`` and ``path.pdf``. The same figure gives the same bytes.

    Args:
        drawing: figure created by :func:`canvas`, within its ``with`` block, whose settings apply.
        path: path without suffix.
    """
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        options: dict[str, Any] = {"format": kind, "metadata": metadata}
        write_atomically(path.with_name(f"{path.name}.{kind}"), partial(drawing.savefig, **options))
