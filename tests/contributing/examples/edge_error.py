from torch import Tensor

from dop_lightning.foundation.checks import positive


class EdgeError:
    """Mean absolute error of the pixels beside an edge of the true image.

    Args:
        contrast: two neighbours in a row make an edge if they differ by more, above 0.
    """

    higher_is_better = False

    def __init__(self, contrast: float = 0.1) -> None:
        self.contrast = positive("contrast", contrast)

    def __call__(self, signal: Tensor, truth: Tensor) -> Tensor | None:
        edge = truth.diff(dim=-1).abs() > self.contrast  # C×H×(W−1)
        return (signal - truth)[..., 1:][edge].abs().mean() if edge.any() else None


def variation(signal: Tensor) -> dict[str, Tensor]:
    """Mean absolute difference of neighbours, which needs no truth."""
    return {"rows": signal.diff(dim=-2).abs().mean(), "columns": signal.diff(dim=-1).abs().mean()}
