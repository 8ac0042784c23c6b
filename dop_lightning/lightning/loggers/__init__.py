"""Send hyperparameters, curves, pictures and final scores to the loggers of a Trainer."""

from dop_lightning.lightning.loggers.callback import RecoveryLogging

__all__ = ["RecoveryLogging"]
