"""Base class of noises, which turn a clean signal into an observation, with a seed per problem.

Shapes: ``*m`` is the shape of one clean signal (``C H W``, ``n m``, ``m``).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor

from dop_lightning.foundation.signatures import require_result


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Clean signal after adding noise.

    At every observed entry, ``observation = clean + corruption + e``, where ``e`` is the dense Gaussian noise, if any.
    Without dense noise, ``corruption`` equals ``observation − clean`` in floating-point arithmetic, or up to rounding
    for a mixture that adds to one entry several times.

    Args:
        observation: ``y``, shape ``(*m)``; 0 at entries that were not observed.
        corruption: ``s*``, shape ``(*m)``: the gross part only, against which the sparse ŝ is scored. It excludes dense
            noise, which a sparse corruption should not explain. 0 at entries that were not observed.
        mask: boolean ``(*m)``, true where ``y`` was observed; ``None`` if all entries were observed.
    """

    observation: Tensor
    corruption: Tensor
    mask: Tensor | None = None

    def with_replaced(self, clean: Tensor, hit: Tensor, value: Tensor) -> "Corrupted":
        """Replace the entries ``hit`` by ``value``. Their whole difference to ``clean`` counts as gross corruption."""
        return replace(
            self,
            observation=torch.where(hit, value, self.observation),
            corruption=torch.where(hit, value - clean, self.corruption),
        )

    def with_added(self, gross: Tensor) -> "Corrupted":
        """Add ``gross`` to the observation, and the resulting change after rounding to the corruption."""
        observation = self.observation + gross
        return replace(self, observation=observation, corruption=self.corruption + (observation - self.observation))


class Noise(ABC):
    """Base class of random corruptions of a clean signal.

    Subclasses must set ``name``, store the arguments of their constructor as attributes of the same name, and implement
    :meth:`apply`. The number of random draws should not depend on the ratio, so that studies over the ratio are paired.
    """

    name: ClassVar[str]
    """Name in snake_case, for the column ``noise`` of tables."""

    @abstractmethod
    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Apply this noise to ``running``, the result of previous noises. All tensors are on the CPU.

        Args:
            clean: clean signal, ``(*m)``.
            running: result of previous noises. Entries outside its mask keep their values until :meth:`corrupt` sets
                them to 0.
            generator: generator on the CPU.
        """

    def corrupt(self, clean: Tensor, generator: torch.Generator) -> Corrupted:
        """Corrupt one signal. The result is on the device of ``clean`` and does not share memory with it.

        Args:
            clean: clean signal, ``(*m)``, float32 or float64.
            generator: generator on the CPU. All draws are in float64 on the CPU, so that the corrupted entries depend
                neither on the device nor on the dtype of ``clean``.

        Raises:
            ValueError: ``clean`` is empty, has another dtype, or a shape that this noise does not support.
        """
        if clean.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"clean must be float32 or float64, got {clean.dtype}")
        if clean.numel() == 0:
            raise ValueError(f"clean must have at least one entry, got shape {tuple(clean.shape)}")
        on_cpu = clean.detach().cpu()
        running = Corrupted(on_cpu.clone(), torch.zeros_like(on_cpu))
        result = require_result(self.apply(on_cpu, running, generator), Corrupted, self.apply)
        observation, corruption, mask = result.observation, result.corruption, result.mask
        if mask is not None:
            observation, corruption = observation.masked_fill(~mask, 0), corruption.masked_fill(~mask, 0)
            mask = mask.to(clean.device)
        return Corrupted(observation.to(clean.device), corruption.to(clean.device), mask)

    @property
    def attributes(self) -> dict[str, str | float]:
        """Columns for tables: ``noise``, and all arguments of the constructor."""
        return {"noise": self.name, **{key: getattr(self, key) for key in signature(type(self)).parameters}}

    @property
    def slug(self) -> str:
        """Short text for file names, of characters ``[a-z0-9.-]``: name, required and non-default arguments.

        >>> from dop_lightning.problems.noise import GrossOutliers, SaltAndPepper
        >>> SaltAndPepper(0.5).slug, GrossOutliers(0.3, std=5).slug
        ('salt-and-pepper-0.5', 'gross-outliers-0.3-std-5')
        """
        words = [self.name]
        for key, parameter in signature(type(self)).parameters.items():
            value = getattr(self, key)
            if value != parameter.default:
                words += [] if parameter.default is parameter.empty else [key]
                words.append(value if isinstance(value, str) else f"{value:.12g}")
        return "-".join(words).replace("_", "-")


class NoNoise(Noise):
    """No noise: the observation equals the signal. Use it for files that are already corrupted.

    The corruption is 0, which is correct if the clean signal is the truth. For a damaged file, s* is unknown and must
    be omitted from the problem.
    """

    name = "none"

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Return ``running`` unchanged, without random draws."""
        return running
