"""Checksums: of bytes, of files, and of the contents of JSON files."""

import json
from pathlib import Path

import pytest

from dop_lightning.foundation.checksums import CHECKSUM, checksum, file_checksum, with_checksum, without_checksum

CONTENT = {
    "name": "å",
    "rates": {"tau": 1e-3},
    "shape": (3, 4),
    "numbers": [1, 2.5, None, True],
    "by": {1: "a", 10: "b"},
}


def test_a_file_has_the_checksum_of_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20000  # more than a chunk
    (tmp_path / "file").write_bytes(content)
    assert file_checksum(tmp_path / "file") == checksum(content)


def test_the_layout_of_a_json_file_does_not_matter() -> None:
    signed = with_checksum(CONTENT)
    for options in ({}, {"indent": 2}, {"sort_keys": True, "ensure_ascii": False}):
        plain = json.loads(json.dumps({key: signed[key] for key in reversed(signed)}, **options))
        assert without_checksum(plain) == json.loads(json.dumps(CONTENT))


def test_other_content_is_detected() -> None:
    text = json.dumps(with_checksum({"name": "a", "rate": 1.5, "list": [1, 2]}))
    for old, new in (
        ("1.5", "1.25"),
        ('"a"', '"b"'),
        ("[1, 2]", "[2, 1]"),
        ('"rate"', '"rate2"'),
        ("crc32:", "crc32;"),
    ):
        assert old in text
        with pytest.raises(ValueError, match="damaged: its checksum does not match its content"):
            without_checksum(json.loads(text.replace(old, new, 1)))


@pytest.mark.parametrize("content", [{"name": "a"}, [1], "text", None])
def test_content_without_a_checksum_is_not_checked(content: object) -> None:
    assert without_checksum(content) == content
    assert CHECKSUM not in str(content)
