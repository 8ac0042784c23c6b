"""Compilation: caching, rebuilding after changes, and errors."""

import contextlib
import ctypes
import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dop_lightning.foundation.native import compiled
from dop_lightning.foundation.native.cache import is_usable, sum_file, written_by_others
from dop_lightning.foundation.native.compiled import build, cache_folder, compiler, library
from dop_lightning.foundation.processor import Processor

needs_compiler = pytest.mark.skipif(library() is None, reason="needs a C++ compiler")


UNOPTIMIZED = tuple("-O0" if flag == "-O3" else flag for flag in compiled.FLAGS)
"""Flags of builds that only need to exist: they take a sixth of the time."""


@pytest.fixture(autouse=True)
def _unoptimized(monkeypatch):
    monkeypatch.setattr(compiled, "FLAGS", UNOPTIMIZED)


@pytest.fixture
def fresh():
    """As in a process that has asked for no kernels yet, and afterwards again."""
    library.cache_clear()
    yield
    library.cache_clear()


def fake_compiler(folder, text: str):
    path = folder / "fake-c++"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@needs_compiler
def test_library_is_built_once(tmp_path):
    made = build(tmp_path)
    assert ctypes.CDLL(str(made)).join_backward
    changed = made.stat().st_mtime_ns
    assert build(tmp_path) == made
    assert made.stat().st_mtime_ns == changed
    assert {path.name for path in tmp_path.iterdir()} == {made.name, f"{made.name}.sha256"}  # nothing half-made is left


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A library and its contents."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "FLAGS", UNOPTIMIZED)
        made = build(tmp_path_factory.mktemp("kernels"))
    return made, made.read_bytes()


@pytest.fixture
def not_compiled(whole, monkeypatch):
    """Copy the library wherever it would be compiled."""
    _, content = whole

    def compile_again(command, linker, folder):
        path = folder / "kernels.so"
        path.write_bytes(content)
        return path

    version = compiled._version(compiler())
    monkeypatch.setattr(compiled, "_version", lambda _: version)  # asked once
    monkeypatch.setattr(compiled, "_compile", compile_again)


@pytest.fixture
def spoilt(whole, not_compiled):
    """Put other contents in the place of the library, and return what is built then, without compiling."""
    made, _ = whole

    def spoil(other: bytes):
        made.write_bytes(other)
        return build(made.parent)

    yield spoil
    build(made.parent)


@needs_compiler
def test_truncated_library_is_rebuilt(whole, spoilt):
    _, content = whole
    for k in range(50):
        assert spoilt(content[: len(content) * k // 50]).read_bytes() == content


@needs_compiler
def test_library_with_a_flipped_bit_is_rebuilt(whole, spoilt):
    draws, (_, content) = random.Random(0), whole
    for _ in range(200):
        other = bytearray(content)
        other[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        assert spoilt(other).read_bytes() == content


@needs_compiler
def test_library_without_its_hash_is_rebuilt(whole, spoilt):
    made, content = whole
    for hash in (b"", b"\xff", b"0" * 64):
        sum_file(made).write_bytes(hash)
        assert spoilt(content) == made
        assert is_usable(made)
    sum_file(made).unlink()
    assert spoilt(content) == made
    assert is_usable(made)


@needs_compiler
def test_library_writable_by_others_is_rebuilt(whole, spoilt):
    made, _ = whole
    for path in (made, sum_file(made)):
        path.chmod(0o666)
        assert not is_usable(made)
        before = made.stat().st_ino
        build(made.parent)
        assert made.stat().st_ino != before
        assert is_usable(made)


@needs_compiler
def test_folder_writable_by_others_is_made_private(whole, spoilt):
    made, content = whole
    made.parent.chmod(0o777)
    assert written_by_others(made.parent) == f"{made.parent} can be written by other users"
    assert spoilt(content) == made
    assert not written_by_others(made.parent)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs owners of files")
def test_folder_of_another_user_gives_one_hint(fresh, monkeypatch, tmp_path, caplog):
    (tmp_path / "dop_lightning").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    if tmp_path.stat().st_uid == 0:  # root is trusted
        os.chown(tmp_path / "dop_lightning", 4321, -1)
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert len(caplog.records) == 1
    assert f"{tmp_path / 'dop_lightning'} belongs to another user; remove it, or set XDG_CACHE_HOME" in caplog.text


@needs_compiler
def test_library_without_the_functions_gives_one_hint(fresh, monkeypatch, tmp_path, caplog):
    (tmp_path / "empty.cpp").write_text('extern "C" void join() {}')
    command = f'g++ -shared -fPIC {tmp_path}/empty.cpp -o "$2"'
    other = fake_compiler(tmp_path, f'[ "$1" = --version ] && exit; while [ "$1" != -o ]; do shift; done; {command}')
    monkeypatch.setenv("CXX", str(other))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert len(caplog.records) == 1
    lacking = ", ".join(name for name in compiled.SYMBOLS if name != "join")
    assert f".so lacks the functions {lacking}" in caplog.text


@needs_compiler
def test_other_flags_are_another_library(not_compiled, tmp_path, monkeypatch):
    made = build(tmp_path)
    monkeypatch.setattr(compiled, "FLAGS", (*compiled.FLAGS, "-DOTHER"))
    assert build(tmp_path) != made


@needs_compiler
@pytest.mark.parametrize("flag", ["-mcpu=no-such-processor", "-fno-such-flag"])
def test_a_compiler_that_cannot_tune_compiles_for_the_architecture(flag, tmp_path, monkeypatch):
    monkeypatch.setattr(Processor, "tuning_flags", (flag,))
    made = build(tmp_path)
    assert not compiled.is_tuned(made)
    assert ctypes.CDLL(str(made)).join_backward
    changed = made.stat().st_mtime_ns
    assert build(tmp_path) == made  # and does not try again
    assert made.stat().st_mtime_ns == changed


@needs_compiler
def test_an_architecture_without_a_flag_for_tuning(not_compiled, tmp_path, monkeypatch):
    monkeypatch.setattr(Processor, "tuning_flags", ())
    assert not compiled.is_tuned(build(tmp_path))


@needs_compiler
def test_kernels_are_tuned_to_the_processor(monkeypatch):
    monkeypatch.undo()
    assert "-O3" in compiled.FLAGS
    assert compiled.is_tuned(build(cache_folder()))  # which needs_compiler has built


def processes_named(name: str) -> list[str]:
    """Return the command lines of the processes that contain a name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if name in line]


@pytest.fixture
def slow_compiler(tmp_path, monkeypatch):
    """A compiler that fails for one source, and takes minutes, in a child process, for the others."""
    failing = "case $* in *krige.cpp*) sleep 0.5; echo krige.cpp:1: error: wrong >&2; exit 1;; esac"
    text = f'[ "$1" = --version ] && exit; {failing}; touch "$TMPDIR/half"; sh -c "sleep 300; : {tmp_path}"; exit 0'
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, text)))
    monkeypatch.setattr(Processor, "tuning_flags", ())
    monkeypatch.setattr(compiled, "usable_cores", lambda: 5)
    yield tmp_path / "made"
    assert list((tmp_path / "made").iterdir()) == []
    if sys.platform == "linux":
        patience = time.monotonic() + 20
        while (left := processes_named(str(tmp_path))) and time.monotonic() < patience:
            time.sleep(0.05)  # on a busy machine, killed processes end later
        assert left == []


def test_the_first_failure_stops_all_compilers(slow_compiler, monkeypatch):
    monkeypatch.setattr(compiled, "SOURCES", ("activate.cpp", "krige.cpp"))
    with pytest.raises(RuntimeError, match=r"^fake-c\+\+ failed: krige.cpp:1: error: wrong$"):
        build(slow_compiler)


def test_ctrl_c_stops_all_compilers(slow_compiler, monkeypatch):
    monkeypatch.setattr(compiled, "SOURCES", ("activate.cpp", "join.cpp"))
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        build(slow_compiler)


@needs_compiler
@pytest.mark.parametrize("cores", [1, 2, 64])
def test_no_more_compilers_run_than_there_are_cores(cores, tmp_path, monkeypatch):
    count = (
        f'touch {tmp_path}/on.$$; ls {tmp_path} | grep -c "^on" >> {tmp_path}/counts; sleep 0.3; rm {tmp_path}/on.$$'
    )
    fake = fake_compiler(
        tmp_path, f'[ "$1" = --version ] && exit; {count}; while [ "$1" != -o ]; do shift; done; : > "$2"'
    )
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setattr(compiled, "usable_cores", lambda: cores)
    build(tmp_path / "made")
    counts = [int(line) for line in (tmp_path / "counts").read_text().split()]
    assert len(counts) == len(compiled.SOURCES) + 1
    assert max(counts) == min(cores, len(compiled.SOURCES))


def test_the_cache_follows_the_convention(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dop_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder().parent.name == ".cache"


def test_missing_compiler_gives_one_hint(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.WARNING):
        assert library() is None
        assert library() is None
    assert len(caplog.records) == 1
    assert "g++ was not found" in caplog.text


def test_missing_requested_compiler_is_named(fresh, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-c++")
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "the compiler no-such-c++ in $CXX was not found" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are for Linux")
def test_a_compiler_may_be_named_with_options(monkeypatch):
    monkeypatch.setenv("CXX", "env g++ -m64")
    assert compiler() == ["env", "g++", "-m64"]


def test_clang_is_refused_before_it_compiles(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, 'echo "Debian clang version 19.1"')))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "is clang, whose OpenMP differs from that of torch; use g++ 9 or later" in caplog.text


def test_other_systems_do_not_look_for_a_compiler(fresh, monkeypatch, caplog):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(shutil, "which", lambda _: pytest.fail("looked for"))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "with g++ on Linux only, got darwin" in caplog.text


def test_line_with_the_error_is_printed(fresh, monkeypatch, tmp_path, caplog):
    said = 'echo "In file included from x.cpp:1:" >&2; echo "common.h:3: error: no such thing" >&2; exit 1'
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, f'[ "$1" = --version ] || {{ {said}; }}')))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "fake-c++ failed: common.h:3: error: no such thing" in caplog.text


def test_failing_compiler_gives_one_hint(fresh, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(fake_compiler(tmp_path, 'echo "no such target" >&2; exit 1')))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "fake-c++ failed: no such target" in caplog.text
    assert not list((tmp_path / "cache" / "dop_lightning").iterdir())


@needs_compiler
def test_damaged_library_is_rebuilt(fresh, not_compiled, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = build(cache_folder())
    made.write_bytes(b"spoilt")
    with caplog.at_level(logging.WARNING):
        assert library() is not None
    assert not caplog.records


def test_unloadable_library_gives_one_hint(fresh, monkeypatch, tmp_path, caplog):
    cut = fake_compiler(tmp_path, 'while [ "$1" != -o ]; do shift; done; echo cut > "$2"')
    monkeypatch.setenv("CXX", str(cut))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "kernels-" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_unwritable_cache_gives_one_hint(fresh, monkeypatch, tmp_path, caplog):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert library() is None
    assert "Permission" in caplog.text
