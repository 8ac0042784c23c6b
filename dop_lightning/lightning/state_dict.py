"""Parameters of a run by readable names, ``photo.signal.U`` and ``photo.corruption.g``, independent of the batches."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dop_lightning.engine.roster import Roster

PARTS = ("signal", "corruption", "tensors")
"""Entries of a problem's state with recovered tensors; ``tensors`` are those of a convex solver."""


def problem_tensors(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return θ, g and h of every problem, by name.

    Args:
        entries: record and state of each problem, as saved by a roster.
    """
    return {
        f"{name}.{part}.{key}": tensor
        for name, entry in entries.items()
        for part in PARTS
        for key, tensor in ((entry["state"] or {}).get(part) or {}).items()
    }


def split(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry without the tensors that :func:`problem_tensors` lists."""
    state = {key: value for key, value in (entry["state"] or {}).items() if key not in PARTS}
    parts = {part: list(entry["state"][part]) for part in PARTS if part in (entry["state"] or {})}
    return {**entry, "state": state, "parts": parts}


def join(name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Invert :func:`split`.

    Args:
        name: name of the problem.
        entry: entry of the problem without tensors.
        tensors: tensors by name, which may include those of other problems.
    """
    whole = {key: value for key, value in entry.items() if key != "parts"}
    parts = {part: {key: tensors[f"{name}.{part}.{key}"] for key in keys} for part, keys in entry["parts"].items()}
    return {**whole, "state": {**entry["state"], **parts} or None}


def load_tensors(roster: Roster, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Replace the parameters of a run.

    Args:
        roster: the problems.
        tensors: tensors by name, as returned by :func:`problem_tensors`; a problem with missing tensors is not changed.

    Returns:
        The names that are missing, and the names that belong to no problem.

    Raises:
        ValueError: a tensor has another shape.
    """
    entries = roster.entries()
    known = problem_tensors(entries)
    missing = {key: None for key in known if key not in tensors}
    unexpected = [key for key in tensors if key not in known]
    for name, entry in entries.items():
        own = problem_tensors({name: entry})
        if own and not any(key in missing for key in own):
            roster.replace(name, join(name, split(entry), tensors)["state"])
    return list(missing), unexpected
