"""With the real command: results of the page are those of the command line, bit for bit."""

from pathlib import Path

import numpy as np
import pytest

from dop_lightning.cli.app.examiner import Examiner
from dop_lightning.cli.main import main
from tests.cli.app.builders import page, photograph


def test_photograph_equals_that_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = photograph(tmp_path / "photo.png", 32)
    with page(tmp_path / "jobs", pretends=False) as app:
        job = app.upload(photo)
        done = app.until_state(app.start(job, preset="instant"), "done", "failed")
        assert done["line"] == ""
        app.until(job, lambda found: "report" in found["files"])
        result, report = app.file(job, "result").content, app.file(job, "report")
        assert done["files"].keys() >= {"observation", "recovered", "corruption_probability", "probability", "log"}
    monkeypatch.chdir(tmp_path)
    assert main(done["command"].split()[1:]) == 0
    assert (tmp_path / "restored" / "photo" / "recovered.png").read_bytes() == result
    assert "sandbox" in report.headers["content-security-policy"]


@pytest.mark.slow
def test_a_reader_that_crashes_is_started_again(tmp_path: Path) -> None:
    photo = photograph(tmp_path / "photo.png")
    examiner = Examiner(tmp_path / "log")
    examiner.start()
    assert examiner._process is not None
    examiner._process.kill()
    examiner._process.wait()
    try:
        assert examiner.file("recover", photo)["suffix"] == ".png"
        (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n5,\n")
        assert examiner.file("separate", tmp_path / "table.csv")["shape"] == [3, 2]
        with pytest.raises(ValueError, match=r"^missing\.png: no such file"):
            examiner.file("recover", tmp_path / "missing.png")
    finally:
        examiner.close()


@pytest.mark.slow
def test_stopped_and_resumed_and_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network: stopped with its state saved, resumed, then corrected; each result equals that of the command line."""
    photo = photograph(tmp_path / "photo.png", 64)
    settings = {"preset": "quick", "width": 4, "iterations": 150}
    with page(tmp_path / "jobs", pretends=False) as app:
        job = app.start(app.upload(photo), **settings)
        app.until(job, lambda found: found["progress"].get("done", 0) >= 20)
        app.post(f"jobs/{job['id']}/stop")
        assert app.until_state(job, "stopped")["can_resume"]
        app.start(job, **settings)
        done = app.until_state(job, "done")
        first = app.file(job, "result").content
        layer = np.zeros((64, 64), dtype=np.uint8)
        layer[10:20, 10:20], layer[40:45, 40:45] = 1, 2
        params = {"height": 64, "width": 64, "settings": '{"preset": "quick", "width": 4, "iterations": 150}'}
        app.post(f"jobs/{job['id']}/correct", params=params, content=layer.tobytes())
        corrected = app.until_state(job, "done")
        second = app.file(job, "result").content
        for name in ("mask", "undamaged"):
            (tmp_path / f"{name}-2.png").write_bytes(app.file(job, name).content)
    monkeypatch.chdir(tmp_path)
    for found, result in ((done, first), (corrected, second)):
        assert main(found["command"].split()[1:]) == 0
        out = found["command"].split()[4]
        assert (tmp_path / out / "photo" / "recovered.png").read_bytes() == result
