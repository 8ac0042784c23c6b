"""What has to be set before PyTorch is imported, which tests/conftest.py does."""

import os
from pathlib import Path

GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""Devices of which a machine with a GPU has one: of NVIDIA, of Windows' subsystem for Linux, of AMD."""

if not any(Path(device).exists() for device in GPUS):
    os.environ["TRITON_INTERPRET"] = "1"  # kernels in Triton are interpreted, on the CPU
