"""Detect the corrupted entries of an observation, without the truth."""

from dop_lightning.engine.steps.clean_entries.background import background_noise
from dop_lightning.engine.steps.clean_entries.border import flat_border
from dop_lightning.engine.steps.clean_entries.calibration import corruption_probability
from dop_lightning.engine.steps.clean_entries.companions import Companions
from dop_lightning.engine.steps.clean_entries.curves import scratches
from dop_lightning.engine.steps.clean_entries.damage import DAMAGE, check_damage, likely_damage, structured_damage
from dop_lightning.engine.steps.clean_entries.dense import dense_noise
from dop_lightning.engine.steps.clean_entries.drift import filled
from dop_lightning.engine.steps.clean_entries.dust import dust_specks
from dop_lightning.engine.steps.clean_entries.estimate import clean_probability
from dop_lightning.engine.steps.clean_entries.interpolation import interpolate
from dop_lightning.engine.steps.clean_entries.kernel_regression import leave_one_out, regression
from dop_lightning.engine.steps.clean_entries.kriging import krige, kriged
from dop_lightning.engine.steps.clean_entries.lettering import printed_text
from dop_lightning.engine.steps.clean_entries.lines import dead_lines
from dop_lightning.engine.steps.clean_entries.mixture import Entries, Mixture, fit_mixture
from dop_lightning.engine.steps.clean_entries.places import Places, place_evidence
from dop_lightning.engine.steps.clean_entries.rectangles import dead_rectangles
from dop_lightning.engine.steps.clean_entries.recurrence import with_recurrence
from dop_lightning.engine.steps.clean_entries.sharp import Sign, sharp_outliers
from dop_lightning.engine.steps.clean_entries.structure import FirstLook, first_look
from dop_lightning.engine.steps.clean_entries.support import first_support
from dop_lightning.engine.steps.clean_entries.values import Bins, Values, fit_values, outlier_density

__all__ = [
    "DAMAGE",
    "Bins",
    "Companions",
    "Entries",
    "FirstLook",
    "Mixture",
    "Places",
    "Sign",
    "Values",
    "background_noise",
    "check_damage",
    "clean_probability",
    "corruption_probability",
    "dead_lines",
    "dead_rectangles",
    "dense_noise",
    "dust_specks",
    "filled",
    "first_look",
    "first_support",
    "fit_mixture",
    "fit_values",
    "flat_border",
    "interpolate",
    "krige",
    "kriged",
    "leave_one_out",
    "likely_damage",
    "outlier_density",
    "place_evidence",
    "printed_text",
    "regression",
    "scratches",
    "sharp_outliers",
    "structured_damage",
    "with_recurrence",
]
