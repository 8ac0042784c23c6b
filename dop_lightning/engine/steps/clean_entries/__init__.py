"""Which entries of an observation are corrupted, told without the truth."""

from dop_lightning.engine.steps.clean_entries.calibration import corruption_probability
from dop_lightning.engine.steps.clean_entries.dense import dense_noise
from dop_lightning.engine.steps.clean_entries.estimate import clean_probability
from dop_lightning.engine.steps.clean_entries.mixture import Entries, Mixture, fit_mixture
from dop_lightning.engine.steps.clean_entries.places import Places, place_evidence
from dop_lightning.engine.steps.clean_entries.structure import FirstLook, first_look
from dop_lightning.engine.steps.clean_entries.values import Bins, Values, fit_values, outlier_density

__all__ = [
    "Bins",
    "Entries",
    "FirstLook",
    "Mixture",
    "Places",
    "Values",
    "clean_probability",
    "corruption_probability",
    "dense_noise",
    "first_look",
    "fit_mixture",
    "fit_values",
    "outlier_density",
    "place_evidence",
]
