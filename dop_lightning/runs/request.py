"""What the start of a run asks for: its settings, and its problems with their marks and rates."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.marks import common_settings, given_rates, problem_mark, run_mark, settings_mark


@dataclass(frozen=True)
class RunRequest:
    """The settings and problems of one start.

    Attributes:
        config: the resolved config.
        wholes: the problems that have a row in the table, named as in a new run.
        mosaics: those of them that are recovered in tiles, by name.
        growing: arguments of the data module that may change when the run is started again.
    """

    config: Mapping[str, Any]
    wholes: Sequence[Problem]
    mosaics: Mapping[str, Mosaic]
    growing: Collection[str] = ()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings that concern all problems."""
        return common_settings(self.config, self.growing)

    @cached_property
    def settings_mark(self) -> str:
        """The mark of these settings."""
        return settings_mark(self.settings)

    @cached_property
    def marks(self) -> list[str]:
        """The mark of each whole."""
        return [problem_mark(whole, self.mosaics.get(whole.name)) for whole in self.wholes]

    @cached_property
    def rates(self) -> list[dict[str, Any]]:
        """The rates that the config specifies for each whole.

        Raises:
            ValueError: a list of rates has another length than there are problems.
        """
        return given_rates(self.config, [len(self.parts(place)) for place in range(len(self.wholes))])

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of a run that starts with this request."""
        return run_mark(self.settings_mark, self.marks, self.rates)

    def parts(self, place: int) -> list[Problem]:
        """Return what the engine works on of one whole: its tiles, or itself."""
        whole = self.wholes[place]
        return list(self.mosaics[whole.name].tiles.values()) if whole.name in self.mosaics else [whole]
