"""A lock on a folder itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dop_lightning.foundation import folder_lock
from dop_lightning.foundation.atomic import atomic_text
from dop_lightning.foundation.folder_lock import FolderLock

pytest.importorskip("fcntl")

HOLDS = """
import sys
from pathlib import Path
from dop_lightning.foundation.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print(lock.acquire(sys.argv[2] == "first"), flush=True)
sys.stdin.read()
"""


def answer(folder: Path, first: bool = True) -> str:
    """What another process gets, which ends at once."""
    command = [sys.executable, "-c", HOLDS, str(folder), "first" if first else "further"]
    return subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout.strip()


def test_one_start_holds_a_folder_even_if_files_are_removed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLDS, str(run), "first"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        (run / "lock").touch()
        (run / "lock").unlink()
        assert not FolderLock(run).acquire()
        assert answer(run) == "False"
        assert answer(run, first=False) == "True"  # a further process of the same start
        process.kill()  # as hard as can be
        process.wait()
        with FolderLock(run) as lock:
            assert lock.acquire()
            assert answer(run) == "False"
    finally:
        process.kill()
        process.communicate()
    assert answer(run) == "True"


def test_process_may_hold_a_folder_twice(tmp_path: Path) -> None:
    one, two = FolderLock(tmp_path), FolderLock(tmp_path)
    assert one.acquire()
    assert one.acquire()
    assert two.acquire()
    one.release()
    one.release()
    assert answer(tmp_path) == "False"
    two.release()
    assert answer(tmp_path) == "True"


def test_moved_or_replaced_folder_is_detected(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with FolderLock(run) as lock:
        assert lock.acquire()
        assert lock.is_intact
        run.rename(tmp_path / "elsewhere")
        assert not lock.is_intact
        run.mkdir()
        assert not lock.is_intact
        shutil.rmtree(run)
        (tmp_path / "elsewhere").rename(run)
        assert lock.is_intact


def test_locks_are_granted_without_support(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "fcntl", None)
    with FolderLock(tmp_path) as lock:
        assert lock.acquire()
        assert lock.is_intact


def test_no_files_are_created_in_a_moved_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with FolderLock(run) as lock:
        lock.require()
        atomic_text(run / "deep" / "a", "1")
        run.rename(tmp_path / "moved")
        with pytest.raises(FileNotFoundError, match="was moved, removed or replaced during this run"):
            atomic_text(run / "deep" / "a", "2")
        assert not run.exists()
        with FolderLock(run) as again:  # a new run in its place
            again.require()
            atomic_text(run / "deep" / "a", "3")
    assert (tmp_path / "moved" / "deep" / "a").read_text() == "1"
    shutil.rmtree(run)
    atomic_text(run / "a", "4")  # whose lock is released
