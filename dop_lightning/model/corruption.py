"""The corruption s of an observation, over-parameterised as ``s = g∘g − h∘h`` (Eq. 7).

Shapes: K problems, ``*m`` the shape of an observation.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import one_of, positive
from dop_lightning.model.part import Part, Rate
from dop_lightning.problems.problem import ProblemBatch


class Corruption(Part):
    """A model of s. The base class is the absence of one, ``s = 0``: what DIP and factorisation assume.

    Attributes:
        is_modelled: whether s may be other than 0, so that scores of it mean something.
    """

    is_modelled: bool = True

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()
        self.shape = problems.observation.shape
        self.register_buffer("zero", problems.observation.new_zeros(()), persistent=False)

    def value(self) -> Tensor:
        """s, ``(K, *m)``."""
        return self.get_buffer("zero").expand(self.shape)

    def add_to_(self, r: Tensor) -> None:
        """``r += s`` in place."""

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set the gradient of every parameter, given ``∂f/∂s = factor·derivative``."""

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """One gradient step in place, given ``rate·∂f/∂s = rate·derivative``; the last to need ``derivative``."""

    def drop_(self, k: int) -> None:
        """s of problem k becomes 0, and stays there whatever the derivative: no step moves a product of two zeros."""
        for p in self.parameters():
            p.detach()[k].zero_()

    def log_ratio(self) -> Tensor | None:
        """``½·log(g/h)``, ``(K, *m)``: α·ξ where g and h started alike; ``None`` where s has no such arrays."""
        return None

    def start_scale(self, k: int, observed: Tensor | None = None) -> float:
        """γ of problem k at the start: the root mean square of its last array over what was observed, ``(*m)``."""
        last = list(self.parameters())[-1].detach()[k]
        return float((last if observed is None else last[observed]).square().mean().sqrt())


class NoCorruption(Corruption):
    """``s = 0``."""

    is_modelled = False


class HadamardCorruption(Corruption):
    r"""``s = g∘g − h∘h`` (Eq. 7), whose gradient descent from a small start is biased towards sparse s.

    With ``G = ∂f/∂s`` the gradients are ``∂f/∂g = 2·G∘g`` and ``∂f/∂h = −2·G∘h``; for the quarter squared loss
    (``G = r/2``) these are ``r∘g`` and ``−r∘h`` of Eq. 6. Entries that were not observed start, and stay, at 0.

    Args:
        problems: the batch.
        scale: of the start, above 0. The paper has 1e-4 for matrices (section 4.1), the authors' code 1e-5 for images.
        tied: whether ``h`` starts equal to ``g`` (matrices), so that s starts at 0, or is drawn by itself.
        start: ``gaussian`` draws ``g ~ N(0, scale²)``; ``constant`` is ``g = h = scale·1`` (Eq. 11), which is tied.

    Raises:
        ValueError: ``scale`` is not a finite number above 0, ``start`` is unknown, or constant and not tied.
    """

    def __init__(
        self,
        problems: ProblemBatch,
        scale: float = 1e-4,
        tied: bool = True,
        start: Literal["gaussian", "constant"] = "gaussian",
    ) -> None:
        super().__init__(problems)
        positive("scale", scale)
        if one_of("start", start, ["gaussian", "constant"]) == "constant" and not tied:
            raise ValueError("tied must be true where start is 'constant': nothing is drawn, got tied=False")
        shape = problems.observation.shape[1:]
        if start == "constant":
            g = torch.full_like(problems.observation, scale)
            h = g.clone()
        else:
            # the counter sets the two draws apart from each other and from those of the signal
            g = problems.normal(shape, scale, "init", 1)
            h = g.clone() if tied else problems.normal(shape, scale, "init", 2)
        if problems.mask is not None:
            g, h = g * problems.mask, h * problems.mask
        self.g = nn.Parameter(g)
        self.h = nn.Parameter(h)
        self.tie_arrays()

    def value(self) -> Tensor:
        """``g∘g − h∘h``."""
        return self.g.square().addcmul_(self.h, self.h, value=-1)  # one array: matrices may be large

    def add_to_(self, r: Tensor) -> None:
        """``r += g∘g − h∘h`` in place."""
        g, h = self.arrays
        r.addcmul_(g, g)
        r.addcmul_(h, h, value=-1)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """``∂f/∂g = 2·G∘g``, ``∂f/∂h = −2·G∘h``."""
        self.g.grad = derivative * self.g.detach() * (2 * factor)
        self.h.grad = derivative * self.h.detach() * (-2 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """``g ← g − 2·rate·G∘g``, ``h ← h + 2·rate·G∘h`` (Eq. 6), two fused passes; ``derivative`` may change."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative.mul_(rate), 1.0
        g, h = self.arrays
        g.addcmul_(derivative, g, value=-2 * rate)
        h.addcmul_(derivative, h, value=2 * rate)

    def log_ratio(self) -> Tensor:
        """``½·log(g/h)`` of their absolute values, 0 where one of them is."""
        g, h = (array.detach().abs() for array in self.arrays)
        tiny = torch.finfo(g.dtype).tiny
        return torch.where((g > tiny) & (h > tiny), (g / h.clamp_min(tiny)).log(), 0.0) / 2


class HyperbolicCorruption(Corruption):
    r"""``s = 2γ²·sinh(2ν)``, what the gradient flow of ``g∘g − h∘h`` from ``g = h = γ`` is, in one array.

    Along the flow ``g = γ·e^ν`` and ``h = γ·e^{−ν}`` with ``dν/dt = −2G``, ``G = ∂f/∂s``, so that only ν need be kept:

        ``ν ← ν − 2·rate·G``.

    This is no gradient step on ν, but mirror descent on s with the hyperbolic entropy of parameter β = 2γ² [Ghai, Hazan
    and Singer, 2020], and agrees with that of :class:`HadamardCorruption` to first order in the rate: an entry of g is
    multiplied by ``e^{−2·rate·G}`` in place of ``1 − 2·rate·G``. g and h never change sign. Nothing is drawn.

    Args:
        problems: the batch.
        scale: γ, above 0.

    Raises:
        ValueError: ``scale`` is not a finite number above 0.
    """

    def __init__(self, problems: ProblemBatch, scale: float = 1e-4) -> None:
        super().__init__(problems)
        positive("scale", scale)
        y = problems.observation
        self.nu = nn.Parameter(torch.zeros_like(y))
        self.gamma = nn.Parameter(y.new_full((len(problems), *[1] * (y.dim() - 1)), scale))  # 0 where s is dropped
        self.tie_arrays()

    def value(self) -> Tensor:
        """``2γ²·sinh(2ν)``."""
        return (2 * self.nu).sinh() * (2 * self.gamma.square())

    def add_to_(self, r: Tensor) -> None:
        """``r += 2γ²·sinh(2ν)`` in place."""
        nu, gamma = self.arrays
        r.addcmul_(nu.mul(2).sinh_(), gamma.square(), value=2)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """``∂f/∂ν = 4γ²·G∘cosh(2ν)``, ``∂f/∂γ = 4γ·Σ G∘sinh(2ν)``."""
        nu, gamma = self.arrays
        self.nu.grad = derivative * (2 * nu).cosh() * gamma.square() * (4 * factor)
        total = (derivative * (2 * nu).sinh()).flatten(1).sum(dim=1)
        self.gamma.grad = total.view(gamma.shape) * gamma * (4 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """``ν ← ν − 2·rate·G``, where s is not dropped."""
        nu, gamma = self.arrays
        nu.addcmul_(derivative, (gamma != 0).to(gamma) * rate, value=-2)

    def finite(self, size: int) -> Tensor:
        """Whether ν and s are, ``(K,)``: s grows as its exponential does."""
        nu, gamma = (array.detach().flatten(1) for array in self.arrays)
        largest = nu.abs().amax(dim=1)  # nan where an entry is
        return torch.isfinite((2 * largest).sinh() * (2 * gamma[:, 0].square()) + largest)

    def log_ratio(self) -> Tensor:
        """ν."""
        return self.arrays[0].detach()

    def start_scale(self, k: int, observed: Tensor | None = None) -> float:
        """γ of problem k."""
        return float(self.arrays[1][k])


class PixelCorruption(Corruption):
    r"""``s = 2·a∘b`` with one ``a`` a pixel, shared by its channels: pixels are corrupted as a whole, or not at all.

    With one channel it is :class:`HadamardCorruption` after a rotation, ``a = (g + h)/√2`` and ``b = (g − h)/√2``, with
    the same gradient descent. With more, a shared factor biases gradient descent towards few corrupted pixels,
    ``Σ ‖s(pixel)‖₂``, rather than few entries (the implicit group sparsity of Li, Nguyen, Hegde, Wong, 2023).

    With ``G = ∂f/∂s`` the gradients are ``∂f/∂a = 2·Σ_c G∘b`` and ``∂f/∂b = 2·G∘a``.

    Args:
        problems: the batch, of images C×H×W.
        scale: standard deviation of the start, ``a, b ~ N(0, scale²)``, above 0.

    Raises:
        ValueError: the observations are not images, or ``scale`` is not a finite number above 0.
    """

    def __init__(self, problems: ProblemBatch, scale: float = 1e-5) -> None:
        super().__init__(problems)
        positive("scale", scale)
        shape = problems.observation.shape[1:]
        if len(shape) != 3:
            raise ValueError(f"PixelCorruption needs images, C×H×W, got an observation of shape {tuple(shape)}")
        a = problems.normal((1, *shape[1:]), scale, "init", 1)  # K 1 H W
        b = problems.normal(shape, scale, "init", 2)  # K C H W
        if problems.mask is not None:
            a, b = a * problems.mask.any(dim=1, keepdim=True), b * problems.mask
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)
        self.tie_arrays()

    def value(self) -> Tensor:
        """``2·a∘b``."""
        return 2 * self.a * self.b

    def add_to_(self, r: Tensor) -> None:
        """``r += 2·a∘b`` in place."""
        a, b = self.arrays
        r.addcmul_(a, b, value=2)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """``∂f/∂a = 2·Σ_c G∘b``, ``∂f/∂b = 2·G∘a``."""
        a, b = self.arrays
        self.a.grad = (derivative * b).sum(dim=1, keepdim=True) * (2 * factor)
        self.b.grad = derivative * a * (2 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """``a ← a − 2·rate·Σ_c G∘b``, ``b ← b − 2·rate·G∘a``, both from the same start."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative * rate, 1.0
        a, b = self.arrays
        change = (derivative * b).sum(dim=1, keepdim=True)
        b.addcmul_(derivative, a, value=-2 * rate)
        a.add_(change, alpha=-2 * rate)
