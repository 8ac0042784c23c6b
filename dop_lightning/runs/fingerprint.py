"""Fingerprint of a run with files of version 2: one hash of its settings and all of its problems.

Runs of the current version have a digest for each problem instead, see :mod:`dop_lightning.runs.digests`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from dop_lightning.foundation.moved import make_callable
from dop_lightning.problems.problem import Problem

MODEL_WITHOUT_EFFECT = {"block", "graphs", "metrics"}
"""Settings of the model that do not change the result."""

DATA_WITHOUT_EFFECT = {"images", "files", "truth", "mask", "undamaged", "max_memory"}
"""Settings of the data that specify where files are, or how much memory a batch may use.

The contents of files count, but files may be moved. The memory limit only matters at the first start.
"""

_OWN_NAME = re.compile(r"dop_lightning(\.\w+)*\.(?P<name>\w+)")


def fingerprint(config: str | Mapping[str, Any], problems: Sequence[Problem]) -> str:
    """Hash the inputs that determine the results: observations, and the settings of model, data and stopping.

    The section ``trainer`` is ignored: devices, paths and the number of iterations may change when a run is resumed.
    Classes and functions of this package count by name only, so that a release may move them to other modules.

    Args:
        config: resolved config, as YAML text or parsed.
        problems: all problems, with their observations.
    """
    settings = without_modules(yaml.safe_load(config) if isinstance(config, str) else config)
    relevant = {key: settings[key] for key in ("model", "data", "stable") if key in settings}
    if (settings.get("early_stop") or {}).get("variance") is not None:
        relevant["early_stop"] = settings["early_stop"]  # keeps the hashes of runs older than this setting
    if isinstance(relevant.get("model"), Mapping):
        relevant["model"] = _without(relevant["model"], MODEL_WITHOUT_EFFECT)
    data = relevant.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("init_args"), Mapping):
        relevant["data"] = {**data, "init_args": _without(data["init_args"], DATA_WITHOUT_EFFECT)}
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode())
    for problem in problems:  # the contents of a file may have changed since the start of the run
        y = problem.observation
        digest.update(f"{problem.name} {tuple(y.shape)} {y.dtype}".encode())
        digest.update(y.numpy().tobytes())
        if problem.mask is not None:
            digest.update(problem.mask.numpy().tobytes())
        if problem.undamaged is not None:
            digest.update(b"undamaged" + problem.undamaged.numpy().tobytes())
        if problem.sensing is not None:
            digest.update(f"{problem.sensing!r} {problem.signal_shape} {problem.seed}".encode())
        if problem.alpha is not None:
            digest.update(f"alpha {problem.alpha!r}".encode())
    return digest.hexdigest()[:16]


def _without(settings: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def without_modules(value: Any) -> Any:
    """Replace import paths of this package by the names of the imported objects, at any depth of the settings.

    >>> without_modules({"class_path": "dop_lightning.problems.noise.SaltAndPepper", "init_args": {"ratio": 0.5}})
    {'class_path': 'SaltAndPepper', 'init_args': {'ratio': 0.5}}
    >>> without_modules(["dop_lightning.model.operators.operator_of", "my_package.operator_of"])
    ['operator_of', 'my_package.operator_of']
    """
    if isinstance(value, Mapping):
        return {key: without_modules(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_modules(inner) for inner in value]
    own = _OWN_NAME.fullmatch(value) if isinstance(value, str) else None
    return own["name"] if own else value


make_callable(__name__, fingerprint)  # in version 0.1, ``from dop_lightning.runs import fingerprint`` was the function
