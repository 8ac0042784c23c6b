"""Checks of ``dop doctor``. Heavy packages are imported only when they are checked, because they may be broken."""

from dop_lightning.cli.doctor.finding import Finding, attempt
from dop_lightning.cli.doctor.machine import check_machine
from dop_lightning.cli.doctor.packages import check_extras, check_packages
from dop_lightning.cli.doctor.trial import check_trial

__all__ = ["Finding", "attempt", "check_extras", "check_machine", "check_packages", "check_trial"]
