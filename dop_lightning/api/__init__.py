"""Recovery in Python: a function for an image, without a Trainer, folders and logs."""

from dop_lightning.api.recover import recover_image
from dop_lightning.api.recovery import Recovery

__all__ = ["Recovery", "recover_image"]
