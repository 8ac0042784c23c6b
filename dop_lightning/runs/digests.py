"""Marks of a run: hashes of its settings and problems, which identify them at later starts."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import DIGEST_LENGTH, Problem
from dop_lightning.runs.fingerprint import MODEL_WITHOUT_EFFECT, without_modules

RATES = ("tau", "alpha")
"""Settings of the model that may be lists with one value per problem."""


def common_settings(config: Mapping[str, Any], growing: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings of model, data and stopping that determine the results of every problem.

    From the section ``trainer``, only the precision is included. The rates are excluded, because they are compared
    for each problem. Null and empty settings are excluded as well, so that a later release can add settings without
    refusing existing runs.

    Args:
        config: resolved config.
        growing: arguments of the data module to exclude, because its problems are compared themselves.
    """
    settings = without_modules(config)
    common = {key: settings[key] for key in ("model", "data", "stable") if key in settings}
    if (settings.get("early_stop") or {}).get("variance") is not None:
        common["early_stop"] = settings["early_stop"]  # the other settings of the section have no effect without it
    precision = (settings.get("trainer") or {}).get("precision")
    if precision not in (None, 32, "32", "32-true"):
        common["trainer"] = {"precision": str(precision)}
    if isinstance(common.get("model"), Mapping):
        common["model"] = _without(common["model"], {*MODEL_WITHOUT_EFFECT, *RATES})
    data = common.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("init_args"), Mapping):
        common["data"] = {**data, "init_args": _without(data["init_args"], growing)}
    return {key: compact for key, value in common.items() if (compact := _drop_empty(value)) is not None}


def settings_digest(settings: Mapping[str, Any]) -> str:
    """Return the digest of settings, as returned by :func:`common_settings`."""
    return _hash(settings)


def problem_digest(problem: Problem, mosaic: Mosaic | None = None) -> str:
    """Return the digest of a problem: a hash of its observation, masks, sensing operator, seed and tiles.

    The name and the truth are excluded, because they do not change the result.

    Args:
        problem: the whole problem.
        mosaic: its tiles, if it is recovered in tiles. Their part of the digest follows a dash.
    """
    return problem.digest if mosaic is None else f"{problem.digest}-{_hash([str(mosaic.grid), len(mosaic.tiles)])}"


def given_rates(config: Mapping[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rates that a config specifies for each problem: numbers, or ``None`` for the default.

    Args:
        config: resolved config.
        sizes: number of parts of each problem: its tiles, or 1.

    Returns:
        ``tau`` and ``alpha`` of each problem; a list if its tiles differ.

    Raises:
        ValueError: the length of a list is not the number of parts.
    """
    model = config.get("model") or {}
    rates: list[dict[str, Any]] = [{} for _ in sizes]
    for key in RATES:
        value, parts = model.get(key), sum(sizes)
        if isinstance(value, list) and len(value) != parts:
            raise ValueError(f"{key} must be one number, or one per problem ({parts}), got {len(value)} numbers")
        values = iter(value if isinstance(value, list) else [value] * parts)
        for of_problem, size in zip(rates, sizes, strict=True):
            own = [next(values) for _ in range(size)]
            of_problem[key] = own[0] if all(rate == own[0] for rate in own) else own
    shared: dict[str, dict[str, Any]] = {}  # there may be thousands
    return [shared.setdefault(repr(of_problem), of_problem) for of_problem in rates]


def run_digest(settings: str, problems: Sequence[str], rates: Sequence[Mapping[str, Any]]) -> str:
    """Return the fingerprint of a run at its first start. It is kept when the run grows."""
    return _hash([settings, list(problems), list(rates)])


def _without(settings: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _drop_empty(value: Any) -> Any:
    """Remove null and empty values, at any depth."""
    if isinstance(value, Mapping):
        inner = {key: compact for key, each in value.items() if (compact := _drop_empty(each)) is not None}
        return inner or None
    return value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:DIGEST_LENGTH]
