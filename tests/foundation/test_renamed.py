"""Old names of attributes, methods and arguments."""

import importlib
from collections.abc import Iterator

import pytest

from dop_lightning.foundation.renamed import RenamedAttribute, rename_overrides, renamed_arguments

RENAMED = {
    "engine.graphs.Replay": {"is_about": "matches"},
    "engine.projections.low_rank.LowRank": {"completed": "gather_right", "cut": "truncate"},
    "engine.projections.ranks.Ranks": {"same": "broadcast", "whole": "gather_rows"},
    "engine.projections.sweep.Observation": {"conceal": "zero_hidden"},
    "engine.rivals.base.ImageFilter": {"largest_abreast": "max_concurrent_pixels"},
    "engine.roster.Roster": {
        "alone": "separate",
        "begin_waiting": "activate_waiting",
        "has_left": "is_inactive",
        "is_about": "matches",
        "leave": "remove",
        "put_away": "store_state",
        "rest": "deactivate",
        "takes_turns": "waits_for_turn",
        "work_on_unfinished": "activate_unfinished",
    },
    "engine.run.Run": {"cut": "abort_block"},
    "engine.state.State": {"largest_abreast": "max_concurrent_pixels", "runs_one_by_one": "is_sequential"},
    "model.corruption.HadamardCorruption": {"drop_": "zero_problem_", "start_scale": "initial_scale"},
    "model.part.Part": {"tie_arrays": "alias_parameters"},
    "model.signals.SkipUNet": {"calm_by": "scale_perturbation"},
    "problems.problem.Problem": {"mark": "digest"},
    "runs.request.RunRequest": {"marks": "digests", "settings_mark": "settings_digest"},
}
"""Current names of attributes by old ones, by class."""


class New:
    """Class with a renamed attribute."""

    old = RenamedAttribute("new")

    def __init_subclass__(cls) -> None:
        """Accept the old name in subclasses."""
        rename_overrides(cls, {"old": "new"})

    def __init__(self) -> None:
        self.new = 1


def old_attributes() -> Iterator[tuple[str, str, str]]:
    for path, names in RENAMED.items():
        yield from ((path, old, new) for old, new in names.items())


@pytest.mark.parametrize(("path", "old", "new"), list(old_attributes()))
def test_old_attributes_warn(path: str, old: str, new: str) -> None:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(f"dop_lightning.{module}"), name)
    with pytest.warns(DeprecationWarning, match=rf"^{name}\.{old} is now {name}\.{new}; .* version 0\.3$") as caught:
        found = getattr(cls, old)
    assert found == getattr(cls, new)
    assert caught[0].filename == __file__


def test_an_attribute_is_read_and_set_by_its_old_name() -> None:
    made = New()
    with pytest.warns(DeprecationWarning, match=r"^New\.old is now New\.new"):
        assert made.old == 1
    with pytest.warns(DeprecationWarning, match=r"^New\.old is now New\.new"):
        made.old = 2
    assert made.new == 2


def test_a_subclass_overrides_by_the_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"^Sub\.old is now Sub\.new"):

        class Sub(New):
            old = 3

    assert vars(Sub)["new"] == 3
    with pytest.warns(DeprecationWarning, match=r"^Sub\.old is now Sub\.new"):
        assert Sub.old == 3


def test_arguments() -> None:
    @renamed_arguments(old="new")
    def double(new: int) -> int:
        return 2 * new

    assert double(new=2) == double(2) == 4
    with pytest.warns(DeprecationWarning, match=r"^argument 'old' of .*double is now 'new'"):
        assert double(old=3) == 6  # type: ignore[call-arg]
