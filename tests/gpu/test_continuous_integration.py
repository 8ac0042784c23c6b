"""The tests marked ``gpu`` are run by ``make test``, and none of them can be skipped there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SKIPPING = """
import pytest


@pytest.mark.gpu
def test_one():
    pytest.skip("no reason")


@pytest.mark.gpu
@pytest.mark.skipif(True, reason="none either")
def test_two():
    pass
"""


def run_pytest(file: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["-p", "tests.pretend_cuda.plugin", "-p", "no:cacheprovider", str(file)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.slow
def test_a_skipped_test_fails_and_so_does_a_missing_compiler(tmp_path: Path) -> None:
    file = tmp_path / "test_skipping.py"
    file.write_text(SKIPPING)
    done = run_pytest(file)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 error" in done.stdout  # skipped in it, and before it
    assert "a test marked gpu was skipped on the simulated device" in done.stdout
    done = run_pytest(file, CXX=str(tmp_path / "none"), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "cannot build" in done.stdout + done.stderr
    assert "install g++ or set CXX" in done.stdout + done.stderr


def test_make_test_runs_them() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert any("-m gpu" in line and "-p tests.pretend_cuda.plugin $(GPU_TESTS)" in line for line in lines)
    assert any("-m triton $(TRITON_TESTS)" in line for line in lines)
    for variable, mark, least in (("GPU_TESTS", "mark.gpu|ON_PRETENDED", 6), ("TRITON_TESTS", "mark.triton", 2)):
        (places,) = [line.split(":=")[1].split() for line in lines if line.startswith(f"{variable} :=")]
        marked = [file for file in (ROOT / "tests").rglob("test_*.py") if re.search(mark, file.read_text())]
        assert len(marked) >= least
        for file in {*marked} - {Path(__file__)}:
            assert any(file.is_relative_to(ROOT / place) for place in places), file
