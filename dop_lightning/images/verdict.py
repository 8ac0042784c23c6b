"""One-line notes about unusual results of a recovery.

Shapes: C×H×W, an image.
"""

from dop_lightning.engine.outcome import Outcome
from dop_lightning.problems.scoring import least_corruption

MAX_CORRUPTED_FRACTION = 0.75
"""Fraction of corrupted values among the observed ones above which a warning is issued."""


def doubt(outcome: Outcome) -> str | None:
    """Return a warning if most of an image was detected as corrupted, otherwise ``None``."""
    share = _fraction_found(outcome)
    if outcome.status not in ("done", "stable") or share <= MAX_CORRUPTED_FRACTION:
        return None
    return (
        f"{outcome.problem.name}: {share:.0%} of the values were detected as corrupted. If that is too many, the image "
        "cannot be distinguished from its damage: compare input and result, or pass a mask of the damaged values"
    )


def verdict(outcome: Outcome) -> str | None:
    """Return a note if the image was returned unchanged, or if dense noise was removed; otherwise see :func:`doubt`.

    Returns ``None`` if none of these apply, or if the corruption is not known yet.
    """
    name, probability = outcome.problem.name, outcome.corruption_probability
    if probability is None or outcome.status not in ("done", "stable"):
        return None
    if warning := doubt(outcome):
        return warning
    y, mask = outcome.problem.observation, outcome.problem.mask
    if y.shape != outcome.signal.shape:
        return None
    same = outcome.signal == y
    kept = same if mask is None else same[mask]
    if bool(kept.all()):
        what = "the image is returned unchanged" if mask is None else "only missing values were filled in"
        return f"{name}: no corruption was detected; {what}"
    if not bool(kept.any()):
        return f"{name}: dense noise was removed from all other values; pass --dense keep to leave them unchanged"
    return None


def _fraction_found(outcome: Outcome) -> float:
    """Return the fraction of the observed values whose corruption exceeds the detection threshold."""
    found, mask = outcome.corruption.abs() > least_corruption(outcome.problem), outcome.problem.mask
    return float((found if mask is None else found[mask]).float().mean())
