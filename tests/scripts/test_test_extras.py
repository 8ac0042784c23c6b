"""``make test-extras``: its table has all extras, and what it finds is counted."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = "test_extras"
ROOT = Path(__file__).parents[2]


def test_every_extra_is_tested(script: ModuleType) -> None:
    assert set(script.names()) == set(script.EXTRAS)


def test_the_tests_of_an_extra_exist(script: ModuleType) -> None:
    for name in script.names():
        for argument in script.EXTRAS[name].tests:
            assert not argument.startswith("tests/") or (ROOT / argument).exists(), argument


def test_failures_are_counted(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(script, "make_base", lambda: (Path("base"), Path("wheel")))

    def check(name: str, base: Path, wheel: Path) -> str:
        if name == "zarr":
            raise script.StepError("installing failed")
        return "installed in 1 s"

    assert script.main(["hdf5", "zarr"], check) == 1
    assert capsys.readouterr().out.splitlines() == [
        "hdf5        passed  installed in 1 s",
        "zarr        FAILED  installing failed",
        "1 of 2 extras passed",
    ]
    assert script.main(["hdf5"], check) == 0
    with pytest.raises(SystemExit):
        script.main(["moon"], check)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("pass", "the task succeeds without the extra"),
        ("raise ImportError('no')", "the last line without the extra must match"),
        ("raise ImportError('pip install \"dop_lightning[hdf5]\"')", None),
    ],
)
def test_message_without_an_extra(script: ModuleType, task: str, message: str | None, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    if message is None:
        script.check_refusal("hdf5", script.Extra(task), tmp_path, tmp_path)
        return
    with pytest.raises(script.StepError, match=message):
        script.check_refusal("hdf5", script.Extra(task), tmp_path, tmp_path)
