"""A bar in notebooks and on terminals."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from dop_lightning.foundation.quiet import quiet

SHOWN = {"psnr": "psnr {:.2f} dB", "loss": "loss {:.3g}"}
"""Scores that are shown, by tag; the first that is known."""

Tell = Callable[[int, Mapping[str, float]], None]
"""Called with iterations that are done, and scores."""


@contextmanager
def progress_bar(wanted: bool | None, total: int) -> Iterator[Tell]:
    """Show a bar, or nothing, and give what moves it.

    Args:
        wanted: whether to show it; ``None`` does where stderr is a terminal, or in a notebook.
        total: iterations.
    """
    if not (in_notebook() or sys.stderr.isatty() if wanted is None else wanted):
        yield lambda *_: None
        return
    with quiet():  # without ipywidgets it is a bar of text, which will do
        from tqdm.auto import tqdm
    with tqdm(total=total, unit="it") as bar:

        def tell(done: int, scores: Mapping[str, float]) -> None:
            tag = next((tag for tag in SHOWN if tag in scores), None)
            if tag is not None:
                bar.set_postfix_str(SHOWN[tag].format(scores[tag]), refresh=False)
            bar.update(done)

        yield tell


def in_notebook() -> bool:
    """Whether a kernel of Jupyter runs this process."""
    ipython: Any = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
