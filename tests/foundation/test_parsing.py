"""Cached parsing of files, and parsing again after a change."""

import os
from pathlib import Path

import pytest

from dop_lightning.foundation.parsing import parse_file, parse_once


class Reader:
    """Counts what it reads."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, path: Path, suffix: str = "") -> str:
        self.count += 1
        return path.read_text() + suffix


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("one")
    return tmp_path / "a.txt"


def test_a_file_is_parsed_once_within_a_block(file: Path) -> None:
    read = Reader()
    with parse_once():
        assert [parse_file(read, file) for _ in range(3)] == ["one"] * 3
        with parse_once():  # shares what the outer one has
            assert parse_file(read, file.parent / ".." / file.parent.name / "a.txt") == "one"
        assert parse_file(read, file) == "one"
    assert read.count == 1


def test_a_file_is_parsed_at_each_call_without_one(file: Path) -> None:
    read = Reader()
    for _ in range(2):
        with parse_once():
            parse_file(read, file)
        parse_file(read, file)
    assert read.count == 4


def test_arguments_and_readers_are_distinguished(file: Path) -> None:
    read, other = Reader(), Reader()
    with parse_once():
        assert [parse_file(read, file, "!"), parse_file(read, file, "?"), parse_file(other, file)] == [
            "one!",
            "one?",
            "one",
        ]
    assert (read.count, other.count) == (2, 1)


def test_changed_file_is_parsed_again_at_equal_size_and_time(file: Path) -> None:
    read, times = Reader(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    with parse_once():
        assert parse_file(read, file) == "one"
        file.write_text("two")
        os.utime(file, ns=times)
        assert parse_file(read, file) == "two"


def test_file_that_changes_while_parsed_is_not_cached(file: Path) -> None:
    def read(path: Path) -> str:
        text = path.read_text()
        path.write_text("two")
        return text

    with parse_once():
        assert parse_file(read, file) == "one"
        file.write_text("one")
        assert parse_file(Reader(), file) == "one"
        file.write_text("new")
        assert parse_file(read, file) == "new"


def test_errors_are_not_cached(file: Path) -> None:
    def read(path: Path) -> int:
        return int(path.read_text())

    with parse_once():
        with pytest.raises(ValueError, match="invalid literal"):
            parse_file(read, file)
        file.write_text("5")
        assert parse_file(read, file) == 5
