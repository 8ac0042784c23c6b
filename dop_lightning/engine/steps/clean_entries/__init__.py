"""Which entries of an observation are corrupted, told without the truth."""

from dop_lightning.engine.steps.clean_entries.estimate import clean_probability
from dop_lightning.engine.steps.clean_entries.mixture import Mixture, fit_mixture
from dop_lightning.engine.steps.clean_entries.values import outlier_density

__all__ = ["Mixture", "clean_probability", "fit_mixture", "outlier_density"]
