from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dop_lightning.model.operators import Operator, Sensing
from dop_lightning.problems.problem import ProblemBatch


class EveryOtherRow(Operator):
    """``A(X)``: rows 0, 2, 4, … of an image, K×C×H×W."""

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__(problems)
        self.shape = problems.signal_shape

    def forward(self, signal: Tensor) -> Tensor:
        return signal[..., ::2, :]

    def adjoint(self, residual: Tensor) -> Tensor:
        X = residual.new_zeros(len(residual), *self.shape)
        X[..., ::2, :] = residual
        return X


@dataclass(frozen=True)
class Interlaced(Sensing):
    """Describe the measurement: shapes, names in tables and files, and the operator of a batch."""

    name: ClassVar[str] = "interlaced"

    def observation_shape(self, signal_shape: Sequence[int]) -> tuple[int, ...]:
        channels, height, width = signal_shape
        return (channels, (height + 1) // 2, width)

    def operator(self, problems: ProblemBatch) -> EveryOtherRow:
        return EveryOtherRow(problems)

    @property
    def slug(self) -> str:
        return self.name

    @property
    def attributes(self) -> dict[str, str | int | float | bool]:
        return {"sensing": self.name}
