"""What a recovery has done to an image, in a line for who looks at it.

Shapes: C×H×W, an image.
"""

from dop_lightning.engine.outcome import Outcome
from dop_lightning.problems.scoring import least_corruption

MOST = 0.75
"""Share of the observed values that are found to be corrupted, above which that is worth a warning."""


def doubt(outcome: Outcome) -> str | None:
    """Return a warning where most of an image was found to be corrupted; ``None`` elsewhere."""
    share = _share_found(outcome)
    if outcome.status not in ("done", "stable") or share <= MOST:
        return None
    return (
        f"{outcome.problem.name}: {share:.0%} of the values were found to be corrupted. If that is too many, the image "
        "cannot be told from its damage: compare it with what is recovered, or give a mask of what is damaged"
    )


def verdict(outcome: Outcome) -> str | None:
    """Return a line where an image came back as it went in, or without its dense noise; see :func:`doubt`.

    ``None`` where there is nothing to say, and where the corruption is not known yet.
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
        what = "nothing" if mask is None else "nothing but what is missing"
        return f"{name}: {what} was found to be damaged, and it comes back as it went in"
    if not bool(kept.any()):
        return f"{name}: dense noise was removed from all values besides; --dense keep leaves it where it is"
    return None


def _share_found(outcome: Outcome) -> float:
    """The share of the observed values that are off by more than a tenth of the range."""
    found, mask = outcome.corruption.abs() > least_corruption(outcome.problem), outcome.problem.mask
    return float((found if mask is None else found[mask]).float().mean())
