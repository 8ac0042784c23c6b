"""Names of problems are names of folders inside the run, on any system."""

from pathlib import Path

import pytest

from dop_lightning.foundation.names import LONGEST, safe_name, unique_names

HOSTILE = [
    "..",
    ".",
    "",
    " ",
    "/",
    "/etc/passwd",
    "../../up",
    "..\\..\\up",
    "C:\\Windows",
    "a/../../b",
    "~root",
    "-rf",
    "--help",
    ".hidden",
    "a\0b",
    "a\nb",
    "a:b*c?d<e>f|g\"h'i",
    "$(reboot)",
    "%2e%2e%2f",
    "日本語",
    "🙂",
    "‮evil",
    "x" * 1000,
    "é" * 300,
    "trailing. . .",
    "checkpoints",
    "Checkpoints",
    "results.csv",
    "metrics.csv",
    "config.yaml",
    "manifest.json",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_inside_the_folder(text: str, tmp_path: Path) -> None:
    for file in ("checkpoints", "results.csv", "metrics.csv", "config.yaml", "manifest.json"):
        (tmp_path / file).write_text("of the run")
    before = set(tmp_path.iterdir())
    name = safe_name(text)
    folder = tmp_path / name
    assert folder.resolve().parent == tmp_path.resolve()
    folder.mkdir()  # is not there yet, and can be made
    assert set(tmp_path.iterdir()) - before == {folder}
    assert not name.startswith((".", "-", "_", "~"))
    assert not name.endswith((".", " "))
    assert 0 < len(name.encode()) <= LONGEST + 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("photo", "photo"),
        ("my photo (1)", "my_photo_1"),
        ("Köln-2024.v2", "Köln-2024.v2"),
        ("a/b", "a_b"),
        ("日本語", "日本語"),
        ("Ко\u0301пия №2", "Ко́пия_No2"),
        ("🙂", "problem"),
        ("checkpoints", "checkpoints_"),
        ("n50-r5-gross-outliers-0.3-seed0", "n50-r5-gross-outliers-0.3-seed0"),
    ],
)
def test_valid_name_is_unchanged(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert safe_name(name) == name


def test_names_are_made_unique_in_order() -> None:
    assert unique_names(["a", "b", "a", "A", "a-2", "a"]) == ["a", "b", "a-2", "A-3", "a-2-2", "a-4"]


def test_names_of_hostile_inputs_are_unique() -> None:
    names = unique_names([safe_name(text) for text in HOSTILE * 2])
    assert len({name.lower() for name in names}) == 2 * len(HOSTILE)
