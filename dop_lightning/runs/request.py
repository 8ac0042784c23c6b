"""Request of a run: the settings of a start, and its problems with their digests and rates."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dop_lightning.foundation.renamed import RenamedAttribute
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem
from dop_lightning.runs.digests import common_settings, given_rates, problem_digest, run_digest, settings_digest


@dataclass(frozen=True)
class RunRequest:
    """Settings and problems of one start.

    Attributes:
        config: resolved config.
        wholes: whole problems, one per row of the table, named as in a new run.
        mosaics: tiles of the problems that are recovered in tiles, by name.
        growing: arguments of the data module that may change when the run is started again.
    """

    config: Mapping[str, Any]
    wholes: Sequence[Problem]
    mosaics: Mapping[str, Mosaic]
    growing: Collection[str] = ()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that apply to all problems."""
        return common_settings(self.config, self.growing)

    @cached_property
    def settings_digest(self) -> str:
        """Mark of these settings."""
        return settings_digest(self.settings)

    @cached_property
    def digests(self) -> list[str]:
        """Mark of each whole problem."""
        return [problem_digest(whole, self.mosaics.get(whole.name)) for whole in self.wholes]

    @cached_property
    def rates(self) -> list[dict[str, Any]]:
        """Rates that the config specifies for each whole problem.

        Raises:
            ValueError: the length of a list of rates is not the number of problems.
        """
        return given_rates(self.config, [len(self.parts(place)) for place in range(len(self.wholes))])

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of a run that starts with this request."""
        return run_digest(self.settings_digest, self.digests, self.rates)

    def parts(self, place: int) -> list[Problem]:
        """Return the parts of a whole problem that the engine recovers: its tiles, or the problem itself."""
        whole = self.wholes[place]
        return list(self.mosaics[whole.name].tiles.values()) if whole.name in self.mosaics else [whole]

    # Old names, until version 0.3.
    settings_mark = RenamedAttribute("settings_digest")
    marks = RenamedAttribute("digests")
