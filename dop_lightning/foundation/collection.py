"""Import many modules without garbage collections, and keep later collections from visiting them."""

import gc
import importlib
import sys
from types import ModuleType


def import_frozen(name: str) -> ModuleType:
    """Import a module with all that it imports.

    Imports create hundreds of thousands of objects that stay. The garbage collector would visit them repeatedly: during
    the imports, and whenever a run has created a quarter as many objects.
    """
    if name in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
