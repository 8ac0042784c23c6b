"""State machine for Hypothesis: random sequences of starts, kills, growth, moves and damage of one run.

After each sequence, the run is finished and compared with an undisturbed run.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from killable_command import KINDS, Child, Ended, Stop, call
from run_folder_cases import CASES, Case, Level, files, rows, temporary_files, write_inputs

from dop_lightning.runs.copies import copy_of
from dop_lightning.runs.folder import RunFolder

MAX_PROBLEMS = 3

IN_USE = "another process (is (using|working)|used this folder)"
"""Messages of a start that finds the folder in use."""

NOT_DAMAGED = ("events.out", "lock")
"""Prefixes of the names of files that a run never reads."""

LOOKS = ("verify", "status", "table", "report")

MOMENTS = st.integers(1, 15) | st.integers(1, 80)
"""Numbers of file operations: a start of a finished run has about 15, a first start about 60."""

STOPS = st.builds(Stop, st.sampled_from(KINDS), MOMENTS)

DAMAGES = st.tuples(st.integers(0, 1000), st.sampled_from(("flip", "cut", "empty", "delete")), st.integers(0, 10**6))
"""Index of the file, kind of damage, and position."""


class Place:
    """Folders that all sequences share: inputs, and undisturbed runs by case and growth."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.inputs = home / "inputs"
        self.inputs.mkdir()
        write_inputs(self.inputs)
        self.sequences = 0
        self.outcomes: Counter[str] = Counter()
        self._undisturbed: dict[tuple[str, tuple[Level, ...]], Path] = {}

    def undisturbed(self, name: str, levels: tuple[Level, ...]) -> Path:
        """Return the folder of an undisturbed run that was started once per level."""
        if (name, levels) not in self._undisturbed:
            run = self.home / f"undisturbed-{len(self._undisturbed)}"
            for level in levels:
                ended = call(CASES[name].command(self.inputs, run, level), self.home)
                assert ended.status == 0, ended.text
            self._undisturbed[name, levels] = run
        return self._undisturbed[name, levels]

    def warm(self, names: list[str]) -> None:
        """Run each case once in this process, so that children need not import or compile anything."""
        from dop_lightning.cli.main import main as dop

        for name in names:
            dop(CASES[name].command(self.inputs, self.home / "warm" / name, Level(1, 1)))


def snapshot(run: Path) -> dict[str, bytes]:
    """Return the contents of all files that a refused start must not change."""
    found = (path for path in sorted(run.rglob("*")) if path.is_file())
    kept = (path for path in found if path.name != "lock" and path.parent.name != "processes")
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in kept}


def changes(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Return the names of files that differ."""
    return [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock on a folder."""
    if not folder.is_dir():
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class RunFolderMachine(RuleBasedStateMachine):
    """One run in one folder.

    Attributes:
        place: shared folders, set by the program that runs the machine.
        names: names of the cases to draw from.
    """

    place: Place
    names: tuple[str, ...] = tuple(CASES)

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="sequence-", dir=self.place.home))
        self.run, self.moves = self.home / "run", 0
        self.level = Level(1, 1)
        self.counts: list[int] = []
        self.damaged: set[str] = set()
        self.lost_curves = False

    @initialize(name=st.deferred(lambda: st.sampled_from(RunFolderMachine.names)))
    def choose(self, name: str) -> None:
        self.name = name
        self.case: Case = CASES[name]

    # ---------------------------------------------------------------------------------------------------------- rules

    @rule()
    def start(self) -> None:
        self._start()

    @rule(at=MOMENTS)
    def kill(self, at: int) -> None:
        self._start(Stop("kill", at))

    @rule(stop=STOPS)
    def stop(self, stop: Stop) -> None:
        self._start(stop)

    @rule(stop=STOPS)
    def start_from_its_config(self, stop: Stop) -> None:
        """Start from the saved config of the run, wherever its folder is."""
        if self.case.has_config and (self.run / "config.yaml").is_file() and self._problems() == self.level.problems:
            self._start(stop, ["fit", "--config", str(self.run / "config.yaml")])

    @rule(problems=st.integers(0, 1), stop=STOPS)
    def grow(self, problems: int, stop: Stop) -> None:
        """Add a problem, or increase the number of iterations."""
        self._grow(problems)
        self._start(stop)

    @rule()
    def move(self) -> None:
        if not self.run.is_dir():
            return
        self.moves += 1
        self.run = self.run.rename(self.home / f"moved-{self.moves}")

    @rule(damages=st.lists(DAMAGES, min_size=1, max_size=3))
    def damage(self, damages: list[tuple[int, str, int]]) -> None:
        """Damage one to three files."""
        for which, how, where in damages:
            if found := self._files():
                self._damage(found[which % len(found)], how, where)

    @rule(at=MOMENTS, grown=st.booleans(), kill=st.booleans())
    def two_starts(self, at: int, grown: bool, kill: bool) -> None:
        """Start a second process while the first one is paused; then continue or kill the first one."""
        with Child(self._command(), self.home, Stop("pause", at)) as first:
            ended = first.wait_for_pause()
            if ended is not None:
                self._check(ended, None)
                return
            held, before, level = is_locked(self.run), snapshot(self.run), self.level
            self._read_counts()
            if grown:
                self._grow(1)
            second = call(self._command(), self.home)
            self._happened(
                f"second start {'beside' if held else 'before'} the first one", f"exit status {second.status}"
            )
            if held:
                assert second.status == 2, second
                assert re.search(IN_USE, second.text), second.text
                assert not (odd := changes(before, snapshot(self.run))), odd
                self.level = level
            else:
                self._check(second, None, may_be_refused=f"{IN_USE}|missing")
            first.send(signal.SIGKILL if kill else signal.SIGCONT)
            ended = first.wait()
            if kill:
                assert ended.status == -signal.SIGKILL
                self._read_counts()
            else:
                self._check(ended, None, may_be_refused="" if held else f"given|in this folder|{IN_USE}|missing")

    @rule(at=MOMENTS)
    def move_while_running(self, at: int) -> None:
        """Move the folder while a process is running in it."""
        old = self.run
        if not old.is_dir():
            return
        with Child(self._command(), self.home, Stop("pause", at)) as child:
            ended = child.wait_for_pause()
            if ended is not None:
                self._check(ended, None)
                return
            held = is_locked(self.run)
            self.move()
            child.send(signal.SIGCONT)
            ended = child.wait()
        self._happened("moved during a run" if held else "moved before the start", _last(ended))
        if held:
            self._no_traceback(ended)
            assert not old.exists(), f"files were written after the move: {sorted(old.rglob('*'))}"
        elif old.exists():  # a process that had not yet begun starts a new run
            shutil.rmtree(old)
        self._read_counts()

    @rule()
    def run_read_only_verbs(self) -> None:
        if self._problems() is None:
            return
        before = snapshot(self.run)
        for verb in LOOKS:
            ended = call([verb, str(self.run)], self.home)
            self._no_traceback(ended)
            assert ended.status in (0, 1, 2), (verb, ended)
            assert ended.status != 2 or self.damaged or "results" in ended.text, (verb, ended)
        odd = changes(before, snapshot(self.run))
        assert set(odd) <= {"report.html", "results.csv"}, f"changed: {odd}"

    @invariant()
    def only_the_run_exists(self) -> None:
        """Check that there is one run, and no other file."""
        assert {path.name for path in self.home.iterdir()} <= {self.run.name}

    def teardown(self) -> None:
        """Finish the run, and compare it with the undisturbed one."""
        if not hasattr(self, "case"):
            return
        type(self).place.sequences += 1
        self._start()
        once = self.place.undisturbed(self.name, tuple(Level(count, self.level.iterations) for count in self.counts))
        assert rows(self.run) == rows(once)
        mine, its = files(self.run), files(once)
        if self.lost_curves:
            mine.pop("metrics.csv"), its.pop("metrics.csv")
        assert not (odd := changes(mine, its)), f"differ from the undisturbed run: {odd}"
        assert not (odd := temporary_files(self.run)), f"temporary files: {odd}"
        verified = call(["verify", str(self.run)], self.home)
        lasting = [line for line in verified.text.splitlines() if "the next checkpoint replaces it" in line]
        assert verified.status == bool(lasting), verified.text
        shutil.rmtree(self.home)

    # ---------------------------------------------------------------------------------------------------------- steps

    def _damage(self, path: Path, how: str, where: int) -> None:
        content = bytearray(path.read_bytes())
        place = where % max(1, len(content))
        name = path.relative_to(self.run).as_posix()
        self._happened(how, f"{name}, at {place} of {len(content)}")
        self.damaged.add(name)
        if how == "delete":
            path.unlink()
        elif how == "flip" and content:
            content[place] ^= 1 << where % 8
            path.write_bytes(content)
        else:
            path.write_bytes(content[:place] if how == "cut" else b"")

    def _command(self) -> list[str]:
        return self.case.command(self.place.inputs, self.run, self.level)

    def _grow(self, problems: int) -> None:
        if problems:
            self.level = self.level._replace(problems=min(MAX_PROBLEMS, self.level.problems + 1))
        elif self.case.runs_on:
            self.level = self.level._replace(iterations=2)

    def _start(self, stop: Stop | None = None, command: list[str] | None = None) -> None:
        """Start, and follow the instructions about damaged files until a start is accepted."""
        command = command or self._command()
        for _ in range(6):
            before = snapshot(self.run)
            ended = call(command, self.home, stop)
            if not (ended.status == 2 and self.damaged and "No space left" not in ended.text):
                self._check(ended, stop)
                return
            self._no_traceback(ended)
            assert not (odd := changes(before, snapshot(self.run))), f"refused, but changed {odd}: {ended.text}"
            if not self._follow(_last(ended)):
                self._begin_again(ended)
                command = self._command()
        raise AssertionError(f"refused repeatedly: {ended.text}")

    def _follow(self, line: str) -> bool:
        """Follow the instruction of a message; return whether it contains one."""
        named = [Path(text) for text in re.findall(rf"{re.escape(str(self.run))}/[^\s:;,)]+", line)]
        if not named:
            return False
        if "remove both" in line:
            other = re.search(r"and so is ([\w.-]+):", line)
            for path in (named[0], named[0].with_name(other[1] if other else f"{named[0].name}.copy")):
                path.unlink(missing_ok=True)
        elif "restore it from" in line:
            shutil.copy(named[1], named[0])
        elif re.search(r"remove (it|[\w.-]+) ", f"{line} "):
            named[0].unlink()
        else:
            return False
        self._happened("followed", line)
        return True

    def _begin_again(self, ended: Ended) -> None:
        """Remove the folder, because the manifest or the config and its copy are damaged."""
        pairs = [{name, f"checkpoints/{name}"} for name in ("manifest.json", "config.yaml")]
        assert any(pair <= self.damaged for pair in pairs), f"refused without a remedy: {ended.text}"
        self._happened("abandoned", _last(ended))
        shutil.rmtree(self.run)
        self.counts, self.damaged, self.lost_curves = [], set(), False

    def _check(self, ended: Ended, stop: Stop | None, may_be_refused: str = "") -> None:
        """Check how a start ended."""
        self._no_traceback(ended)
        allowed = {0}
        if stop is not None:
            allowed |= {
                "kill": {-9},
                "torn": {-9},
                "full": {2},
                "SIGTERM": {143, -15},
                "SIGINT": {130},
            }[stop.kind]
        if self.damaged or (may_be_refused and re.search(may_be_refused, ended.text)):
            allowed.add(2)
        assert ended.status in allowed, ended
        if stop is not None and ended.status == 2 and stop.kind == "full":
            assert "No space left on device" in _last(ended), ended.text
        self._happened(f"{stop.kind if stop else 'start'}, status {ended.status}")
        self.lost_curves = self.lost_curves or "part of the curves is lost" in ended.text
        self._read_counts()
        if ended.status == 0 and self.damaged:
            verified = call(["verify", str(self.run)], self.home)
            self.damaged = {name for name in self.damaged if f"/{name}: " in verified.text}

    def _happened(self, what: str, more: str = "") -> None:
        self.place.outcomes[what] += 1
        note(f"# {what}: {more}" if more else f"# {what}")

    def _no_traceback(self, ended: Ended) -> None:
        assert "Traceback" not in ended.text, ended.text
        if ended.status == 2:
            errors = [line for line in ended.text.splitlines() if re.match(r"dop \w+: error: ", line)]
            assert errors == [_last(ended)], ended.text

    def _read_counts(self) -> None:
        """Record the number of problems of the run; problems that were added by one start share batches."""
        count = self._problems()
        if count is not None and [count] != self.counts[-1:]:
            self.counts.append(count)

    def _problems(self) -> int | None:
        path = RunFolder(self.run).manifest_path
        for file in (path, copy_of(path)):
            try:
                return len(json.loads(file.read_bytes())["problems"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def _files(self) -> list[Path]:
        found = (path for path in sorted(self.run.rglob("*")) if path.is_file())
        return [path for path in found if not path.name.startswith(NOT_DAMAGED)]


def _last(ended: Ended) -> str:
    lines = [line for line in ended.text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
