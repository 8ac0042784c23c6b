"""Whether the step of an optimizer can be captured in a CUDA graph."""

from functools import singledispatch

from torch.optim import SGD, Optimizer


def make_capturable(optimizer: Optimizer) -> None:
    """Make an optimizer of torch count its steps on the device, if it supports that."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True


@singledispatch
def is_capturable_optimizer(optimizer: Optimizer) -> bool:
    """Return whether an optimizer counts its steps on the device, or does not count them.

    If steps were counted on the host, a capture could succeed, but the graph would contain the count of a single step
    as a constant. Optimizers that do not count steps register themselves here.
    """
    return all(group.get("capturable", False) for group in optimizer.param_groups)


@is_capturable_optimizer.register
def _(optimizer: SGD) -> bool:
    counts_on_device = all(group.get("capturable", False) for group in optimizer.param_groups)
    return type(optimizer) is SGD or counts_on_device  # a subclass may count steps
