import torch
from torch import Tensor

from dop_lightning.engine import BatchState, StepRule
from dop_lightning.engine.steps.base import alphas, require_closed_form
from dop_lightning.engine.steps.gradient import closed_form_step
from dop_lightning.foundation.checks import at_least


class WarmUp(StepRule):
    """Gradient descent whose rates grow linearly to τ and α·τ, for signals with a gradient in closed form.

    Args:
        iterations: length of the warm-up, at least 1.
    """

    def __init__(self, iterations: int = 100) -> None:
        self.iterations = at_least("iterations", iterations, 1)

    def check(self, state: BatchState) -> None:
        require_closed_form(state, "WarmUp")

    def descend(self, state: BatchState, iterations: int) -> Tensor:
        residual = torch.empty_like(state.problems.observation)
        loss = residual.new_zeros(len(state))
        last = state.iteration + iterations - 1
        for i in range(state.iteration, last + 1):
            state.residual(residual, i)
            if i == last:
                loss = state.loss.value(residual)
            tau = state.tau_tensor() * min(1.0, (i + 1) / self.iterations)  # one rate per problem
            closed_form_step(state, residual, tau * state.signal.rate_scale, tau * alphas(state))
        return loss
