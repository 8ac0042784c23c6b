"""Install the simulated CUDA device at the start of a Python process, if DOP_PRETEND_CUDA is set."""

from tests.pretend_cuda.device import install_from_environment

install_from_environment()
