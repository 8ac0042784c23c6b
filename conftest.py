"""Set what Triton reads when it is imported: pytest loads this file before those that import it."""

import os
from pathlib import Path

GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Devices of which a machine with a GPU has one: of NVIDIA, of Windows' subsystem for Linux, of AMD."""

if not any(Path(device).exists() for device in GPUS):
    os.environ["TRITON_INTERPRET"] = "1"  # kernels in Triton are interpreted, on the CPU
