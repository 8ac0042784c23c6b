import os
import subprocess
import sys

import pytest

from dop_lightning.foundation.waiting import SPIN_COUNT, limit_spinning

WATCH = """
import os, runpy, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("spins", os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Watch())
sys.argv = ["dop", "recover", "missing.png", "--out", "out"]
runpy.run_module("dop_lightning", run_name="__main__")
"""


def test_spinning_is_limited() -> None:
    environment: dict[str, str] = {}
    limit_spinning(environment)
    assert environment == {"GOMP_SPINCOUNT": SPIN_COUNT}


@pytest.mark.parametrize("chosen", [{"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}])
def test_setting_of_the_user_is_kept(chosen: dict[str, str]) -> None:
    environment = dict(chosen)
    limit_spinning(environment)
    assert environment == chosen


@pytest.mark.parametrize(("given", "expected"), [(None, SPIN_COUNT), pytest.param("7", "7", marks=pytest.mark.slow)])
def test_dop_limits_spinning_before_importing_torch(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP_WAIT"))}
    environment |= {} if given is None else {"GOMP_SPINCOUNT": given}
    done = subprocess.run([sys.executable, "-c", WATCH], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.stdout, done.returncode) == (f"spins {expected}\n", 0), done.stderr
