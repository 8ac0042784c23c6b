"""Hyperparameters of a run for loggers: those of module and data module, with the resolved rates."""

from collections.abc import Mapping
from typing import Any

from dop_lightning.engine.roster import Roster
from dop_lightning.foundation.spread import spread
from dop_lightning.lightning.listener import MAX_KEYS

RATES = ("tau", "alpha")


def resolved_rates(roster: Roster) -> dict[str, Any]:
    """Return τ and α of a run: one number if they agree for all problems, otherwise values of at most 40 problems.

    Rates that the method does not use are left out.

    Args:
        roster: the problems.
    """
    settings: dict[str, dict[str, Any]] = {}
    for state in (*roster.states, *roster.resting):
        settings |= {name: state.settings(k) for k, name in enumerate(state.problems.names)}
    names = [name for name in roster.records if name in settings]
    rates = {}
    for rate in RATES:
        values = {name: settings[name][rate] for name in names if rate in settings[name]}
        if len(set(values.values())) == 1:
            rates[rate] = next(iter(values.values()))
        elif values:
            every = list(values)
            rates[rate] = {every[place]: values[every[place]] for place in spread(len(every), MAX_KEYS)}
    return rates


def merge(model: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the hyperparameters of a module and its data module, without those that Lightning adds.

    If both have a key with different values, the key of the data module becomes ``data/key``.

    >>> merge({"tau": 0.1, "block": 100, "_instantiator": "…"}, {"seeds": 3, "block": 8})
    {'tau': 0.1, 'block': 100, 'seeds': 3, 'data/block': 8}
    """
    merged = _public_parameters(model)
    for key, value in _public_parameters(data).items():
        merged[f"data/{key}" if merged.get(key, value) != value else key] = value
    return merged


def _public_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if not key.startswith("_")}
