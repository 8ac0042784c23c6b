"""Which entries of an observation are corrupted, told without the truth."""

from dop_lightning.engine.steps.clean_entries.background import background_noise
from dop_lightning.engine.steps.clean_entries.dense import dense_noise
from dop_lightning.engine.steps.clean_entries.drift import filled
from dop_lightning.engine.steps.clean_entries.estimate import clean_probability
from dop_lightning.engine.steps.clean_entries.mixture import Entries, Mixture, fit_mixture
from dop_lightning.engine.steps.clean_entries.places import Places, place_evidence
from dop_lightning.engine.steps.clean_entries.sharp import Sign, sharp_outliers
from dop_lightning.engine.steps.clean_entries.structure import FirstLook, first_look
from dop_lightning.engine.steps.clean_entries.values import Bins, Values, fit_values, outlier_density

__all__ = [
    "Bins",
    "Entries",
    "FirstLook",
    "Mixture",
    "Places",
    "Sign",
    "Values",
    "background_noise",
    "clean_probability",
    "dense_noise",
    "filled",
    "first_look",
    "fit_mixture",
    "fit_values",
    "outlier_density",
    "place_evidence",
    "sharp_outliers",
]
