"""``scripts/fetch_images.py``, against a server on this machine."""

import hashlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from dop_lightning.paper.figures.configs import figure_folder

SCRIPT = "fetch_images"
NAMES = ["F16.png", "Peppers.png", "Baboon.png", "kodim03.png"]


def picture(width: int, height: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(file, format=kind)
    return file.getvalue()


GOOD = {name: picture(768 if name == "kodim03.png" else 512, 512) for name in NAMES}


@dataclass
class Server:
    """What is answered to each path, one answer after the other, the last again and again: (status, body, length)."""

    url: str = ""
    answers: dict[str, list[tuple[int, bytes, int | None]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, name: str, body: bytes, status: int = 200, length: int | None = None) -> None:
        self.answers.setdefault(f"/{name}", []).append((status, body, length))


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            answers = state.answers.get(self.path, [(404, b"nothing here", None)])
            status, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    own = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=own.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{own.server_address[1]}"
    yield state
    own.shutdown()
    thread.join()
    own.server_close()


@pytest.fixture
def fetch(script, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., tuple]:
    """Runs it against the server: status, what was printed, errors."""

    def fetch(*arguments: str, base: bool = True) -> tuple[int, str, list[str]]:
        own = ["--out", str(tmp_path / "images"), "--wait", "0", "--timeout", "5"]
        monkeypatch.setattr(sys, "argv", ["fetch_images.py", *own, *(["--base-url", server.url] * base), *arguments])
        status = script.main()
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return fetch


@pytest.fixture
def stocked(server: Server) -> Server:
    for name, body in GOOD.items():
        server.put(name, body)
    return server


def test_all_four_images_are_downloaded_once(fetch, stocked: Server, tmp_path: Path) -> None:
    status, out, errors = fetch()
    assert (status, errors) == (0, [])
    for name, body in GOOD.items():
        assert (tmp_path / "images" / name).read_bytes() == body
        assert hashlib.sha256(body).hexdigest() in out
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(NAMES)
    again, out, _ = fetch()
    assert again == 0
    assert out.count(": exists, ") == 4
    assert len(stocked.asked) == 4


def test_they_are_the_images_of_the_configs(script) -> None:
    text = (figure_folder("3") / "dop.yaml").read_text(encoding="utf-8")
    assert all(f"- data/standard/{name}\n" in text for name in script.SOURCES)
    assert list(script.SOURCES) == list(script.SIZES) == NAMES


@pytest.mark.parametrize(
    ("answer", "problem", "times"),
    [
        ((404, b"gone", None), "the server responded with 404", 1),
        ((503, b"busy", None), "the server responded with 503 Service Unavailable, after 3 attempts", 3),
        ((200, GOOD["F16.png"][:400], len(GOOD["F16.png"])), "the response ended after 400 of", 3),
        ((200, GOOD["F16.png"][:400], None), "not a complete PNG or TIFF image", 1),
        ((200, b"<html>moved</html>", None), "not a complete PNG or TIFF image", 1),
        ((200, picture(256, 256), None), "must be 512×512 RGB, got 256×256 RGB", 1),
        ((200, picture(512, 512, "L"), None), "must be 512×512 RGB, got 512×512 L", 1),
    ],
)
def test_bad_response_is_one_line_and_leaves_no_file(
    answer: tuple[int, bytes, int | None], problem: str, times: int, fetch, server: Server, tmp_path: Path
) -> None:
    for name, body in GOOD.items():
        server.answers[f"/{name}"] = [answer if name == "F16.png" else (200, body, None)]
    status, _, errors = fetch("--retries", "2")
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"fetch_images: error: F16.png: {server.url}/F16.png: ")
    assert problem in errors[0]
    assert server.asked.count("/F16.png") == times
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == sorted(NAMES[1:])


def test_busy_server_is_retried(fetch, server: Server, stocked: Server) -> None:
    server.answers["/F16.png"].insert(0, (503, b"", None))
    server.answers["/Peppers.png"].insert(0, (200, b"half", 100))
    status, _, errors = fetch()
    assert (status, errors) == (0, [])
    assert [server.asked.count(f"/{name}") for name in NAMES] == [2, 2, 1, 1]


def test_unreachable_server_is_one_line_per_image(fetch) -> None:
    status, _, errors = fetch("--base-url", "http://127.0.0.1:9", "--retries", "1")
    assert status == 1
    assert len(errors) == 4
    assert all("no response (" in error and "after 2 attempts" in error for error in errors)


def test_invalid_address_is_reported(fetch) -> None:
    status, _, errors = fetch("--base-url", "somewhere", "--retries", "0")
    assert status == 1
    assert all("invalid address" in error for error in errors)


def test_damaged_file_is_downloaded_again(fetch, stocked: Server, tmp_path: Path) -> None:
    path = tmp_path / "images" / "Baboon.png"
    path.parent.mkdir()
    path.write_bytes(GOOD["Baboon.png"][:100])
    status, _, errors = fetch()
    assert status == 0
    assert len(errors) == 1
    assert "Baboon.png: downloading again: not a complete" in errors[0]
    assert path.read_bytes() == GOOD["Baboon.png"]


def test_next_source_is_used_if_one_fails(fetch, script, server: Server, tmp_path: Path, monkeypatch) -> None:
    server.put("first/F16.png", b"", 404)
    server.put("second/4.2.05.tiff", picture(512, 512, kind="TIFF"))
    sources = {"F16.png": (f"{server.url}/first/F16.png", f"{server.url}/second/4.2.05.tiff")}
    monkeypatch.setattr(script, "SOURCES", sources)
    status, out, errors = fetch(base=False)
    assert (status, errors) == (0, [])
    assert "second/4.2.05.tiff" in out
    with Image.open(tmp_path / "images" / "F16.png") as image:
        assert (image.format, image.size, image.mode) == ("PNG", (512, 512), "RGB")


def test_trusted_checksums_decide(fetch, stocked: Server, tmp_path: Path) -> None:
    trusted = tmp_path / "sums"
    right = hashlib.sha256(GOOD["F16.png"]).hexdigest()
    trusted.write_text(f"# mine\n{right.upper()}  F16.png\n{'0' * 64} *Peppers.png\n")
    status, _, errors = fetch("--checksums", str(trusted))
    assert status == 1
    assert len(errors) == 1
    assert f": the SHA-256 must be {'0' * 64}, got " in errors[0]
    assert not (tmp_path / "images" / "Peppers.png").exists()
    assert (tmp_path / "images" / "F16.png").is_file()


@pytest.mark.parametrize("text", ["abc  F16.png", f"{'g' * 64}  F16.png", "0" * 64])
def test_a_bad_list_of_checksums_is_refused(text: str, fetch, stocked: Server, tmp_path: Path) -> None:
    trusted = tmp_path / "sums"
    trusted.write_text(text)
    status, _, errors = fetch("--checksums", str(trusted))
    assert status == 1
    assert len(errors) == 1
    assert "line 1: expected a SHA-256 and a name" in errors[0]
    assert stocked.asked == []


def test_missing_list_and_existing_file_are_one_line(fetch, stocked: Server, tmp_path: Path) -> None:
    assert fetch("--checksums", str(tmp_path / "none"))[0] == 1
    (tmp_path / "images").write_text("in the way")
    status, _, errors = fetch()
    assert (status, len(errors)) == (1, 1)
