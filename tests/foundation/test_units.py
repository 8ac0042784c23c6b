"""Formatting and parsing of durations and amounts of memory."""

import pytest

from dop_lightning.foundation.units import format_bytes, format_duration, parse_bytes

GIB = 2**30


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (12, "about 10 seconds"),
        (54, "about 55 seconds"),
        (58, "about 1 minute"),
        (100, "about 2 minutes"),
        (54 * 60, "about 54 minutes"),
        (56 * 60, "about 0.9 hours"),
        (3600, "about 1 hour"),
        (9.6 * 3600, "about 10 hours"),
        (48 * 3600, "about 2 days"),
        (300 * 86400, "about 300 days"),
    ],
)
def test_durations_are_formatted(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * GIB), ("1.5gib", 1.5 * GIB), (" 500 MB ", 500 * 2**20), ("2t", 2048 * GIB), (".5", GIB / 2)],
)
def test_amounts_of_memory_are_parsed(text: str, size: float) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1G", "0", "0G", "8 G B", "nan", "1e9999", "8GG", "٣G", "9999999999T"])
def test_invalid_amounts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="max-memory must be a positive amount such as 8G or 500M, got "):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 MiB"),
        (999 * 2**20, "999 MiB"),
        (1000 * 2**20, "1000 MiB"),
        (1.5 * GIB, "1.5 GiB"),
        (12345 * GIB, "12345 GiB"),
    ],
)
def test_amounts_of_memory_are_formatted(size: float, text: str) -> None:
    assert format_bytes(size) == text
