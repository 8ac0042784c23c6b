"""Requests of the page: uploads, the queue, stopping and resuming, corrected maps. Processes are simulated."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dop_lightning.cli.app.job import file_name
from tests.cli.app.builders import ONE, TOKEN, TWO, Page, page, photograph


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Page]:
    with page(tmp_path / "jobs") as found:
        yield found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return photograph(tmp_path / "photo.png")


def folders(app: Page) -> list[str]:
    return sorted(path.name for path in app.manager.folder.iterdir() if path.is_dir())


# -------------------------------------------------------------------------------------------------------------- uploads


def test_a_photograph_is_examined(app: Page, photo: Path) -> None:
    job = app.upload(photo)
    assert job["state"] == "ready"
    assert job["found"]["shape"] == [3, 24, 24]
    assert job["command"] == "dop recover photo.png --out restored"
    found = app.until(job, lambda found: "times" in found["found"])["found"]
    assert 0.03 < found["damaged"] < 0.2
    assert found["likely"] is None
    assert found["times"]["quick"] == 1.0
    assert app.file(job, "thumbnail").content.startswith(b"\x89PNG")


@pytest.mark.parametrize("kept", [200, 400])
def test_file_errors_equal_those_of_the_command(
    app: Page,
    photo: Path,
    kept: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dop_lightning.cli.main import main

    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:kept])
    answer = app.upload(cut)
    monkeypatch.chdir(tmp_path)
    assert main(["recover", "cut.png", "--out", "out"]) == 2
    assert f"dop recover: error: {answer['error']}\n" == capsys.readouterr().err
    assert folders(app) == []
    assert app.jobs() == []


def test_empty_file_or_file_of_another_kind(app: Page, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    assert app.upload(tmp_path / "empty.png")["error"] == "empty.png: the file is empty"
    (tmp_path / "notes.txt").write_text("nothing")
    assert "notes.txt" in app.upload(tmp_path / "notes.txt")["error"]
    assert folders(app) == []


def test_files_above_the_limit_are_refused(app: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    answer = app.post("files", params={"name": "large.png"}, content=(tmp_path / "large.png").read_bytes())
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("large.png: the file must have at most 1 MiB")

    def pieces() -> Iterator[bytes]:  # without a length in the header
        for _ in range(20):
            yield bytes(2**16)

    assert app.post("files", params={"name": "large.png"}, content=pieces()).status_code == 413
    assert folders(app) == []


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../../etc/passwd", "passwd"),
        ("..", "_"),
        ("", "file"),
        ("/etc/cron.d/x.png", "x.png"),
        ("a\\b\\c.png", "c.png"),
        ("--out.png", "_out.png"),
        ("frame[1].fits", "frame_1_.fits"),
        ("job.json", "job.json"),
        ("a\x00b\n.png", "a_b_.png"),
        ("x" * 300 + ".tiff", "x" * 115 + ".tiff"),
    ],
)
def test_names_of_files_have_no_meaning_as_paths(given: str, kept: str) -> None:
    assert file_name(given) == kept
    assert file_name(kept) == kept


def test_uploads_stay_in_their_folder(app: Page, photo: Path) -> None:
    answer = app.post("files", params={"name": "../../escaped.png"}, content=photo.read_bytes()).json()
    assert answer["name"] == "escaped.png"
    assert (app.manager.folder / answer["id"] / "escaped.png").is_file()
    assert not list(app.manager.folder.parent.glob("escaped.png"))


def test_file_cannot_overwrite_the_records_of_its_job(app: Page, photo: Path) -> None:
    for name, kept in (
        ("job.json", "job.json"),
        ("thumbnail.png", "thumbnail.png"),
        ("restored", "_restored"),
        (".app", "_app"),
        ("mask-2.png", "_mask-2.png"),
    ):
        job = app.post("files", params={"name": name}, content=photo.read_bytes()).json()
        assert job["name"] == kept
        assert (app.manager.folder / job["id"] / job["name"]).read_bytes() == photo.read_bytes()


# --------------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    "what",
    [
        ".app/job.json",
        "job.json",
        "../job.json",
        "..%2fjob.json",
        "%2e%2e/%2e%2e/x",
        "log-1.txt",
        "result.json",
        "photo.png",
        "/etc/passwd",
    ],
)
def test_no_other_file_can_be_read(app: Page, photo: Path, what: str) -> None:
    job = app.upload(photo)
    app.until_state(app.start(job), "done")
    answer = app.client.get(f"{app.base}/jobs/{job['id']}/files/{what}")
    assert answer.status_code == 404
    assert app.client.get(f"/{TOKEN}/{what}").status_code in (403, 404)


def test_pages_see_their_own_jobs_only(app: Page, photo: Path) -> None:
    job = app.upload(photo)
    other = Page(app.client, app.manager, TWO)
    assert other.jobs() == []
    assert other.file(job, "thumbnail").status_code == 404
    for action in ("start", "stop", "remove", "correct"):
        assert other.post(f"jobs/{job['id']}/{action}").status_code == 404
    mine = other.upload(photo)
    assert [each["id"] for each in other.jobs()] == [mine["id"]]
    assert [each["id"] for each in app.jobs()] == [job["id"]]
    wrong = Page(app.client, app.manager, "x")
    assert wrong.client.get(f"{wrong.base}/jobs").json() == {"error": "a session must have 32 hexadecimal digits"}


# ---------------------------------------------------------------------------------------------------------------- queue


def test_jobs_run_one_after_the_other(app: Page, tmp_path: Path) -> None:
    jobs = [app.upload(photograph(tmp_path / f"{name}.png")) for name in ("a", "b", "c")]
    started = [app.start(job, preset="quick") for job in jobs]
    assert [job["state"] for job in started[1:]] == ["waiting", "waiting"]
    assert app.job(jobs[2])["before"] >= 1
    for job in jobs:
        done = app.until_state(job, "done")
        assert done["summary"] == {"status": "done", "iterations": 2, "corruption_density": 0.25}
        name = done["name"]
        said = f"recovered by recover {name} --out restored --preset quick".encode()
        assert app.file(job, "result").content == said
        assert done["command"] == f"dop recover {name} --out restored --preset quick"
    answer = app.client.get(f"{app.base}/jobs/{jobs[0]['id']}/files/result?download")
    assert answer.headers["content-disposition"] == 'attachment; filename="a-restored.png"'


def test_stop_and_resume(app: Page, photo: Path) -> None:
    job = app.start(app.upload(photo), iterations=5)
    progress = app.until(job, lambda found: found["progress"].get("done", 0) >= 3)["progress"]
    assert progress["maximum"] == 40
    app.post(f"jobs/{job['id']}/stop")
    stopped = app.until_state(job, "stopped")
    assert stopped["can_resume"]
    saved = int((app.manager.folder / job["id"] / "restored" / "photo" / "state").read_text())
    assert 3 <= saved < 40
    app.start(job, iterations=5)
    assert app.until(job, lambda found: found["progress"].get("done", 0) > 0)["progress"]["done"] > saved
    assert app.until_state(job, "done")["attempt"] == 1


def test_waiting_job_is_removed_from_the_queue(app: Page, tmp_path: Path) -> None:
    first, second = (app.upload(photograph(tmp_path / f"{name}.png")) for name in ("a", "b"))
    app.start(first, iterations=5)
    app.start(second)
    assert app.post(f"jobs/{second['id']}/stop").json()["state"] == "ready"
    app.until_state(first, "running")
    assert app.post(f"jobs/{first['id']}/remove").status_code == 200
    assert [each["id"] for each in app.jobs()] == [second["id"]]
    assert folders(app) == [second["id"]]


def test_refused_command_is_explained(app: Page, photo: Path) -> None:
    job = app.start(app.upload(photo), seed=3)
    failed = app.until_state(job, "failed")
    assert failed["line"] == "dop recover: error: photo.png: seeds are bad luck"
    app.start(job)  # without the seed
    assert app.until_state(job, "done")["attempt"] == 1


def test_other_settings_get_a_separate_folder(app: Page, photo: Path) -> None:
    job = app.upload(photo)
    app.until_state(app.start(job), "done")
    assert app.start(job)["error"] == "photo.png is already done with these settings"
    app.until_state(app.start(job, damage="scratches+dust", per="pixel"), "done")
    assert app.job(job)["command"] == "dop recover photo.png --out restored-2 --damage scratches+dust --per pixel"
    assert (app.manager.folder / job["id"] / "restored").is_dir()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "paper"}, "preset must be one of instant, quick, default, best, got 'paper'"),
        ({"damage": "tears"}, "damage must be auto, points, lines, or some of"),
        ({"out": "/tmp/x"}, "settings of dop recover must not include 'out'"),
        ({"seed": "--out"}, "seed must be a whole number, got '--out'"),
        ({"iterations": 2.5}, "iterations must be a whole number, got 2.5"),
        ({"alpha": True}, "alpha must be a number, got True"),
        ([], "settings must be an object of names and values, got []"),
    ],
)
def test_settings_are_checked(app: Page, photo: Path, settings: object, said: str) -> None:
    job = app.upload(photo)
    answer = app.post(f"jobs/{job['id']}/start", json={"settings": settings}).json()
    assert answer["error"].startswith(said)
    assert app.job(job)["state"] == "ready"


def test_malformed_requests(app: Page, photo: Path) -> None:
    job = app.upload(photo)
    for content in (b"{", b"[]", b"\xff", b"[" * 50_000):
        assert app.post(f"jobs/{job['id']}/start", content=content).json()["error"].startswith("the request must")
    assert app.post(f"jobs/{job['id']}/start", content=bytes(2**17)).status_code == 413


# ------------------------------------------------------------------------------------------------------ corrected maps


def test_a_corrected_map_becomes_masks(app: Page, photo: Path) -> None:
    job = app.upload(photo)
    app.until_state(app.start(job, preset="quick"), "done")
    layer = np.zeros((24, 24), dtype=np.uint8)
    layer[2:5, 3:9], layer[10:12, 7] = 1, 2
    params = {"height": 24, "width": 24, "settings": json.dumps({"preset": "quick"})}
    answer = app.post(f"jobs/{job['id']}/correct", params=params, content=layer.tobytes()).json()
    assert answer["command"] == (
        "dop recover photo.png --out restored-2 --mask mask-2.png --undamaged undamaged-2.png --preset quick"
    )
    app.until_state(job, "done")
    folder = app.manager.folder / job["id"]
    assert np.array_equal(np.array(Image.open(folder / "mask-2.png")) == 0, layer == 1)
    assert np.array_equal(np.array(Image.open(folder / "undamaged-2.png")) > 0, layer == 2)
    assert app.file(job, "mask").content == (folder / "mask-2.png").read_bytes()
    again = app.start(job, preset="instant")  # other settings keep the corrections
    assert "--mask mask-3.png --undamaged undamaged-3.png" in again["command"]


@pytest.mark.parametrize(
    ("layer", "sides", "said"),
    [
        (np.zeros((24, 24)), (24, 24), "the corrected map is empty"),
        (np.ones((24, 24)), (24, 24), "the corrected map marks the whole photograph as damaged"),
        (np.full((24, 24), 3), (24, 24), "the layer must have values from 0 to 2, got 3"),
        (np.ones((24, 23)), (24, 24), "the layer must have 576 bytes, got 552"),
        (np.ones((12, 12)), (12, 12), "the layer must have 24×24 pixels, got 12×12"),
        (np.ones((24, 24)), ("-1", "x"), "the layer must have 24×24 pixels, got 0×0"),
    ],
)
def test_layers_are_checked(app: Page, photo: Path, layer: np.ndarray, sides: tuple, said: str) -> None:
    job = app.upload(photo)
    params = {"height": sides[0], "width": sides[1]}
    answer = app.post(f"jobs/{job['id']}/correct", params=params, content=layer.astype(np.uint8).tobytes()).json()
    assert answer["error"].startswith(said)
    found = app.job(job)
    assert (found["state"], found["attempt"]) == ("ready", 1)


# ------------------------------------------------------------------------------------------------------- start and end


def test_exit_stops_running_jobs_and_a_later_start_resumes(tmp_path: Path, photo: Path) -> None:
    with page(tmp_path / "jobs") as first:
        job = first.start(first.upload(photo), iterations=5)
        first.until(job, lambda found: found["progress"].get("done", 0) >= 3)
        child = first.manager._child
    assert child is not None
    assert child.status == 143
    with page(tmp_path / "jobs") as second:
        assert second.jobs() == []
        assert second.client.get(f"{second.base}/hello").json()["earlier"] == 1
        (found,) = second.post("earlier").json()
        assert (found["state"], found["can_resume"], found["settings"]) == ("stopped", True, {"iterations": 5})
        other = Page(second.client, second.manager, TWO)
        assert other.post("earlier").json() == []
        second.start(found, iterations=5)
        second.until_state(found, "done")


def test_folders_without_a_job_are_ignored(tmp_path: Path, photo: Path) -> None:
    for name, text in (("mine", '{"kind": "recover", "name": "../x", "corrected": [0, 0]}'), ("damaged", "{")):
        (tmp_path / "jobs" / name / ".app").mkdir(parents=True)
        (tmp_path / "jobs" / name / ".app" / "job.json").write_text(text)
    with page(tmp_path / "jobs") as app:
        assert app.client.get(f"{app.base}/hello").json()["earlier"] == 0
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["damaged", "mine"]


def test_events_are_the_jobs(app: Page, photo: Path) -> None:
    import asyncio

    from dop_lightning.cli.app.events import changes

    job = app.upload(photo)

    async def first_two() -> list[bytes]:
        async def stays() -> bool:
            return False

        stream = changes(app.manager, ONE, stays)
        one = await anext(stream)
        app.manager.jobs[job["id"]].line = "changed"
        two = await anext(stream)
        app.manager.is_closing = True
        return [one, two, *[event async for event in stream]]

    events = asyncio.run(first_two())
    assert len(events) == 2
    shown = [json.loads(event.decode().removeprefix("data: "))[0] for event in events]
    assert [each["line"] for each in shown] == ["", "changed"]
    app.manager.is_closing = False
