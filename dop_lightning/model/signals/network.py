"""Signals that are the output of a network of one's own: any ``nn.Module`` as φ(θ).

Shapes: K problems, ``*n`` the shape of a signal.
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
from dop_lightning.problems.randomness import lent_stream, stream

LARGE = 1e4
"""Sum of the norms of parameters beyond which the output of a network is looked at; a wide U-Net has hundreds."""

AT_REST = 4
"""Times the size of a network, what a network at rest takes with its optimizer's memory: an input no larger than that
stays, since drawing it anew at each turn would take longer than it is worth."""

NetworkFactory = Callable[[tuple[int, ...]], nn.Module]
"""Makes the network of one problem, given the shape ``(*n)`` of its signal."""

InputFactory = Callable[[Problem], Any]
"""Makes the fixed input of the network of one problem, a tensor. Were that said in the type, jsonargparse would take a
``class_path`` for a kind of tensor."""


class UniformInput:
    """The fixed input ``z ~ U(0, scale)`` of deep image prior [Ulyanov et al., 2018], from the problem's own stream.

    Args:
        shape: of z, as the network takes it.
        scale: above 0; the authors' code has 0.1.

    Raises:
        ValueError: a side is no whole number of at least 1, or the scale is not a finite number above 0.
    """

    def __init__(self, shape: Sequence[int], scale: float = 0.1) -> None:
        self.shape = tuple(at_least("shape", side, 1) for side in shape)
        self.scale = positive("scale", scale)

    def __call__(self, problem: Problem) -> Tensor:
        """z of a problem."""
        z = torch.empty(self.shape, dtype=problem.observation.dtype, device="cpu")
        return z.uniform_(0.0, self.scale, generator=stream(problem.seed, "init", 3))


class NetworkSignal(Signal):
    r"""``X = φ(θ)``, the outputs of K networks, one a problem, for inputs that stay fixed.

    Layers start as they do in PyTorch, from the problem's own stream, whatever else the process draws: parameters,
    and buffers that are drawn in ``__init__``. What a network draws while it runs (dropout) comes from a stream named
    by the iteration, so that runs resume bit for bit. An untrained network has no other mode than that in which it is
    fitted: ``eval()`` does not reach it, and batch norm always takes the statistics of its batch.

    Args:
        problems: the batch; signals of any shape.
        network: makes the module of one problem, given the shape ``(*n)`` of its signal; called once a problem. The
            module gives ``(*n)`` or ``(1, *n)``, and is brought to the type and device of the problems.
        input: what the module is called with: a tensor for all problems, or a function of a problem (such as
            :class:`UniformInput`). ``None`` is for modules that are called without anything.

    Raises:
        ValueError: ``network`` does not make a new module with parameters for each problem; on the way, its output is
            not of the shape of a signal.

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
            raise ValueError(f"network must be what makes a module, such as its class, got a {type(network).__name__}")
        require_arguments("network", network, ["shape"], "a torch.nn.Module")
        if input is not None and not isinstance(input, Tensor):
            require_arguments("input", input, ["problem"], "a Tensor")
        networks = []
        for problem in problems:
            # Lightning builds models on their device, where another generator would draw
            with torch.device("cpu"):
                networks.append(_with_type(_checked(self._make_network(network, problem)), problems.dtype))
        if sum(len(list(made.parameters())) for made in networks) > len({p for m in networks for p in m.parameters()}):
            raise ValueError("network must make a new module for each problem, got one that shares its parameters")
        if type(self).draw_input is NetworkSignal.draw_input:
            for made in networks:
                arguments = [] if input is None else ["input"]
                require_arguments(f"{type(made).__name__}.forward", made.forward, arguments, "a Tensor")
        self.networks = place_module(nn.ModuleList(networks), problems.device)

    def _make_network(self, network: NetworkFactory, problem: Problem) -> object:
        """The network of a problem, whose layers draw from the global generator."""
        with lent_stream(problem.seed, "init"):
            return network(self.shape)

    def draw_input(self, k: int) -> tuple[Tensor, ...]:
        """What network k is called with, as it is made: once, and again where it has been let go."""
        if self.input is None:
            return ()
        return (self.input if isinstance(self.input, Tensor) else self.input(self.problems[k]),)

    def input_of(self, k: int) -> tuple[Tensor, ...]:
        """What network k is called with, where it is and of its type."""
        if k not in self._inputs:
            like = next(self.networks[k].parameters())
            drawn = self.draw_input(k)
            self._inputs[k] = tuple(z.to(like if z.is_floating_point() else like.device) for z in drawn)
        return self._inputs[k]

    def release(self) -> None:
        """Let go of the inputs too, where they are the largest arrays that a network at rest would keep."""
        super().release()
        for k, inputs in list(self._inputs.items()):
            size = sum(z.numel() * z.element_size() for z in inputs)
            if size > AT_REST * sum(p.numel() * p.element_size() for p in self.networks[k].parameters()):
                del self._inputs[k]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """On another device the input is another array."""
        self.release()
        self._inputs = {}
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """There is one mode: that in which the network is fitted."""
        return super().train()

    def forward(self, iteration: int = 0) -> Tensor:
        """``φ(θ)``, ``(K, *n)``."""
        outputs = []
        for k, network in enumerate(self.networks):
            inputs = self.input_of(k)
            device = next(network.parameters()).device
            with lent_stream(self.problems[k].seed, "perturbation", iteration, device=device):
                output = network(*inputs)
            if output.shape not in (self.shape, (1, *self.shape)):
                raise ValueError(
                    f"network must give signals of shape {self.shape}, got an output of shape {tuple(output.shape)}"
                )
            outputs.append(output.view(self.shape))
        return torch.stack(outputs)

    def problem_parameters(self, k: int) -> Iterator[tuple[str, nn.Parameter, int | None]]:
        """The parameters of network k, each of them its own."""
        for name, parameter in self.networks[k].named_parameters():
            yield name, parameter, None

    def finite(self, size: int) -> Tensor:
        """Whether every parameter of network k is finite, ``(K,)``, and its output, looked at where they are large.

        Layers multiply: large parameters may give an output that is no number long before they are none themselves.
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


def _checked(network: object) -> nn.Module:
    """A module that can descend from its first iteration on."""
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must make a torch.nn.Module, got {type(network).__name__}")
    parameters = list(network.parameters())
    if not parameters or any(is_lazy(p) for p in parameters):
        kind = "only found at the first call" if parameters else "none"
        raise ValueError(f"network must make modules with parameters, got {type(network).__name__}, whose are {kind}")
    return network


def _with_type(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``network.to(dtype)``, which goes through all layers, only where something has another type."""
    tensors = (*network.parameters(), *network.buffers())
    has_type = all(tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex())
    return network if has_type else network.to(dtype)
