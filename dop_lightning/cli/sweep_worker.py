"""Program of a worker of ``dop sweep``: it imports the packages of ``dop fit`` once, and then runs points."""

import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

import torch.utils.tensorboard  # noqa: F401

import dop_lightning.cli.experiments.lightning_cli  # noqa: F401
from dop_lightning import __file__ as package
from dop_lightning.cli.main import main
from dop_lightning.runs.sweeps.serving import serve


def fit(arguments: Sequence[str]) -> int:
    """Run ``dop fit`` like the process of ``python -m dop_lightning fit …``."""
    sys.argv = [package.replace("__init__", "__main__"), "fit", *arguments]
    return main()


if __name__ == "__main__":
    descriptor, mode = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)  # the processes of a point must not hold the connection open
    sys.exit(serve(Connection(int(descriptor)), fit, fork=mode == "fork"))
