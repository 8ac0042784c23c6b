"""What a noise is: a rule that turns a clean signal into an observation, seeded and problem by problem.

Shapes: ``*m`` the shape of one clean signal (``C H W``, ``n m``, ``m``).
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
    """A clean signal after a noise.

    With ``e`` the dense Gaussian noise, if there is any, ``observation = clean + corruption + e`` holds on every
    observed entry. Without dense noise ``corruption`` is ``observation − clean`` as the machine computes it (a
    mixture that adds to one entry several times agrees to rounding).

    Args:
        observation: ``y``, shape ``(*m)``; 0 where nothing was observed.
        corruption: ``s*``, shape ``(*m)``, the gross part alone: what sparse ŝ is scored against. Dense noise is not
            part of it, since no sparse corruption is meant to explain it. 0 where nothing was observed.
        mask: boolean ``(*m)``, true where ``y`` was observed; ``None`` where all of it was.
    """

    observation: Tensor
    corruption: Tensor
    mask: Tensor | None = None

    def with_replaced(self, clean: Tensor, hit: Tensor, value: Tensor) -> "Corrupted":
        """Put ``value`` at the entries ``hit``, whatever was there: the whole difference is gross, none of it dense."""
        return replace(
            self,
            observation=torch.where(hit, value, self.observation),
            corruption=torch.where(hit, value - clean, self.corruption),
        )

    def with_added(self, gross: Tensor) -> "Corrupted":
        """Add ``gross`` to the observation; the corruption takes what arrived after rounding."""
        observation = self.observation + gross
        return replace(self, observation=observation, corruption=self.corruption + (observation - self.observation))


class Noise(ABC):
    """A seeded corruption of a clean signal.

    A subclass sets ``name``, stores the arguments of its constructor under their own names, and implements
    :meth:`apply`. How many numbers it draws should not depend on its ratio, so that studies over the ratio are paired.
    """

    name: ClassVar[str]
    """snake_case, the column ``noise`` of a table."""

    @abstractmethod
    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Apply this noise to ``running``, what earlier noises made of ``clean``; all on the CPU.

        Args:
            clean: ``(*m)``.
            running: as it stands; entries outside its mask still hold values, which :meth:`corrupt` sets to 0.
            generator: on the CPU.
        """

    def corrupt(self, clean: Tensor, generator: torch.Generator) -> Corrupted:
        """Corrupt one signal. The result lies where ``clean`` lies and shares no memory with it.

        Args:
            clean: ``(*m)``, float32 or float64.
            generator: on the CPU, where everything is drawn, in float64: neither the device nor the type of
                ``clean`` changes which entries are hit.

        Raises:
            ValueError: ``clean`` is empty, of another type, or of a shape this noise has no meaning for.
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
        """The columns of a table: ``noise``, and every argument of the constructor."""
        return {"noise": self.name, **{key: getattr(self, key) for key in signature(type(self)).parameters}}

    @property
    def slug(self) -> str:
        """A short text for file names, of ``[a-z0-9.-]``: the name, what must be given, and what is not the default.

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
    """The observation is the signal itself: for files that are corrupted already.

    The corruption is 0, which is right where the clean signal is the truth; where it is a damaged file s* is unknown
    and must be left out of the problem.
    """

    name = "none"

    def apply(self, clean: Tensor, running: Corrupted, generator: torch.Generator) -> Corrupted:
        """Nothing is drawn."""
        return running
