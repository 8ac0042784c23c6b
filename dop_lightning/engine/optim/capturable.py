"""Whether a step of an optimizer can be replayed as part of a CUDA graph."""

from functools import singledispatch

from torch.optim import SGD, Optimizer


def make_capturable(optimizer: Optimizer) -> None:
    """Let an optimizer of torch count its steps on the device, if it can."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True


@singledispatch
def is_capturable_optimizer(optimizer: Optimizer) -> bool:
    """Return whether a step counts on the device, or not at all.

    One that counts on the host might be captured without an error, with the number of that one step in it. Optimizers
    that do not count register themselves here.
    """
    return all(group.get("capturable", False) for group in optimizer.param_groups)


@is_capturable_optimizer.register
def _(optimizer: SGD) -> bool:
    counts_on_device = all(group.get("capturable", False) for group in optimizer.param_groups)
    return type(optimizer) is SGD or counts_on_device  # a subclass may count
