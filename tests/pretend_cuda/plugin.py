"""pytest plugin for the simulated device: ``pytest -p tests.pretend_cuda.plugin -m gpu``.

With this plugin, skipped tests marked ``gpu`` fail, because no other run includes them.
"""

from collections.abc import Generator, Iterator

import pytest

from tests.pretend_cuda import device

DEVICES = 2

try:
    device.load()
except RuntimeError as error:
    raise pytest.UsageError(str(error)) from None


def pytest_configure() -> None:
    device.install(DEVICES)


@pytest.fixture(autouse=True)
def _device_as_before() -> Iterator[None]:
    """Check and reset the allocator after each test, and make the first device the current one."""
    yield
    device.library.exchange_device(0)
    poisoned = device.is_poisoned()
    device.forget_poison()
    assert not poisoned, "a broken capture has left the allocator unusable"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, "pytest.CallInfo", None]:
    report = (yield).get_result()
    if report.skipped and item.get_closest_marker("gpu") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a test marked gpu was skipped on the simulated device: {report.longrepr}"
