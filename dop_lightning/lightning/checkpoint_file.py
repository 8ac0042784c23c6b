"""A run as part of an ordinary Lightning checkpoint file.

``state_dict`` contains θ, g and h of every problem. ``optimizer_states`` contains one entry per problem, with the
states of its optimizers and step rule. ``recovery`` contains the problems and their progress.
"""

from collections.abc import Mapping
from typing import Any

from dop_lightning.engine.roster import Roster
from dop_lightning.lightning.data.saved import save_problems
from dop_lightning.lightning.state_dict import join, split
from dop_lightning.runs.checkpoints import RECOVERY, add_checksums, check_file_content

FORMAT = 1


def add_run(checkpoint: dict[str, Any], roster: Roster, data: Any, extra: Mapping[str, Any]) -> None:
    """Add a run to a checkpoint created by Lightning.

    Args:
        checkpoint: the checkpoint, with ``state_dict`` as returned by the module.
        roster: the problems.
        data: their data module.
        extra: states of callbacks, by problem.
    """
    records = {name: {**split(entry), "callbacks": extra[name]} for name, entry in roster.entries().items()}
    if "optimizer_states" in checkpoint:
        checkpoint["optimizer_states"] = [{"problem": name, **entry.pop("state")} for name, entry in records.items()]
        checkpoint["lr_schedulers"] = []
    else:  # weights only: optimizers start from their initial states
        for entry in records.values():
            entry["state"]["optimizers"] = [{} for _ in entry["state"].get("optimizers", [])]
    checkpoint[RECOVERY] = {"format": FORMAT, "records": records, **save_problems(data)}
    add_checksums(checkpoint)


def has_run(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was written by this package."""
    return RECOVERY in checkpoint


def entries_of(checkpoint: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return record and state of each problem of a checkpoint, in the form that a roster loads.

    Raises:
        ValueError: the file is of another version, damaged or incomplete.
    """
    saved = checkpoint[RECOVERY]
    if saved["format"] != FORMAT:
        raise ValueError(
            f"the checkpoint was written by another version of dop_lightning (format {saved['format']}, this version "
            f"reads {FORMAT})"
        )
    check_file_content(checkpoint, "checkpoint", ("state_dict", "optimizer_states", RECOVERY))
    try:
        states = {entry["problem"]: entry for entry in checkpoint.get("optimizer_states") or []}
        entries = {}
        for name, record in saved["records"].items():
            state = record.get("state") or {key: value for key, value in states[name].items() if key != "problem"}
            entries[name] = join(name, {**record, "state": state}, checkpoint["state_dict"])
    except KeyError as error:
        raise ValueError(f"the checkpoint is incomplete ({error} is missing)") from error
    return entries
