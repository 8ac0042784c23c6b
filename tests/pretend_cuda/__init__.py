"""A pretended CUDA device for the tests marked ``gpu``: ``pytest -p tests.pretend_cuda.plugin -m gpu``.

``device.cpp`` is the device, ``build.py`` compiles it, ``device.py`` puts it in the place of ``torch.cuda``, and
``checks.py`` asserts what a GPU would be slow at or refuse.
"""
