"""What the loggers of a Trainer get: hyperparameters, curves over iterations, pictures, final scores."""

from dop_lightning.lightning.loggers.callback import RecoveryLogging

__all__ = ["RecoveryLogging"]
