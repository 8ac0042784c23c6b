"""The settings of a page are options of the command line, with the same defaults."""

from typing import Any

import pytest

from dop_lightning.cli import recover, separate
from dop_lightning.cli.app.settings import DAMAGE, SETTINGS, Choice, Kind, Number, checked_settings, options
from dop_lightning.engine.steps.clean_entries import DAMAGE as OF_ENGINE

VALUES: dict[str, Any] = {"damage": "dust+text", "alpha": 2.5, "grey": True}
PARSERS = {"recover": recover.parser, "separate": separate.parser}


@pytest.mark.parametrize("kind", ["recover", "separate"])
def test_settings_equal_those_of_the_command(kind: Kind) -> None:
    defaults = vars(PARSERS[kind]().parse_args(["x", "--out", "y"]))
    for name, setting in SETTINGS[kind].items():
        assert defaults[name] == setting.default
        values = setting.values if isinstance(setting, Choice) else (VALUES.get(name, 7),)
        for value in values:
            checked = checked_settings(kind, {name: value})
            assert checked == ({} if value == setting.default else {name: value})
            assert vars(PARSERS[kind]().parse_args(["x", "--out", "y", *options(checked)])) == {**defaults, name: value}


def test_kinds_of_damage_match_the_engine() -> None:
    assert set(OF_ENGINE) == {"auto", "points", "lines", *DAMAGE}


def test_numbers_are_as_given() -> None:
    assert Number(whole=True).check("seed", 3.0) == 3
    assert Number(whole=False).check("alpha", 3) == 3.0
    for value in (float("nan"), float("inf"), "3", None, [3]):
        with pytest.raises(ValueError, match="must be a number"):
            Number(whole=False).check("alpha", value)
