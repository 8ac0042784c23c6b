"""``report.html``: one self-contained page of a run, created from the files in its folder."""

from dop_lightning.runs.report.page import render

__all__ = ["render"]
