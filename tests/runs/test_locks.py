"""Numbers that one process at a time may hold."""

import subprocess
import sys
from pathlib import Path

import pytest

from dop_lightning.runs.locks import Claims, is_held

pytest.importorskip("fcntl")

HOLDS = """
import sys
from dop_lightning.runs.locks import Claims
from pathlib import Path
claims = Claims(Path(sys.argv[1]))
print(claims.take([int(n) for n in sys.argv[2:]]), flush=True)
sys.stdin.read()
"""


def other(path: Path, *numbers: int) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDS, str(path), *map(str, numbers)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_lock_is_held_by_one_process_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    claims = Claims(path)
    process = other(path, 1, 2)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[]\n"
        assert claims.take([0, 1, 2, 3]) == [1, 2]
        assert Claims(path).take([0]) == []  # of the same process
        process.kill()  # as hard as can be
        process.wait()
        assert claims.take([1, 2]) == []
    finally:
        process.kill()
        process.communicate()
        claims.release()


def test_released_locks_are_free(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "lock")
    assert claims.take([5]) == []
    claims.release()
    claims.release()
    process = other(tmp_path / "lock", 5)
    out, _ = process.communicate("")
    assert out == "[]\n"


def test_querying_does_not_acquire(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert is_held(path, 1) is False
    assert is_held(path) is False
    process = other(path, 1, 2)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[]\n"
        assert [is_held(path, number) for number in range(4)] == [False, True, True, False]
        assert is_held(path) is True
        claims = Claims(path)
        assert claims.take([3]) == []
        assert is_held(path, 3) is True
        assert is_held(path, 1) is True  # without a second descriptor, which would free what is held here
        assert other(path, 3).communicate("")[0] == "[3]\n"
        claims.release()
    finally:
        process.kill()
        process.communicate()
    assert is_held(path, 1) is False


def test_unsupported_locks_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").touch()
    monkeypatch.setattr("dop_lightning.runs.locks.sys.platform", "plan9")
    assert is_held(tmp_path / "lock", 1) is None


def test_locks_are_acquired_again_if_the_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    claims = Claims(path)
    assert claims.take([1, 2]) == []
    assert claims.renew() == []
    path.unlink()
    assert claims.renew() == []
    assert other(path, 1, 3).communicate("")[0] == "[1]\n"
    path.unlink()
    process = other(path, 2)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "[]\n"
        assert claims.renew() == [2]
    finally:
        process.kill()
        process.communicate()
        claims.release()
