"""Tables of several processes."""

from pathlib import Path

from dop_lightning.runs.curves import CURVES, HEADER, TRIES, merge_curves, rebuild


def test_curves_of_all_batches_in_their_order(tmp_path: Path) -> None:
    (tmp_path / CURVES).mkdir(parents=True)
    for label in ("batch-0002", "batch-10000", "batch-0000"):
        (tmp_path / CURVES / f"{label}.csv").write_text(f"{label},1,loss,2.5\n")
    with (tmp_path / CURVES / "batch-0002.csv").open("a") as file:
        file.write("batch-0002,2,lo")  # at this very moment
    merge_curves(tmp_path)
    rows = [f"{label},1,loss,2.5\n" for label in ("batch-0000", "batch-0002", "batch-10000")]
    assert (tmp_path / "metrics.csv").read_text() == HEADER + "".join(rows)


def test_without_curves_there_is_a_header(tmp_path: Path) -> None:
    merge_curves(tmp_path)
    assert (tmp_path / "metrics.csv").read_text() == HEADER


def test_what_comes_while_a_table_is_built_is_in_it(tmp_path: Path) -> None:
    """As when another process finishes between reading and writing."""
    (tmp_path / "1.json").write_text("one")
    built = []

    def build() -> None:
        built.append(sorted(path.name for path in tmp_path.glob("*.json")))
        if len(built) == 1:
            (tmp_path / "2.json").write_text("two")

    rebuild(lambda: tmp_path.glob("*.json"), build)
    assert built == [["1.json"], ["1.json", "2.json"]]


def test_a_file_that_changes_all_the_time_is_given_up(tmp_path: Path) -> None:
    file, builds = tmp_path / "a", []

    def build() -> None:
        builds.append(1)
        file.write_text("x" * len(builds))

    rebuild(lambda: [file], build)
    assert len(builds) == TRIES
