"""Pages of an app under test: the server without a socket, and processes that only pretend to work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from dop_lightning.cli.app.child import Child
from dop_lightning.cli.app.examine import answer
from dop_lightning.cli.app.examiner import Examiner
from dop_lightning.cli.app.job import Job
from dop_lightning.cli.app.manager import Manager
from dop_lightning.cli.app.server import application
from dop_lightning.cli.configs.preset_times import Rates

TOKEN = "a-token"
HOST = "127.0.0.1:8000"
ONE, TWO = "1" * 32, "2" * 32

PRETEND = """
import json, os, pathlib, signal, sys, time
arguments = sys.argv[1:]
out, name = pathlib.Path(arguments[arguments.index("--out") + 1]), pathlib.Path(arguments[1]).stem
if "--seed" in arguments:
    print("dop recover: error: " + os.getcwd() + "/" + arguments[1] + ": seeds are bad luck", file=sys.stderr)
    sys.exit(2)
state = out / name / "state"
state.parent.mkdir(parents=True, exist_ok=True)
(out / "manifest.json").write_text(json.dumps({"problems": [{"name": name}]}))
done = int(state.read_text()) if state.exists() else 0
def stop(*_):
    state.write_text(str(done))
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
steps = 40 if "--iterations" in arguments else 2
while done < steps:
    done += 1
    progress = {"done": done, "maximum": steps, "seconds_left": 0.05 * (steps - done)}
    partial = pathlib.Path(os.environ["DOP_PROGRESS"] + ".part")
    partial.write_text(json.dumps(progress))
    partial.replace(os.environ["DOP_PROGRESS"])
    time.sleep(0.05)
(out / name / "recovered.png").write_bytes(b"recovered by " + " ".join(arguments).encode())
(out / name / "result.json").write_text(json.dumps({"status": "done", "iterations": done, "corruption_density": 0.25}))
"""


class InProcess(Examiner):
    """Reads files in the process of the test."""

    def start(self) -> None:
        """Nothing to start."""

    def _request(self, request: dict[str, Any], name: str) -> dict[str, Any]:
        return dict.fromkeys(request["names"], 1.0) if request["do"] == "times" else answer(request, Rates())


class Page:
    """A page of the app under test."""

    def __init__(self, client: TestClient, manager: Manager, session: str = ONE) -> None:
        self.client = client
        self.manager = manager
        self.base = f"/{TOKEN}/api/{session}"

    def post(self, path: str, **options: Any) -> Any:
        return self.client.post(f"{self.base}/{path}", headers={"Origin": f"http://{HOST}"}, **options)

    def upload(self, path: Path, kind: str = "recover") -> Any:
        return self.post("files", params={"kind": kind, "name": path.name}, content=path.read_bytes()).json()

    def start(self, job: dict[str, Any], **settings: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.post(f"jobs/{job['id']}/start", json={"settings": settings}).json()
        return found

    def jobs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get(f"{self.base}/jobs").json()
        return found

    def job(self, job: dict[str, Any]) -> dict[str, Any]:
        return next(each for each in self.jobs() if each["id"] == job["id"])

    def until(
        self, job: dict[str, Any], is_true: Callable[[dict[str, Any]], bool], seconds: float = 60
    ) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while not is_true(found := self.job(job)):
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def until_state(self, job: dict[str, Any], *states: str) -> dict[str, Any]:
        return self.until(job, lambda found: found["state"] in states)

    def file(self, job: dict[str, Any], what: str) -> Any:
        return self.client.get(f"{self.base}/jobs/{job['id']}/files/{what}")


@contextmanager
def page(folder: Path, *, pretends: bool = True, limit: int = 2**20) -> Iterator[Page]:
    """Yield a page; ``pretends`` replaces ``dop`` by a program that counts to 2, or to 40 with ``--iterations``."""
    folder.mkdir(exist_ok=True)
    program = folder.parent / "pretend.py"
    program.write_text(PRETEND)

    def pretend(job: Job) -> Child:
        return Child(job, (sys.executable, str(program)))

    examiner = InProcess(folder / "examiner.log")
    manager = Manager(folder, examiner, pretend, lambda _: None) if pretends else Manager(folder, examiner)
    with TestClient(application(manager, TOKEN, limit), base_url=f"http://{HOST}") as client:
        yield Page(client, manager)


def photograph(path: Path, side: int = 24) -> Path:
    """Write a photograph with white pixels."""
    pixels = np.fromfunction(lambda i, j, k: 80 + 2 * i + j + 5 * k, (side, side, 3)).astype(np.uint8)
    pixels[np.random.default_rng(0).random((side, side)) < 0.1] = 255
    Image.fromarray(pixels).save(path)
    return path
