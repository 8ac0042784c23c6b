"""The page of ``dop report`` in headless Chromium, if installed."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dop_lightning.runs.report import render
from dop_lightning.runs.report.reading import read_run
from tests.runs.builders import write_run

SCRIPT = Path(__file__).parents[3] / "scripts" / "check_report.py"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="pip install playwright")
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="no Chromium")
def test_page_on_desktop_and_phone(tmp_path: Path) -> None:
    name = "a-very-long-name-of-a-problem-that-has-no-place-where-a-line-could-end" + 40 * "x"
    run = write_run(tmp_path / "run", {name: {}, "b<&": {"status": "diverged"}, "c": None})
    page = run / "report.html"
    page.write_text(render(read_run(run, 12), page), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(page), "--out", str(tmp_path / "shots")]
    said = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout == f"{page}: good\n"
    assert len(list((tmp_path / "shots").iterdir())) == 4
