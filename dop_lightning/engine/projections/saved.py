"""Save and load the progress of a recovery, bit for bit, as tensors on the CPU and plain numbers."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from dop_lightning.engine.projections.certificate import Certificate
from dop_lightning.engine.projections.low_rank import LowRank
from dop_lightning.engine.projections.rank import RankRule
from dop_lightning.engine.projections.solver import Progress

NUMBERS = ("threshold", "phase", "steps", "wait", "share", "fits")


def saved_progress(progress: Progress) -> dict[str, Any]:
    """Return the progress as a checkpoint state."""
    estimate, verdict = progress.estimate, progress.certificate
    tensors = {
        "left": estimate.left,
        "values": estimate.values,
        "right": estimate.right,
        "last_values": progress.rule.last,
    }
    return {
        "tensors": {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()},
        "rank": estimate.rank,
        "streak": progress.rule.streak,
        "progress": {name: getattr(progress, name) for name in NUMBERS},
        "scales": list(progress.scales),
        "energies": list(progress.energies),
        "certificate": None if verdict is None else asdict(verdict),
    }


def loaded_progress(state: Mapping[str, Any], like: Tensor) -> Progress:
    """Restore the progress from the result of :func:`saved_progress`.

    Args:
        state: the saved progress.
        like: tensor with the dtype and device of the singular vectors.
    """
    tensors, verdict = state["tensors"], state["certificate"]
    estimate = LowRank(
        tensors["left"].to(like),
        tensors["values"].to(like.device, torch.float64),
        tensors["right"].to(like),
        int(state["rank"]),
    )
    return Progress(
        estimate,
        rule=RankRule(tensors["last_values"].to(like.device, torch.float64), int(state["streak"])),
        **state["progress"],
        scales=list(state["scales"]),
        energies=list(state["energies"]),
        certificate=None if verdict is None else Certificate(**verdict),
    )
