"""What ``dop doctor`` looks at. Nothing heavy is imported before it is looked at, since it may be what is broken."""

from dop_lightning.cli.doctor.finding import Finding, attempt
from dop_lightning.cli.doctor.machine import check_machine
from dop_lightning.cli.doctor.packages import check_extras, check_packages
from dop_lightning.cli.doctor.trial import check_trial

__all__ = ["Finding", "attempt", "check_extras", "check_machine", "check_packages", "check_trial"]
