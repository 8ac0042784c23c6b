"""A simulated CUDA device for the tests marked ``gpu``: ``pytest -p tests.pretend_cuda.plugin -m gpu``.

``device.cpp`` implements the device, ``build.py`` compiles it, ``device.py`` replaces ``torch.cuda`` by it, and
``checks.py`` checks for operations that a GPU would refuse or that would be slow.
"""
