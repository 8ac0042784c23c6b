"""Streams that are no terminals, and programs without any stream."""

import io
import sys
from typing import Any

import numpy as np
import pytest

from dop_lightning import RobustPCA, recover_image
from dop_lightning.foundation.terminal import is_terminal


class Terminal(io.StringIO):
    """Stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_which_streams_are_terminals() -> None:
    closed = Terminal()
    closed.close()
    assert is_terminal(Terminal())
    assert not any(map(is_terminal, (None, closed, io.StringIO(), object())))


@pytest.mark.parametrize("progress", [None, True])
def test_a_program_without_a_console_recovers_images(progress: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    settings: dict[str, Any] = {"preset": "quick", "iterations": 1, "width": 2, "device": "cpu", "progress": progress}
    expected = recover_image(image, **settings).image
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    assert (recover_image(image, **settings).image == expected).all()


def test_a_program_without_a_console_separates_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    X = np.random.default_rng(0).normal(size=(30, 2)) @ np.random.default_rng(1).normal(size=(2, 8))
    assert RobustPCA(n_components=2).fit(X).low_rank_.shape == X.shape
