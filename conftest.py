"""Set what Triton reads when it is imported: pytest loads this file before those that import it."""

import importlib.util
import os
from pathlib import Path

from scripts.torchvision_for_cpu import make_importable

GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Devices of which a machine with a GPU has one: of NVIDIA, of Windows' subsystem for Linux, of AMD."""

if not any(Path(device).exists() for device in GPUS):
    os.environ["TRITON_INTERPRET"] = "1"  # kernels in Triton are interpreted, on the CPU

if importlib.util.find_spec("torchvision") is not None:  # imported by torchmetrics as well, wherever it is
    make_importable()

NEEDS = {"deepinv": "deepinv/[pr]*.py", "napari": "napari/widget.py"}
"""Modules of integrations whose import needs a package."""

collect_ignore_glob = [
    f"dop_lightning/integrations/{modules}"
    for package, modules in NEEDS.items()
    if not importlib.util.find_spec(package)
]
"""Modules in which no examples are looked for."""
