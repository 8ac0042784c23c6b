"""Parameters of a run under readable names, ``photo.signal.U`` and ``photo.corruption.g``, whatever the batches."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dop_lightning.engine.roster import Roster

PARTS = ("signal", "corruption", "tensors")
"""Entries of a problem's state that hold what is recovered; ``tensors`` are those of a convex solver."""


def problem_tensors(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return θ, g and h of every problem, by name.

    Args:
        entries: record and state of each problem, as a roster saves them.
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
    """Return what :func:`split` was given.

    Args:
        name: of the problem.
        entry: without tensors.
        tensors: by name, those of other problems among them.
    """
    whole = {key: value for key, value in entry.items() if key != "parts"}
    parts = {part: {key: tensors[f"{name}.{part}.{key}"] for key in keys} for part, keys in entry["parts"].items()}
    return {**whole, "state": {**entry["state"], **parts} or None}


def load_tensors(roster: Roster, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Put parameters in the place of those of a run.

    Args:
        roster: the problems.
        tensors: by name, as :func:`problem_tensors` gives them; a problem of which any is missing stays as it is.

    Returns:
        The names that are missing, and those that belong to no problem.

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
