"""The corruption s of an observation, over-parameterised as ``s = g∘g − h∘h`` (Eq. 7).

Shapes: K problems; ``*m`` is the shape of an observation.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from dop_lightning.foundation.checks import one_of, positive
from dop_lightning.foundation.renamed import RenamedAttribute, rename_overrides
from dop_lightning.model.part import Part, Rate
from dop_lightning.problems.problem import ProblemBatch


class Corruption(Part):
    """Model of s. The base class is ``s = 0``, as assumed by DIP and factorisation.

    Attributes:
        is_modelled: whether s can be nonzero, so that scores of s are meaningful.
    """

    is_modelled: bool = True

    def __init__(self, problems: ProblemBatch) -> None:
        super().__init__()
        self.shape = problems.observation.shape
        self.register_buffer("zero", problems.observation.new_zeros(()), persistent=False)

    def value(self) -> Tensor:
        """Return s, ``(K, *m)``."""
        return self.get_buffer("zero").expand(self.shape)

    def add_to_(self, r: Tensor) -> None:
        """Add s in place, ``r += s``."""

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set the gradients of all parameters, given ``∂f/∂s = factor·derivative``."""

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Take a gradient step in place, given ``rate·∂f/∂s = rate·derivative``. May overwrite ``derivative``."""

    def zero_problem_(self, k: int) -> None:
        """Set s of problem k to 0. It remains 0, since the gradient of a product of two zeros vanishes."""
        for p in self.parameters():
            p.detach()[k].zero_()

    def log_ratio(self) -> Tensor | None:
        """Return ``½·log(g/h)``, ``(K, *m)``, which is α·ξ if initially g = h; ``None`` if s has no such arrays."""
        return None

    def initial_scale(self, k: int, observed: Tensor | None = None) -> float:
        """Return the initial scale γ of problem k: the root mean square of its last array, ``(*m)``, where observed.

        Call it before the first step.
        """
        last = list(self.parameters())[-1].detach()[k]
        return float((last if observed is None else last[observed]).square().mean().sqrt())

    # Old names, until version 0.3.
    drop_ = RenamedAttribute("zero_problem_")
    start_scale = RenamedAttribute("initial_scale")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept the old names, until version 0.3."""
        super().__init_subclass__(**kwargs)
        rename_overrides(cls, {"drop_": "zero_problem_", "start_scale": "initial_scale"})


class NoCorruption(Corruption):
    """No corruption, ``s = 0``."""

    is_modelled = False


class HadamardCorruption(Corruption):
    r"""``s = g∘g − h∘h`` (Eq. 7). Gradient descent from a small initial value is biased towards sparse s.

    With ``G = ∂f/∂s``, the gradients are ``∂f/∂g = 2·G∘g`` and ``∂f/∂h = −2·G∘h``. For the quarter squared loss
    (``G = r/2``), these are ``r∘g`` and ``−r∘h`` of Eq. 6. Entries that were not observed are initialized to 0 and
    remain 0.

    Args:
        problems: the batch.
        scale: scale of the initial values, above 0: 1e-4 for matrices in the paper (section 4.1), 1e-5 for images in
            the authors' code.
        tied: whether ``h`` is initialized to ``g``, so that s is initially 0 (for matrices), or drawn independently.
        start: ``gaussian`` draws ``g ~ N(0, scale²)``; ``constant`` is ``g = h = scale·1`` (Eq. 11), which requires
            ``tied``.

    Raises:
        ValueError: ``scale`` is not a finite number above 0, ``start`` is unknown, or ``start`` is ``constant`` but
            ``tied`` is false.
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
            raise ValueError("tied must be True if start is 'constant', got False")
        shape = problems.observation.shape[1:]
        if start == "constant":
            g = torch.full_like(problems.observation, scale)
            h = g.clone()
        else:
            # the counter separates the two draws from each other and from those of the signal
            g = problems.normal(shape, scale, "init", 1)
            h = g.clone() if tied else problems.normal(shape, scale, "init", 2)
        if problems.mask is not None:
            g, h = g * problems.mask, h * problems.mask
        self.g = nn.Parameter(g)
        self.h = nn.Parameter(h)
        self.alias_parameters()

    def value(self) -> Tensor:
        """Return ``g∘g − h∘h``."""
        return self.g.square().addcmul_(self.h, self.h, value=-1)  # allocates one array: matrices may be large

    def add_to_(self, r: Tensor) -> None:
        """Add s in place, ``r += g∘g − h∘h``."""
        g, h = self.arrays
        r.addcmul_(g, g)
        r.addcmul_(h, h, value=-1)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂g = 2·G∘g`` and ``∂f/∂h = −2·G∘h``."""
        self.g.grad = derivative * self.g.detach() * (2 * factor)
        self.h.grad = derivative * self.h.detach() * (-2 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``g ← g − 2·rate·G∘g`` and ``h ← h + 2·rate·G∘h`` (Eq. 6) in two fused passes.

        May overwrite ``derivative``.
        """
        if isinstance(rate, Tensor):
            derivative, rate = derivative.mul_(rate), 1.0
        g, h = self.arrays
        g.addcmul_(derivative, g, value=-2 * rate)
        h.addcmul_(derivative, h, value=2 * rate)

    def log_ratio(self) -> Tensor:
        """Return ``½·log(|g|/|h|)``, or 0 where g or h is 0."""
        g, h = (array.detach().abs() for array in self.arrays)
        tiny = torch.finfo(g.dtype).tiny
        return torch.where((g > tiny) & (h > tiny), (g / h.clamp_min(tiny)).log(), 0.0) / 2


class HyperbolicCorruption(Corruption):
    r"""``s = 2γ²·sinh(2ν)``, the gradient flow of ``g∘g − h∘h`` from ``g = h = γ`` with a single array.

    Along the flow, ``g = γ·e^ν`` and ``h = γ·e^{−ν}`` with ``dν/dt = −2G`` and ``G = ∂f/∂s``, so that only ν needs to
    be stored:

        ``ν ← ν − 2·rate·G``.

    This is not a gradient step on ν but mirror descent on s, with the hyperbolic entropy of parameter β = 2γ² [Ghai,
    Hazan and Singer, 2020]. It agrees with :class:`HadamardCorruption` to first order in the rate: entries of g are
    multiplied by ``e^{−2·rate·G}`` instead of ``1 − 2·rate·G``. g and h never change sign. The initial value is not
    random.

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
        self.gamma = nn.Parameter(y.new_full((len(problems), *[1] * (y.dim() - 1)), scale))  # 0 if s is dropped
        self.alias_parameters()

    def value(self) -> Tensor:
        """Return ``2γ²·sinh(2ν)``."""
        return (2 * self.nu).sinh() * (2 * self.gamma.square())

    def add_to_(self, r: Tensor) -> None:
        """Add s in place, ``r += 2γ²·sinh(2ν)``."""
        nu, gamma = self.arrays
        r.addcmul_(nu.mul(2).sinh_(), gamma.square(), value=2)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂ν = 4γ²·G∘cosh(2ν)`` and ``∂f/∂γ = 4γ·Σ G∘sinh(2ν)``."""
        nu, gamma = self.arrays
        self.nu.grad = derivative * (2 * nu).cosh() * gamma.square() * (4 * factor)
        total = (derivative * (2 * nu).sinh()).flatten(1).sum(dim=1)
        self.gamma.grad = total.view(gamma.shape) * gamma * (4 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``ν ← ν − 2·rate·G``, except for problems whose s is dropped."""
        nu, gamma = self.arrays
        nu.addcmul_(derivative, (gamma != 0).to(gamma) * rate, value=-2)

    def finite(self, size: int) -> Tensor:
        """Return whether ν and s are finite, ``(K,)``. s grows exponentially with ν."""
        nu, gamma = (array.detach().flatten(1) for array in self.arrays)
        largest = nu.abs().amax(dim=1)  # NaN if an entry is NaN
        return torch.isfinite((2 * largest).sinh() * (2 * gamma[:, 0].square()) + largest)

    def log_ratio(self) -> Tensor:
        """Return ν."""
        return self.arrays[0].detach()

    def initial_scale(self, k: int, observed: Tensor | None = None) -> float:
        """Return γ of problem k."""
        return float(self.arrays[1][k])


class PixelCorruption(Corruption):
    r"""``s = 2·a∘b`` with one ``a`` per pixel, shared by all channels, so that whole pixels are corrupted or clean.

    With one channel, it equals :class:`HadamardCorruption` after a rotation, ``a = (g + h)/√2`` and ``b = (g − h)/√2``,
    with the same gradient descent. With several channels, the shared factor biases gradient descent towards few
    corrupted pixels, ``Σ ‖s(pixel)‖₂``, instead of few entries (implicit group sparsity: Li, Nguyen, Hegde, Wong,
    2023).

    With ``G = ∂f/∂s``, the gradients are ``∂f/∂a = 2·Σ_c G∘b`` and ``∂f/∂b = 2·G∘a``.

    Args:
        problems: the batch, of images C×H×W.
        scale: standard deviation of the initial values, ``a, b ~ N(0, scale²)``, above 0.

    Raises:
        ValueError: the observations are not images, or ``scale`` is not a finite number above 0.
    """

    def __init__(self, problems: ProblemBatch, scale: float = 1e-5) -> None:
        super().__init__(problems)
        positive("scale", scale)
        shape = problems.observation.shape[1:]
        if len(shape) != 3:
            raise ValueError(f"PixelCorruption requires images, C×H×W, got an observation of shape {tuple(shape)}")
        a = problems.normal((1, *shape[1:]), scale, "init", 1)  # K 1 H W
        b = problems.normal(shape, scale, "init", 2)  # K C H W
        if problems.mask is not None:
            a, b = a * problems.mask.any(dim=1, keepdim=True), b * problems.mask
        self.a = nn.Parameter(a)
        self.b = nn.Parameter(b)
        self.alias_parameters()

    def value(self) -> Tensor:
        """Return ``2·a∘b``."""
        return 2 * self.a * self.b

    def add_to_(self, r: Tensor) -> None:
        """Add s in place, ``r += 2·a∘b``."""
        a, b = self.arrays
        r.addcmul_(a, b, value=2)

    def pull_back(self, derivative: Tensor, factor: float) -> None:
        """Set ``∂f/∂a = 2·Σ_c G∘b`` and ``∂f/∂b = 2·G∘a``."""
        a, b = self.arrays
        self.a.grad = (derivative * b).sum(dim=1, keepdim=True) * (2 * factor)
        self.b.grad = derivative * a * (2 * factor)

    def descend_(self, derivative: Tensor, rate: Rate) -> None:
        """Update ``a ← a − 2·rate·Σ_c G∘b`` and ``b ← b − 2·rate·G∘a`` simultaneously."""
        if isinstance(rate, Tensor):
            derivative, rate = derivative * rate, 1.0
        a, b = self.arrays
        change = (derivative * b).sum(dim=1, keepdim=True)
        b.addcmul_(derivative, a, value=-2 * rate)
        a.add_(change, alpha=-2 * rate)
