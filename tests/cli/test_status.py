"""``dop status``: on a live run, after it was killed, for sweeps, and its options."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from dop_lightning.cli.experiments import runner
from dop_lightning.lightning.callbacks import ProcessHeartbeat
from dop_lightning.runs.heartbeat import Heartbeat, read_heartbeats, start_time, write_heartbeat
from tests.runs.builders import write_run
from tests.runs.sweeps.builders import ENDLESS, until, write_configs

FIT = ["fit", "--config", "base.yaml", "--data.seeds", "2", "--trainer.default_root_dir", "run"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_configs(tmp_path)


def sign(run: Path, **values: object) -> None:
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_time(os.getpid()), "time": time.time()}
    write_heartbeat(run, Heartbeat(0, **{**own, **values}))  # type: ignore[arg-type]


def test_a_live_run(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Look(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            seen.append((dop("status", "run"), dop("table", "run").err))

    monkeypatch.setattr("dop_lightning.lightning.callbacks.heartbeat._TIME_DIVISOR", 0)
    monkeypatch.setattr(runner, "ProcessHeartbeat", lambda: ProcessHeartbeat(1e-9))
    trainer_fit = pl.Trainer.fit

    def fit(trainer: pl.Trainer, *args: Any, **options: Any) -> None:
        trainer.callbacks.append(Look())
        trainer_fit(trainer, *args, **options)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    assert dop(*FIT, "--trainer.max_steps", "150").status == 0
    said, table = seen[1]
    lines = said.out.splitlines()
    assert lines[0].startswith("run: running, 100 of 150 iterations, ")
    assert lines[0].endswith(" left")
    assert lines[1] == "2 problems: 2 running"
    assert [line.split() for line in lines[3:6]] == [
        ["problem", "status", "iterations"],
        *(["n12-r1-gross-outliers-0.1-seed" + seed, "running", "100"] for seed in "01"),
    ]
    assert table == "run: 2 of 2 problems without a result; still running, see dop status\n"
    said = dop("status", "run")
    assert (said.status, said.out.splitlines()[:2]) == (0, ["run: done", "2 problems: 2 done"])


def test_killed_run_is_not_running(dop) -> None:
    with Path("said.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "dop_lightning", *FIT, *ENDLESS], stderr=log)
    try:
        until(lambda: any(sign.at_work for sign in read_heartbeats(Path("run"))))
        said = dop("status", "run")
        assert (said.status, said.out.splitlines()[0].split(",")[0]) == (0, "run: running")
        process.kill()
        process.wait()
        said = dop("status", "run")
        assert said.status == 1
        assert said.out.splitlines()[:2] == ["run: failed", "2 problems: 2 failed"]
        assert f"run: process {process.pid} on {socket.gethostname()} was killed, its last heartbeat" in said.out
        assert said.out.splitlines()[-1].strip() == str(Path("said.txt").resolve())
    finally:
        process.kill()
        process.wait()


def test_help_and_status_avoid_heavy_imports() -> None:
    write_run(Path("run"), {"a": None})
    sign(Path("run"), at_work={"a": 3})
    probe = (
        "import sys\nfrom dop_lightning.cli.main import main\nmain(['status', 'run', '--json'])\nprint(*sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "pytorch_lightning", "yaml"} & set(process.stdout.splitlines()[-1].split())


def test_several_runs_have_one_row_each(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(Path("runs/a"), {"a": {}, "b": {"status": "diverged"}})
    write_run(Path("runs/b"), {"a": {}, "b": None})
    sign(Path("runs/b"), at_work={"b": 50}, iteration=50, maximum=300, rate=2.5)
    write_run(Path("runs/c"), {"a": None})
    sign(Path("runs/c"), at_work={"a": 7}, end="failed", reason="x.png: is gone", log="/tmp/said.txt")
    monkeypatch.setattr("dop_lightning.runs.status.time.time", lambda: read_heartbeats(Path("runs/b"))[0].time)
    said = dop("status", "runs")
    assert said.status == 1
    lines = said.out.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["run", "status", "problems", "iterations", "it/s", "left"],
        ["a", "done", "2", "of", "2"],
        ["b", "running", "1", "of", "2", "50/300", "2.5", "0:01:40"],
        ["c", "failed", "0", "of", "1"],
    ]
    assert lines[5] == "3 runs: 1 done, 1 running, 1 failed"
    assert lines[7] == f"c: process {os.getpid()} on {socket.gethostname()} failed: x.png: is gone"
    assert lines[8] == "    /tmp/said.txt"
    each = dop("status", "runs", "--each").out
    assert each.count("problem  status") == 3
    assert dop("status", "runs/a").status == 0


def test_important_ones_of_many_problems_are_listed(dop) -> None:
    write_run(Path("run"), {f"p{k:02}": {} if k < 25 else None for k in range(30)}, pictures=())
    sign(Path("run"), at_work={"p27": 5})
    out = dop("status", "run").out
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("p") and line[1:3].isdigit()]
    assert listed == [*(f"p{k:02}" for k in range(15)), *(f"p{k:02}" for k in range(25, 30))]
    assert "… and 10 more; --each lists all" in out
    assert len([line for line in dop("status", "run", "--each").out.splitlines() if line.startswith("p")]) == 31


def test_json_has_all(dop) -> None:
    write_run(Path("run"), {"a": {}, "b": None})
    sign(Path("run"), at_work={"b": 50}, iteration=50, maximum=300, rate=2.5)
    (run,) = json.loads(dop("status", "run", "--json").out)
    assert (run["name"], run["status"], run["counts"]) == ("run", "running", {"done": 1, "running": 1})
    assert (run["iterations"], run["maximum"], run["rate"]) == (50, 300, 2.5)
    assert run["problems"][1] == {"name": "b", "status": "running", "iterations": 50}
    assert (run["processes"][0]["pid"], run["processes"][0]["life"]) == (os.getpid(), "running")


def test_watching_ends_with_the_run(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(Path("run"), {"a": None})
    sign(run, at_work={"a": 3})
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            sign(run, at_work={"a": 9}, end="stopped", reason="SIGTERM")
            (run / "a" / "result.json").write_text('{"problem": "a", "status": "interrupted", "iterations": 9}')

    monkeypatch.setattr("dop_lightning.cli.status.time.sleep", sleep)
    said = dop("status", "run", "--watch", "0.5", "--json")
    assert (said.status, pauses) == (0, [0.5, 0.5])
    assert [json.loads(line)[0]["status"] for line in said.out.splitlines()] == ["running", "running", "interrupted"]
    assert dop("status", "run", "--watch").out.startswith("run: interrupted\n")


def test_ctrl_c_ends_watching(dop, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(Path("run"), {"a": None})

    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dop_lightning.cli.status.time.sleep", sleep)
    said = dop("status", "run", "--watch")
    assert (said.status, said.out.splitlines()[0]) == (0, "run: waiting")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none"], "none: must be the folder of a run or contain runs, but is not a folder"),
        (["."], ".: contains no run (a folder with manifest.json)"),
        ([], "the following arguments are required: RUN"),
        ([".", "--watch", "0"], "watch must be"),
    ],
)
def test_mistakes_give_one_line(arguments: list[str], text: str, dop) -> None:
    said = dop("status", *arguments)
    assert (said.status, said.out, said.err.count("\n")) == (2, "", 1)
    assert text in said.err
