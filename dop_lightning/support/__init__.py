"""Which entries of an observation are corrupted, told without the truth."""

from dop_lightning.support.estimate import clean_probability
from dop_lightning.support.mixture import Mixture, fit_mixture
from dop_lightning.support.values import outlier_density

__all__ = ["Mixture", "clean_probability", "fit_mixture", "outlier_density"]
