"""pytest with the pretended device: ``pytest -p tests.pretend_cuda.plugin -m gpu``.

A test marked ``gpu`` that is skipped fails here, since nothing else tries it.
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
    """A sound allocator, and the first device as the current one."""
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
        report.longrepr = f"a test marked gpu was skipped on the pretended device: {report.longrepr}"
