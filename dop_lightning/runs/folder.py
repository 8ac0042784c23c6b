"""The folder of a run: its config, its fingerprint, and the list of its problems."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dop_lightning.foundation.atomic import atomic_json, atomic_text
from dop_lightning.images.tiles import Mosaic
from dop_lightning.problems.problem import Problem

CONFIG = "config.yaml"
MANIFEST = "manifest.json"

SETTINGS_WITHOUT_EFFECT = {"block", "graphs"}
"""Settings of the model that change no result."""

DATA_WITHOUT_EFFECT = {"images", "files", "truth", "mask", "max_memory"}
"""Settings of the data that say where files are (what is in them counts, and they may be moved), and what a batch may
take, which counts at the first start."""


def default_folder(experiment: str) -> Path:
    """``runs/<experiment>/<time>``, chosen once, by the process that starts a run."""
    return Path("runs") / experiment / time.strftime("%Y-%m-%d_%H-%M-%S")


def fingerprint(config_text: str, problems: Sequence[Problem]) -> str:
    """A hash of what determines the results: model, data and stopping of a resolved config, and the observations.

    The trainer's section is left out: devices, paths and the number of iterations may change when a run goes on.

    Args:
        config_text: the resolved config, YAML.
        problems: with their observations.
    """
    config = yaml.safe_load(config_text)
    relevant = {key: config[key] for key in ("model", "data", "stable") if key in config}
    if (config.get("early_stop") or {}).get("variance") is not None:
        relevant["early_stop"] = config["early_stop"]  # where it is off, a run is what it was before there was one
    if isinstance(relevant.get("model"), Mapping):
        relevant["model"] = {k: v for k, v in relevant["model"].items() if k not in SETTINGS_WITHOUT_EFFECT}
    data = relevant.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("init_args"), Mapping):
        relevant["data"] = {
            **data,
            "init_args": {k: v for k, v in data["init_args"].items() if k not in DATA_WITHOUT_EFFECT},
        }
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode())
    for problem in problems:  # a file may hold something else than when the run was started
        y = problem.observation
        digest.update(f"{problem.name} {tuple(y.shape)} {y.dtype}".encode())
        digest.update(y.numpy().tobytes())
        if problem.mask is not None:
            digest.update(problem.mask.numpy().tobytes())
        if problem.sensing is not None:
            digest.update(f"{problem.sensing!r} {problem.signal_shape} {problem.seed}".encode())
        if problem.alpha is not None:
            digest.update(f"alpha {problem.alpha!r}".encode())
    return digest.hexdigest()[:16]


def claim(run: Path, mark: str) -> bool:
    """Check that a folder is free for a run, or holds the same run.

    Args:
        run: the folder.
        mark: the fingerprint of the run.

    Returns:
        Whether the same run was started there before.

    Raises:
        ValueError: the folder is a file, cannot be written, or holds another run.
    """
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run}: the folder of a run must be a folder, got a file")
    manifest = run / MANIFEST
    if manifest.is_file():
        if _entry(manifest, "fingerprint") != mark:
            raise ValueError(
                f"{run}: holds another run, of other settings or data (see {run / CONFIG}); "
                "choose another folder, or remove that one"
            )
        return True
    if (run / CONFIG).exists() and not manifest.exists():  # another process may be starting the same run
        raise ValueError(f"{run}: holds a {CONFIG} that no run has written; choose another folder, or move that file")
    nearest = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise ValueError(f"{run}: cannot be written, {nearest} is not a folder that you may write to")
    return False


def saved_settings(run: Path, *section: str) -> dict[str, Any]:
    """A section of the config of the run that was started in a folder before; empty where there is none.

    Nothing is judged here: a folder that holds something else is refused when the run is to start there.
    """
    try:
        settings = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
        for key in section:
            settings = settings[key]
        return dict(settings)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def planned_batches(run: Path) -> list[list[str]] | None:
    """The batches of a run as its first start has formed them; ``None`` where it has not started.

    Raises:
        ValueError: the manifest is none.
    """
    manifest = run / MANIFEST
    return _entry(manifest, "batches") if manifest.is_file() else None


def _entry(manifest: Path, key: str) -> Any:
    """What a manifest says under ``key``."""
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))[key]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest}: not a manifest written by dop ({error})") from error


def write_manifest(
    run: Path,
    mark: str,
    config_text: str,
    problems: Sequence[Problem],
    mosaics: Mapping[str, Mosaic] | None = None,
    batches: Sequence[Sequence[str]] = (),
) -> None:
    """Save the resolved config, the fingerprint, and the list of all problems.

    Args:
        run: the folder.
        mark: the fingerprint of the run.
        config_text: the resolved config, YAML.
        problems: those that have a row in the table.
        mosaics: those of them that are recovered in tiles, by name.
        batches: names of what is worked on together; a run that goes on keeps them.
    """
    mosaics = mosaics or {}
    entries = [
        {
            "name": problem.name,
            "seed": problem.seed,
            "shape": list(problem.observation.shape),
            "attributes": dict(problem.attributes),
            **(
                {"tiles": [tile.name for tile in mosaics[problem.name].tiles.values()]}
                if problem.name in mosaics
                else {}
            ),
        }
        for problem in problems
    ]
    # the manifest first: a folder with it is ours, and a config that is missing is written by the next start
    atomic_json(run / MANIFEST, {"fingerprint": mark, "problems": entries, "batches": [list(b) for b in batches]})
    atomic_text(run / CONFIG, config_text)
