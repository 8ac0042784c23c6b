"""The table of CONTRIBUTING.md names files that exist, few for each part, and examples that are on the page."""

import re

import pytest

from tests.documents.harness import DOCS, ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

SECTION = PAGE.partition("## Adding a part")[2].partition("## Rules")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in re.findall(r"^\|.*\|$", SECTION, flags=re.MULTILINE)
][2:]

ASKED = ["signal", "operator", "corruption", "noise", "step rule", "optimizer", "stopping rule", "callback"]
ASKED += ["image format", "preset", "verb"]


def paths(cell: str) -> list[str]:
    """The files that a cell names."""
    return re.findall(r"`((?:dop_lightning|tests|docs)/[^`]*)`", cell)


def test_each_part_has_a_row() -> None:
    assert set(ASKED) <= {row[0] for row in ROWS}
    assert all(len(row) == 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_files_of_each_row_exist_and_are_few(row: list[str]) -> None:
    _, write, register, tests, example = row
    own = [*paths(write), *paths(register)]
    assert 1 <= len(own) <= 3
    assert 1 <= len(paths(tests)) <= 2
    for path in [*own, *paths(tests), *paths(example)]:
        place = ROOT / path
        assert place.parent.is_dir() if "NAME" in path else place.is_file(), path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_an_example_is_a_section_of_the_page(row: list[str]) -> None:
    headings = re.findall(r"^## (.*)$", (DOCS / "extending.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"extending\.md#([\w-]+)", row[4])) <= anchors


@pytest.mark.parametrize("room", re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE))
def test_rooms_exist(room: str) -> None:
    assert (ROOT / "dop_lightning" / room / "__init__.py").is_file()


def test_rooms_follow_the_order_of_the_contract() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\nlayers = [")[2].partition("]")[0]
    assert listed == re.findall(r"\w+", contract)[::-1]
