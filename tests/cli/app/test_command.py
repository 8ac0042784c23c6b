"""``dop app``: options, the socket, the folder, and a start without its packages."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dop_lightning.cli.app.command import bound_socket, job_folder
from dop_lightning.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--host must be 127.0.0.1, got '0.0.0.0': the page is for this machine only. To"),
        (["--port", "80"], "--port must be from 1024 to 65535, got 80"),
        (["--max-upload", "much"], "--max-upload must be"),
    ],
)
def test_options_out_of_range(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--no-browser", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dop app: error: {said}")
    assert error.count("\n") == 1


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "dop_lightning.cli.app.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # its import fails
    assert main(["app", "--no-browser"]) == 2
    assert capsys.readouterr().err == 'dop app: error: uvicorn is not installed: pip install "dop_lightning[app]"\n'


def test_a_port_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--no-browser", "--port", str(port)]) == 2
    assert f"port {port} is in use" in capsys.readouterr().err


def test_socket_listens_on_this_machine_only() -> None:
    with bound_socket(0) as bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_folders(tmp_path: Path) -> None:
    with job_folder(None) as temporary:
        assert temporary.stat().st_mode & 0o077 == 0
        (temporary / "file").write_text("x")
    assert not temporary.exists()
    with job_folder(str(tmp_path / "kept")) as kept:
        assert kept.stat().st_mode & 0o077 == 0
    assert kept.is_dir()
    kept.chmod(0o777)
    with pytest.raises(OSError, match="must belong to you and be writable only by you"), job_folder(str(kept)):
        pass


def test_server_starts_and_ends(tmp_path: Path) -> None:
    """A real server: the address is printed, answers with the token alone, and is gone after Ctrl-C."""
    command = [sys.executable, "-m", "dop_lightning", "app", "--no-browser"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    address = server.stdout.readline().removeprefix("dop app: ").strip()
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(address, timeout=20) as page:
        assert b"<title>dop: restore photographs</title>" in page.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address.rsplit("/", 2)[0] + "/", timeout=20)
    server.send_signal(signal.SIGINT)
    _, error = server.communicate(timeout=60)
    assert server.returncode == 130
    assert "dop app: stopped" in error
    assert list(tmp_path.glob("dop-app-*")) == []
