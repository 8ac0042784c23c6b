"""Paths as users give them."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from dop_lightning.foundation.user_paths import out_folder, user_path


def test_home_is_expanded_and_names_with_a_tilde_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/a.png") == Path("/home/me/a.png")
    assert user_path("~no-such-user.png") == Path("~no-such-user.png")
    Path("~root").touch()
    assert user_path("~root") == Path("~root")
    assert user_path("a~b") == Path("a~b")


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_folder_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a folder, got"):
        out_folder(text)
