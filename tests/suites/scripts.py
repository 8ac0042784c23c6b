"""Import scripts as modules."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[2] / "scripts"


@contextmanager
def imported_script(name: str) -> Iterator[ModuleType]:
    """Import a script, and the modules in its folder that it imports; forget these modules at the end of the block."""
    before = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))
        for new in sys.modules.keys() - before:
            file = getattr(sys.modules[new], "__file__", None)
            if file is not None and Path(file).parent == SCRIPTS:
                del sys.modules[new]
