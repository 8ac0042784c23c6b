"""Gives a Python process the pretended CUDA device at its start, where DOP_PRETEND_CUDA says so."""

from tests.pretend_cuda.device import install_from_environment

install_from_environment()
