"""The content of the wheel; `scripts/check_release.py` also installs it."""

import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = "check_release"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files of the checkout; an sdist has no list of them."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]
    if done.returncode or not names:
        pytest.skip("not a checkout")
    return names


@pytest.fixture(scope="module")
def built(script: ModuleType, tmp_path_factory: pytest.TempPathFactory, tracked: list[str]) -> dict[str, Path]:
    """Wheel and sdist of what is tracked, as it is now."""
    pytest.importorskip("hatchling")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).symlink_to(ROOT / name)
    return {kind: script.build(Path(sys.executable), source, out, kind) for kind in ("wheel", "sdist")}


def test_wheel_has_only_the_package(built: dict[str, Path], script: ModuleType, tracked: list[str]) -> None:
    inside = {name for name in script.wheel_files(built["wheel"]) if ".dist-info/" not in name}
    assert inside == script.expected_files(tracked)
    assert "dop_lightning/py.typed" in inside
    assert not [name for name in inside if name.startswith(("tests/", "scripts/", "docs/"))]


def test_sdist_has_all_tracked_files(built: dict[str, Path], tracked: list[str]) -> None:
    with tarfile.open(built["sdist"]) as tar:
        names = {member.name.partition("/")[2] for member in tar.getmembers()} - {"PKG-INFO"}
    assert names == set(tracked)


def test_pythons_are_found_and_a_bad_one_is_refused(script: ModuleType) -> None:
    assert [path for _, path in script.pythons([sys.executable])] == [sys.executable]
    with pytest.raises(SystemExit, match="must be one with ssl"):
        list(script.pythons(["/nowhere/python"]))


def test_lowest_versions_are_listed_for_all_requirements(script: ModuleType) -> None:
    assert script.lowest(["a[b]>=4.44,<5", "c>=2"]) == ["a[b]==4.44", "c==2"]
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert all(re.fullmatch(r"[\w\[\]-]+==[\d.]+", requirement) for requirement in script.lowest(needed))
