"""Templates of the page. Every value that they insert is escaped, and made legible."""

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dop_lightning.foundation.names import legible
from dop_lightning.runs.report import chart
from dop_lightning.runs.report.text import counted


@cache
def environment() -> Environment:
    """The templates of ``templates/``, with the filters that they use."""
    result = Environment(
        loader=PackageLoader("dop_lightning.runs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_legible,
    )
    result.filters |= {"counted": counted, "place": "{:.1f}".format, "sha256": _sha256}
    result.globals["size"] = {
        "width": chart.WIDTH,
        "height": chart.HEIGHT,
        "left": chart.LEFT,
        "right": chart.RIGHT,
        "bottom": chart.BOTTOM,
    }
    return result


def _legible(value: Any) -> Any:
    """Replace characters that cannot be written or do not fit on a line; markup of a macro stays as it is."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return legible(value) if is_text and not value.isprintable() else value


def _sha256(text: str) -> str:
    """The hash of a style or script, as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
