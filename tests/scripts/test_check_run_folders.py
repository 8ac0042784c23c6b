"""Random sequences of starts, kills, growth, moves and damage of a run, at a small scale."""

import re

import pytest

from tests.scripts.test_scripts import run

pytest.importorskip("fcntl")


def test_twenty_sequences_equal_an_undisturbed_run() -> None:
    said = run("check_run_folders.py", "--sequences", "20", "--steps", "3", "--cases", "matrices", "--no-shrink")
    assert re.search(r"^ +\d+  kill, status -9$", said, re.MULTILINE), said
    assert said.endswith("20 sequences, 0 failed\n")
