"""Aliases in YAML files that expand to more than the file contains."""

import pytest
import yaml

from dop_lightning.foundation.yaml_size import LARGEST, require_small


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join(lines)


def test_aliases_are_counted_written_out() -> None:
    require_small(yaml.safe_load(bomb(3)), "a.yaml")
    require_small(list(range(LARGEST - 1)), "a.yaml")
    for levels in (6, 300):
        with pytest.raises(ValueError, match=r"a.yaml: must contain at most 100000 values with aliases expanded"):
            require_small(yaml.safe_load(bomb(levels)), "a.yaml")


def test_an_alias_in_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a.yaml: an alias must not contain itself"):
        require_small(yaml.safe_load("a: &a [1, *a]"), "a.yaml")


def test_depth_is_bounded() -> None:
    settings: list = []
    for _ in range(100_000):
        settings = [settings]
    with pytest.raises(ValueError, match=r"a.yaml: settings are nested too deeply"):
        require_small(settings, "a.yaml")
    while settings:  # freed level by level: not by recursion
        settings = settings.pop()
