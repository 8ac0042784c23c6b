"""The script under test, as a module."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.suites.scripts import imported_script


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Import the script whose name is ``SCRIPT`` in the test module."""
    with imported_script(request.module.SCRIPT) as module:
        yield module
