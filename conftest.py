"""Set the environment variables that Triton reads when it is imported. pytest loads this file before all tests."""

import importlib.util
import os
from pathlib import Path

from scripts.torchvision_for_cpu import make_importable

GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Device files of machines with a GPU: of NVIDIA, of Windows Subsystem for Linux, and of AMD."""

if not any(Path(device).exists() for device in GPUS):
    os.environ["TRITON_INTERPRET"] = "1"  # interpret Triton kernels on the CPU

if importlib.util.find_spec("torchvision") is not None:  # torchmetrics also imports it, if installed
    make_importable()

NEEDS = {"deepinv": "deepinv/[pr]*.py", "napari": "napari/widget.py"}
"""Modules of integrations that need a package to be imported."""

collect_ignore_glob = [
    f"dop_lightning/integrations/{modules}"
    for package, modules in NEEDS.items()
    if not importlib.util.find_spec(package)
]
"""Modules without doctests to collect."""
