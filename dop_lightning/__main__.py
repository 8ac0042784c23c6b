"""``python -m dop_lightning`` is ``dop``."""

import sys

from dop_lightning.cli.main import main

sys.exit(main())
