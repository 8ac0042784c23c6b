"""Tables of several processes."""

from pathlib import Path

from dop_lightning.runs.curves import (
    CURVES,
    HEADER,
    MAX_TRIES,
    add_line_checksums,
    append_lines,
    merge_curves,
    read_lines,
    rebuild,
)


def test_curves_of_all_batches_in_their_order(tmp_path: Path) -> None:
    (tmp_path / CURVES).mkdir(parents=True)
    for label in ("batch-0002", "batch-10000", "batch-0000"):
        (tmp_path / CURVES / f"{label}.csv").write_text(f"{label},1,loss,2.5\n")
    with (tmp_path / CURVES / "batch-0002.csv").open("a") as file:
        file.write("batch-0002,2,lo")  # at this very moment
    merge_curves(tmp_path)
    rows = [f"{label},1,loss,2.5\n" for label in ("batch-0000", "batch-0002", "batch-10000")]
    assert (tmp_path / "metrics.csv").read_text() == HEADER + "".join(rows)


def test_table_without_curves_has_a_header(tmp_path: Path) -> None:
    merge_curves(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == HEADER


def test_rows_added_while_building_a_table_are_included(tmp_path: Path) -> None:
    """As when another process finishes between reading and writing."""
    (tmp_path / "1.json").write_text("one")
    built = []

    def build() -> None:
        built.append(sorted(path.name for path in tmp_path.glob("*.json")))
        if len(built) == 1:
            (tmp_path / "2.json").write_text("two")

    rebuild(lambda: tmp_path.glob("*.json"), build)
    assert built == [["1.json"], ["1.json", "2.json"]]


def test_constantly_changing_file_is_given_up(tmp_path: Path) -> None:
    file, builds = tmp_path / "a", []

    def build() -> None:
        builds.append(1)
        file.write_text("x" * len(builds))

    rebuild(lambda: [file], build)
    assert len(builds) == MAX_TRIES


def curves(tmp_path, lines: int = 5):
    path = tmp_path / CURVES / "batch-0000.csv"
    path.parent.mkdir(parents=True)
    text = "".join(f"a,{k},loss,2.5\n" for k in range(lines))
    path.write_text("")
    for line in text.splitlines(keepends=True):
        append_lines(path, line)
    assert read_lines(path) == (text, 0)
    assert add_line_checksums(text) == path.read_text()
    return path, text


def test_every_flipped_bit_of_curves_is_detected(tmp_path):
    path, text = curves(tmp_path)
    whole = path.read_bytes()
    for k in range(8 * (len(whole) - 1)):  # without the last end of a line: that line counts as unfinished
        content = bytearray(whole)
        content[k // 8] ^= 1 << k % 8
        path.write_bytes(content)
        found = read_lines(path)
        assert found.damaged or found.text == text
        assert set(found.text.splitlines()) <= set(text.splitlines())


def test_missing_line_is_detected(tmp_path):
    path, _ = curves(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    assert read_lines(path) == ("a,0,loss,2.5\na,1,loss,2.5\na,4,loss,2.5\n", 1)


def test_curves_of_earlier_versions_are_read(tmp_path):
    path, text = curves(tmp_path)
    path.write_text(text)
    assert read_lines(path) == (text, 0)
