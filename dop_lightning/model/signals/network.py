"""Signals that are the output of a custom network: any ``nn.Module`` as φ(θ).

Shapes: K problems; ``*n`` is the shape of a signal.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dop_lightning.foundation.checks import at_least, positive
from dop_lightning.foundation.devices import place_module
from dop_lightning.foundation.signatures import require_arguments
from dop_lightning.model.signals.base import Signal
from dop_lightning.problems.problem import Problem, ProblemBatch
from dop_lightning.problems.randomness import stream, use_stream

LARGE = 1e4
"""Sum of the norms of parameters above which the output of a network is also checked. A wide U-Net has hundreds."""

INACTIVE_MEMORY_RATIO = 4
"""Memory of an inactive network including its optimizer state, relative to its parameters. Inputs up to this size are
kept, since drawing them again in each turn would take longer than the saved memory justifies."""

NetworkFactory = Callable[[tuple[int, ...]], nn.Module]
"""Function that creates the network of one problem, given the shape ``(*n)`` of its signal."""

InputFactory = Callable[[Problem], Any]
"""Function that creates the fixed input of the network of one problem, a tensor. It is annotated as ``Any``, since
jsonargparse would otherwise require that a ``class_path`` is a subclass of ``Tensor``."""


class UniformInput:
    """Fixed input ``z ~ U(0, scale)`` of deep image prior [Ulyanov et al., 2018], drawn from the stream of the problem.

    Args:
        shape: shape of z, as the network requires it.
        scale: maximum of z, above 0; 0.1 in the authors' code.

    Raises:
        ValueError: a side is not a whole number ≥ 1, or the scale is not a finite number above 0.
    """

    def __init__(self, shape: Sequence[int], scale: float = 0.1) -> None:
        self.shape = tuple(at_least("shape", side, 1) for side in shape)
        self.scale = positive("scale", scale)

    def __call__(self, problem: Problem) -> Tensor:
        """Draw z for a problem."""
        z = torch.empty(self.shape, dtype=problem.observation.dtype, device="cpu")
        return z.uniform_(0.0, self.scale, generator=stream(problem.seed, "init", 3))


class NetworkSignal(Signal):
    r"""``X = φ(θ)``, the outputs of K networks, one per problem, for fixed inputs.

    Layers have the default initialization of PyTorch, with random numbers from the stream of the problem, independent
    of other draws in the process; this includes buffers drawn in ``__init__``. Random numbers during a forward pass
    (dropout) come from a stream identified by the iteration, so that resumed runs are identical bit for bit. The
    network is always in training mode: ``eval()`` has no effect, and batch norm always uses the statistics of its
    batch.

    Args:
        problems: the batch, with signals of any shape.
        network: function that creates the module of one problem, given the shape ``(*n)`` of its signal. It is called
            once per problem. The module must return ``(*n)`` or ``(1, *n)``, and is converted to the dtype and device
            of the problems.
        input: input of the module: a tensor for all problems, or a function of a problem (such as
            :class:`UniformInput`). ``None`` is for modules that take no input.

    Raises:
        ValueError: ``network`` does not create a new module with parameters for each problem; at the first iteration,
            its output does not have the shape of a signal.

    >>> problems = ProblemBatch([Problem("mine", torch.zeros(2, 3), seed=0)])
    >>> line = NetworkSignal(problems, lambda shape: nn.Linear(4, shape[1]), torch.ones(2, 4))
    >>> line().shape
    torch.Size([1, 2, 3])
    """

    def __init__(
        self, problems: ProblemBatch, network: NetworkFactory, input: InputFactory | Tensor | None = None
    ) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)
        self.shape = problems.signal_shape
        self.input = input
        self._inputs: dict[int, tuple[Tensor, ...]] = {}
        if isinstance(network, nn.Module):
            raise ValueError(f"network must create a module, such as its class, got a {type(network).__name__} object")
        require_arguments("network", network, ["shape"], "a torch.nn.Module")
        if input is not None and not isinstance(input, Tensor):
            require_arguments("input", input, ["problem"], "a Tensor")
        networks = []
        for problem in problems:
            # Lightning creates models on their device, where another generator would be used
            with torch.device("cpu"):
                networks.append(_to_dtype(_check_module(self._make_network(network, problem)), problems.dtype))
        if sum(len(list(made.parameters())) for made in networks) > len({p for m in networks for p in m.parameters()}):
            raise ValueError("network must create a new module for each problem, got modules with shared parameters")
        if type(self).draw_input is NetworkSignal.draw_input:
            for made in networks:
                arguments = [] if input is None else ["input"]
                require_arguments(f"{type(made).__name__}.forward", made.forward, arguments, "a Tensor")
        self.networks = place_module(nn.ModuleList(networks), problems.device)

    def _make_network(self, network: NetworkFactory, problem: Problem) -> object:
        """Create the network of a problem, whose layers draw from the global generator."""
        with use_stream(problem.seed, "init"):
            return network(self.shape)

    def draw_input(self, k: int) -> tuple[Tensor, ...]:
        """Create the inputs of network k. Called once, and again after they were released."""
        if self.input is None:
            return ()
        return (self.input if isinstance(self.input, Tensor) else self.input(self.problems[k]),)

    def input_of(self, k: int) -> tuple[Tensor, ...]:
        """Return the inputs of network k, with its device and dtype."""
        if k not in self._inputs:
            like = next(self.networks[k].parameters())
            drawn = self.draw_input(k)
            self._inputs[k] = tuple(z.to(like if z.is_floating_point() else like.device) for z in drawn)
        return self._inputs[k]

    def release(self) -> None:
        """Also free inputs if they are the largest arrays of an inactive network."""
        super().release()
        for k, inputs in list(self._inputs.items()):
            size = sum(z.numel() * z.element_size() for z in inputs)
            if size > INACTIVE_MEMORY_RATIO * sum(p.numel() * p.element_size() for p in self.networks[k].parameters()):
                del self._inputs[k]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """Discard the inputs, which are created again on the new device."""
        self.release()
        self._inputs = {}
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Keep the training mode, the only mode of the network."""
        return super().train()

    def forward(self, iteration: int = 0) -> Tensor:
        """Return ``φ(θ)``, ``(K, *n)``."""
        outputs = []
        for k, network in enumerate(self.networks):
            inputs = self.input_of(k)
            device = next(network.parameters()).device
            with use_stream(self.problems[k].seed, "perturbation", iteration, device=device):
                output = network(*inputs)
            if output.shape not in (self.shape, (1, *self.shape)):
                raise ValueError(
                    f"network must return signals of shape {self.shape}, got an output of shape {tuple(output.shape)}"
                )
            outputs.append(output.view(self.shape))
        return torch.stack(outputs)

    def problem_parameters(self, k: int) -> Iterator[tuple[str, nn.Parameter, int | None]]:
        """Yield the parameters of network k, which are not shared."""
        for name, parameter in self.networks[k].named_parameters():
            yield name, parameter, None

    def finite(self, size: int) -> Tensor:
        """Return whether all parameters of each network and, if they are large, its output are finite, ``(K,)``.

        Since layers multiply, the output may overflow long before the parameters do.
        """
        norms = torch.stack(
            [
                torch.stack([torch.linalg.vector_norm(p.detach()).float() for p in network.parameters()]).sum()
                for network in self.networks
            ]
        )
        healthy = torch.isfinite(norms)
        if bool((norms > LARGE).any()):
            healthy = healthy & torch.isfinite(self.forward().flatten(1).sum(dim=1))
        return healthy[:size]


def _check_module(network: object) -> nn.Module:
    """Return a module if it can be optimized from the first iteration on."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must create a torch.nn.Module, got {type(network).__name__}")
    parameters = list(network.parameters())
    if not parameters or any(is_lazy(p) for p in parameters):
        kind = "lazy parameters" if parameters else "no parameters"
        raise ValueError(f"network must create modules with parameters, got {type(network).__name__} with {kind}")
    return network


def _to_dtype(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a network to a dtype, unless all tensors already have it: ``network.to`` visits all layers."""
    tensors = (*network.parameters(), *network.buffers())
    has_type = all(tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex())
    return network if has_type else network.to(dtype)
