"""Templates of the page. All inserted values are escaped and made printable."""

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dop_lightning.foundation.names import printable
from dop_lightning.runs.report import chart
from dop_lightning.runs.report.text import counted


@cache
def environment() -> Environment:
    """Return the environment of the templates in ``templates/``, with their filters."""
    result = Environment(
        loader=PackageLoader("dop_lightning.runs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_make_legible,
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


def _make_legible(value: Any) -> Any:
    """Replace unprintable characters and line breaks. Markup of macros is not changed."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value) if is_text and not value.isprintable() else value


def _sha256(text: str) -> str:
    """Return the hash of a style or script in the format of a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
