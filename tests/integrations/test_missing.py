"""Missing packages of integrations: one line names the extra to install."""

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules[{package!r}] = None
try:
    {statement}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("package", "statement", "extra"),
    [
        ("deepinv", "from dop_lightning.integrations.deepinv import RobustReconstructor", "physics"),
        ("deepinv", "from dop_lightning.integrations.deepinv import SensingPhysics", "physics"),
        ("napari", "import dop_lightning.integrations.napari.widget", "napari"),
    ],
)
def test_a_missing_package_is_one_line(package: str, statement: str, extra: str) -> None:
    code = WITHOUT.format(package=package, statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("\n") == 1, done.stderr
    assert f'pip install "dop_lightning[{extra}]"' in done.stdout
