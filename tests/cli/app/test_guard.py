"""What reaches the page: requests of this machine with the token, from the page itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.app.builders import HOST, ONE, TOKEN, Page, page

POST = f"/{TOKEN}/api/{ONE}/earlier"
SAME = {"Origin": f"http://{HOST}"}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Page]:
    with page(tmp_path / "jobs") as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/app.js", f"/api/{ONE}/jobs", "/wrong/", "/wrong/app.js", f"/{TOKEN}x/", "/é/"])
def test_every_address_needs_the_token(app: Page, path: str) -> None:
    answer = app.client.get(path)
    assert answer.status_code == 403
    assert answer.text == "the token is wrong or missing: open the address that dop app printed\n"


def test_the_token_opens_the_page(app: Page) -> None:
    for path, kind in (
        ("", "text/html"),
        ("app.js", "text/javascript"),
        ("app.css", "text/css"),
        ("icon.svg", "image/svg"),
    ):
        answer = app.client.get(f"/{TOKEN}/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_page_has_no_external_resources(app: Page) -> None:
    for name in ("", "app.css", "app.js", "api.js", "settings.js", "viewer.js", "brush.js", "words.js"):
        text = app.client.get(f"/{TOKEN}/{name}").text
        assert "https:" not in text
        assert text.replace("http://www.w3.org/2000/svg", "").count("http:") == 0


@pytest.mark.parametrize("host", ["example.org", "example.org:8000", "192.168.0.4:8000", "127.0.0.1.example.org", ""])
def test_other_host_names_are_refused(app: Page, host: str) -> None:
    """A page elsewhere may let its own name point here."""
    answer = app.client.get(f"/{TOKEN}/", headers={"Host": host})
    assert answer.status_code == 400
    assert "the header Host must name this machine" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://example.org"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "http://localhost:8000"},
        {**SAME, "Sec-Fetch-Site": "cross-site"},
        {**SAME, "Sec-Fetch-Site": "same-site"},
    ],
)
def test_only_the_page_itself_can_start_work(app: Page, headers: dict[str, str]) -> None:
    answer = app.client.post(POST, headers=headers)
    assert answer.status_code == 403
    assert "only the page of dop app can make changes" in answer.text


def test_page_itself_can_start_work(app: Page) -> None:
    assert app.client.post(POST, headers={**SAME, "Sec-Fetch-Site": "same-origin"}).status_code == 200
    named = {"Host": "localhost:8000", "Origin": "http://localhost:8000"}
    assert app.client.post(POST, headers=named).status_code == 200


def test_other_pages_cannot_read(app: Page) -> None:
    address = f"/{TOKEN}/api/{ONE}/jobs"
    assert (
        app.client.get(address, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code
        == 403
    )
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert app.client.get(f"/{TOKEN}/", headers=followed).status_code == 200  # a link to the page


def test_other_methods_are_refused(app: Page) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        assert app.client.request(method, f"/{TOKEN}/", headers=SAME).status_code == 405
        assert app.client.request(method, f"/{TOKEN}/").status_code == 403


def test_a_ticket_opens_the_page_once(app: Page) -> None:
    guard = app.client.app
    assert app.client.get("/open/").status_code == 403
    guard.ticket = "once"  # type: ignore[attr-defined]
    assert app.client.get("/open/wrong").status_code == 403
    answer = app.client.get("/open/once", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/{TOKEN}/"
    assert app.client.get("/open/once").status_code == 403


def test_the_port_must_be_that_of_the_server(tmp_path: Path) -> None:
    from dop_lightning.cli.app.guard import Guard

    guard = Guard(lambda *_: None, TOKEN, port=8000)  # type: ignore[arg-type,return-value]
    assert guard._rejection("GET", {"host": "127.0.0.1:8000"}) == (0, "")
    assert guard._rejection("GET", {"host": "127.0.0.1:8001"})[0] == 400
    assert guard._rejection("GET", {"host": "127.0.0.1"})[0] == 400
