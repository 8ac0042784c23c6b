"""The iterations of networks, and of all other signals whose θ is updated with autograd and an optimizer (Eq. 10).

Shapes: K problems, observations ``(K, *m)``.
"""

from collections.abc import Callable
from functools import partial
from typing import Self

import torch
from torch import Tensor

from dop_lightning.engine.descent import BatchState, Loop
from dop_lightning.engine.graphs import Replay, identity_of, replay_for
from dop_lightning.engine.steps.averaging import RunningAverage

Weigh = Callable[[BatchState, Tensor], Tensor]


class NetworkLoop:
    """Runs the iterations of one batch, with a CUDA graph if possible.

    A loop belongs to one state, but does not reference it: the reference cycle would keep GPU memory until the garbage
    collector runs.

    Args:
        replay: captures and replays iterations; ``None`` runs each iteration directly.
    """

    def __init__(self, replay: Replay | None = None) -> None:
        self.replay = replay
        self._iteration: _Iteration | None = None

    @classmethod
    def of(cls, state: BatchState) -> Self:
        """Create the loop of a batch."""
        return cls(replay_for(state))

    @property
    def holds_graph(self) -> bool:
        """Whether the loop holds a graph, which keeps the memory of a whole iteration."""
        return self.replay is not None and self.replay.holds_graph

    def descend(
        self,
        state: BatchState,
        iterations: int,
        average: float | None,
        look: Callable[[int], bool] | None = None,
        weigh_: Weigh | None = None,
    ) -> Tensor:
        """Do iterations in place. Splitting them over several calls does not change the result.

        Args:
            state: the batch of this loop.
            iterations: number of iterations, at least 1.
            average: decay of the running average; ``None`` for no average.
            look: called with the number of each iteration before the iteration, outside of graphs. It may change
                ``state.memory`` and the parameters in place. If it returns true, the result no longer depends on the
                network, and the iteration computes its output without a step, unless iterations are replayed.
            weigh_: multiplies the residual by weights of its entries in place, given the state and the residual;
                ``None`` for equal weights. It is stored, and must not reference the state.

        Returns:
            The loss before the last iteration, ``(K,)``.
        """
        begin, end = state.iteration, state.iteration + iterations
        perturbed = state.signal.perturbed
        iteration = self._iteration or _Iteration(state, average, weigh_)
        for i in range(begin, end):
            state.poll()
            is_settled = look is not None and look(i)
            if self.replay is None:
                iteration(state, i, with_loss=i == end - 1, with_step=not is_settled)
                continue
            if perturbed is not None:
                perturbed.prepare(i)
            # the first iteration differs from the others: it initializes the average
            if i == 0 or (i == begin and not self.replay.matches(identity_of(state))):
                self.release()
                iteration = _Iteration(state, average, weigh_)
            self._iteration = iteration  # keep its arrays, which the graph uses
            work = partial(iteration, state, i, with_loss=True)
            self.replay.run(work, partial(identity_of, state), left=end - i)
        return iteration.loss.clone()

    def release(self) -> None:
        """Free the graph and its arrays."""
        self._iteration = None
        if self.replay is not None:
            self.replay.release()


class _Iteration:
    """One iteration, in place and without host synchronisation. Only the signal depends on the iteration number.

    Args:
        state: the batch.
        average: decay of the running average; ``None`` for no average.
        weigh_: multiplies the residual by weights of its entries in place; ``None`` for equal weights.

    Attributes:
        loss: loss before the step, ``(K,)``.
    """

    def __init__(self, state: BatchState, average: float | None, weigh_: Weigh | None) -> None:
        self.residual = torch.empty_like(state.problems.observation)
        self.loss = self.residual.new_zeros(len(state))
        self.average = average
        self.weigh_ = weigh_
        _, self.rate = state.rates()

    def __call__(self, state: BatchState, i: int, with_loss: bool, with_step: bool = True) -> None:
        residual = state.residual(self.residual, i)
        if self.weigh_ is not None:
            residual = self.weigh_(state, residual)
        if with_loss:
            self.loss.copy_(state.loss.value(residual))
        if self.average is not None:
            RunningAverage.update_(state, i, self.average)
        if not with_step:
            return
        factor = state.loss.derivative_(residual)
        with torch.enable_grad():
            state.signal.pull_back(state.operator.adjoint(residual), factor)
        for optimizer in state.optimizers:
            optimizer.step()  # does not move g and h, which have no gradient
        state.corruption.descend_(residual, self.rate * factor)


def loop_of(state: BatchState) -> Loop:
    """Return the loop that the step rule created for a batch."""
    if state.loop is None:
        raise RuntimeError(f"{type(state.method.steps).__name__}.loop must return a loop for signals with autograd")
    return state.loop
