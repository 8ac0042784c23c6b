"""The paper's figures: the runs that each needs, its table, its drawing. Found by name, imported when needed."""

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # a list of the figures needs neither torch nor matplotlib
    from dop_lightning.paper.figures.base import Figure

PACKAGE = "dop_lightning.paper.figures"


class Entry(NamedTuple):
    """A figure by name.

    Attributes:
        module: where it is.
        kind: its class.
        text: what it shows.
        times: about what it takes on one core, at scale small and at scale paper.
    """

    module: str
    kind: str
    text: str
    times: str


FIGURES = {
    "1a": Entry("figure_1a", "Figure1a", "learning curves of robust PCA: factorisation against DOP", "10 s, 15 s"),
    "1b": Entry("figure_1b", "Figure1b", "learning curves of a photograph: DIP-ℓ1 against DOP", "5 min, months"),
    "2a": Entry("figure_2a", "Figure2a", "errors of DOP over the ratio α of the rates", "10 s, 40 s"),
    "2bc": Entry("figure_2bc", "Figure2bc", "recovery over rank and corruption: DOP, convex program", "30 s, 8 min"),
    "3": Entry("figure_3", "Figure3", "four photographs recovered by DIP, DIP-ℓ1 and DOP", "5 min, months"),
    "4": Entry("figure_4", "Figure4", "learning curves over photographs and shares of corruption", "5 min, months"),
    "5": Entry("figure_5", "Figure5", "a photograph with 10 to 70 % of its values destroyed", "5 min, months"),
    "grid": Entry("grid", "Grid", "a grid of cases: the default against DOP, DIP-ℓ1 and DIP", "2 h, days"),
    "theorem-1": Entry("theorem_1", "Theorem1", "DOP tends to the convex program's solution as γ → 0", "20 s, 40 s"),
    "appendix-a": Entry("appendix_a", "AppendixA", "one rate a coordinate: weighted least-norm solutions", "5 s, 5 s"),
}
"""The figures of ``dop figure``."""


def load_figure(name: str) -> "Figure":
    """The figure called ``name``, one of :data:`FIGURES`."""
    entry = FIGURES[name]
    figure: Figure = getattr(importlib.import_module(f"{PACKAGE}.{entry.module}"), entry.kind)()
    return figure
