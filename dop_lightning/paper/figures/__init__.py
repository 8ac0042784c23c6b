"""Figures of the paper: the runs, table and drawing of each. They are found by name and imported on demand."""

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # listing the figures must not import torch or matplotlib
    from dop_lightning.paper.figures.base import Figure

PACKAGE = "dop_lightning.paper.figures"


class Entry(NamedTuple):
    """Description of a figure.

    Attributes:
        module: name of its module.
        kind: name of its class.
        text: what it shows.
        times: approximate times on one core, at scale small and at scale paper.
    """

    module: str
    kind: str
    text: str
    times: str


FIGURES = {
    "1a": Entry("figure_1a", "Figure1a", "learning curves of robust PCA: factorisation against DOP", "10 s, 15 s"),
    "1b": Entry("figure_1b", "Figure1b", "learning curves of a photograph: DIP-ℓ1 against DOP", "5 min, months"),
    "2a": Entry("figure_2a", "Figure2a", "errors of DOP for different learning-rate ratios α", "10 s, 40 s"),
    "2bc": Entry("figure_2bc", "Figure2bc", "recovery over rank and corruption: DOP, convex program", "30 s, 8 min"),
    "3": Entry("figure_3", "Figure3", "four photographs recovered by DIP, DIP-ℓ1 and DOP", "5 min, months"),
    "4": Entry("figure_4", "Figure4", "learning curves over photographs and corruption levels", "5 min, months"),
    "5": Entry("figure_5", "Figure5", "a photograph with 10 to 70 % corrupted values", "5 min, months"),
    "grid": Entry("grid", "Grid", "a grid of cases: the default against DOP, DIP-ℓ1 and DIP", "2 h, days"),
    "theorem-1": Entry("theorem_1", "Theorem1", "DOP approaches the convex solution as γ → 0", "20 s, 40 s"),
    "appendix-a": Entry("appendix_a", "AppendixA", "one rate per coordinate: weighted least-norm limits", "5 s, 5 s"),
}
"""Figures of ``dop figure``."""


def load_figure(name: str) -> "Figure":
    """Import the figure with the given name, one of :data:`FIGURES`."""
    entry = FIGURES[name]
    figure: Figure = getattr(importlib.import_module(f"{PACKAGE}.{entry.module}"), entry.kind)()
    return figure
