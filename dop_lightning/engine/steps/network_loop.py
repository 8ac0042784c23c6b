"""The iterations of networks, and of all other signals whose θ moves by its gradient and an optimizer (Eq. 10).

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
    """Does the iterations of one batch, by a CUDA graph where that is possible.

    It belongs to one state, and does not hold it: memory of a GPU is not to wait for the collector of cycles.

    Args:
        replay: what captures an iteration; ``None`` does them all one by one.
    """

    def __init__(self, replay: Replay | None = None) -> None:
        self.replay = replay
        self._iteration: _Iteration | None = None

    @classmethod
    def of(cls, state: BatchState) -> Self:
        """That of a batch."""
        return cls(replay_for(state))

    @property
    def holds_graph(self) -> bool:
        """Whether it keeps the memory of a whole iteration."""
        return self.replay is not None and self.replay.holds_graph

    def descend(
        self,
        state: BatchState,
        iterations: int,
        average: float | None,
        look: Callable[[int], None] | None = None,
        weigh_: Weigh | None = None,
    ) -> Tensor:
        """Do iterations in place, in one call or in several.

        Args:
            state: whose loop this is.
            iterations: at least 1.
            average: decay of the running average, ``None`` for none.
            look: called with the number of each iteration before it, outside of all graphs; it may change what
                ``state.memory`` and the parameters hold, in place.
            weigh_: multiplies the residual by weights of its entries, in place, given the state too; ``None`` weighs
                all alike. It is kept, and must not hold the state.

        Returns:
            The loss before the last of them, ``(K,)``.
        """
        begin, end = state.iteration, state.iteration + iterations
        perturbed = state.signal.perturbed
        iteration = self._iteration or _Iteration(state, average, weigh_)
        for i in range(begin, end):
            state.poll()
            if look is not None:
                look(i)
            if self.replay is None:
                iteration(state, i, with_loss=i == end - 1)
                continue
            if perturbed is not None:
                perturbed.prepare(i)
            # the first iteration is not like the others: the average begins
            if i == 0 or (i == begin and not self.replay.is_about(identity_of(state))):
                self.release()
                iteration = _Iteration(state, average, weigh_)
            self._iteration = iteration  # its arrays are those of the graph
            work = partial(iteration, state, i, with_loss=True)
            self.replay.run(work, partial(identity_of, state), left=end - i)
        return iteration.loss.clone()

    def release(self) -> None:
        """Let go of the graph, and of what is in its memory."""
        self._iteration = None
        if self.replay is not None:
            self.replay.release()


class _Iteration:
    """One iteration, in place and without a host synchronisation. Its number has a meaning for the signal alone.

    Args:
        state: of a batch.
        average: decay of the running average, ``None`` for none.
        weigh_: multiplies the residual by weights of its entries, in place.

    Attributes:
        loss: before the step, ``(K,)``.
    """

    def __init__(self, state: BatchState, average: float | None, weigh_: Weigh | None) -> None:
        self.residual = torch.empty_like(state.problems.observation)
        self.loss = self.residual.new_zeros(len(state))
        self.average = average
        self.weigh_ = weigh_
        _, self.rate = state.rates()

    def __call__(self, state: BatchState, i: int, with_loss: bool) -> None:
        residual = state.residual(self.residual, i)
        if self.weigh_ is not None:
            residual = self.weigh_(state, residual)
        if with_loss:
            self.loss.copy_(state.loss.value(residual))
        if self.average is not None:
            RunningAverage.update_(state, i, self.average)
        factor = state.loss.derivative_(residual)
        with torch.enable_grad():
            state.signal.pull_back(state.operator.adjoint(residual), factor)
        for optimizer in state.optimizers:
            optimizer.step()  # g and h have no gradient here
        state.corruption.descend_(residual, self.rate * factor)


def loop_of(state: BatchState) -> Loop:
    """Return the loop that a step rule made for a batch."""
    if state.loop is None:
        raise RuntimeError(f"{type(state.method.steps).__name__} must make a loop for signals that need autograd")
    return state.loop
