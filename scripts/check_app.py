"""Drive ``dop app`` in Chromium as a user would, and compare its results with ``dop recover`` bit for bit.

    python scripts/check_app.py --out runs/app

It needs Chromium, its driver and Selenium, which no other script uses: ``apt install chromium chromium-driver``,
``pip install selenium``. ``make test`` does not run it. It prints one line per check, and writes screenshots (1280 and
390 pixels wide) to the folder of ``--out``. The exit status is 1 if a check fails.
"""

import argparse
import http.server
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dop_lightning.images.formats import sample_folder

DOP = [sys.executable, "-m", "dop_lightning"]
DESK, PHONE = (1280, 900), (390, 844)
PATIENCE = 240.0

ATTACK = """<!doctype html><title>elsewhere</title><script type="module">
const target = "{address}api/{session}/";
const tries = [
  fetch(target + "files?name=evil.png", {{method: "POST", body: "x", mode: "no-cors"}}),
  fetch(target + "jobs", {{mode: "cors"}}),
  fetch(target + "jobs/{job}/start", {{method: "POST", body: "{{}}", mode: "no-cors", credentials: "include"}}),
];
const image = new Image(); image.src = target + "jobs/{job}/files/recovered";
tries.push(new Promise((done, failed) => {{ image.onload = done; image.onerror = failed; }}));
const ends = await Promise.allSettled(tries);
document.title = ends.map((end) => end.status === "fulfilled" ? (end.value.type || "read") : "refused").join(" ");
</script>"""

failures: list[str] = []


def check(is_right: bool, what: str) -> None:
    """Print the result of a check, and record failures."""
    print(f"{'ok  ' if is_right else 'FAIL'} {what}", flush=True)
    if not is_right:
        failures.append(what)


class Page:
    """A browser with a fresh profile on the page of the app."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self.downloads = folder
        folder.mkdir(parents=True)
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--hide-scrollbars",
        ):
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={folder / 'profile'}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.requests: list[str] = []
        self.console: list[str] = []
        self.size(width, height)
        self.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def cdp(self, command: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, arguments)

    def size(self, width: int, height: int) -> None:
        is_phone = width < 600
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)

    def dark(self, is_dark: bool) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        time.sleep(0.5)  # colours change gradually

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def tick(self, selector: str) -> None:
        """Click a control that is covered by its label."""
        self.js("arguments[0].scrollIntoView({block: 'center'}); arguments[0].click()", self.find(selector))

    def wait(self, is_true: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := is_true():
                return found
            time.sleep(0.1)
        self.shot(Path("runs/app-stuck.png"))
        raise TimeoutError(f"{what}; the page shows: {self.text('body')[:2000]}")

    def drop(self, *files: Path) -> None:
        """Drop files on the page, as from a file manager."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.cdp("Input.dispatchDragEvent", type=kind, x=200, y=160, data=data)

    def state(self, name: str) -> str:
        found = self.js(
            "return [...document.querySelectorAll('#jobs li')]"
            ".filter(i => i.querySelector('b').textContent === arguments[0]).map(i => i.dataset.state)[0] || ''",
            name,
        )
        return str(found)

    def until(self, name: str, *states: str) -> None:
        self.wait(lambda: self.state(name) in states, f"{name} must become {' or '.join(states)}")

    def watch_previews(self) -> None:
        self.js(
            "window.seen = []; new MutationObserver(() => {"
            " const a = document.getElementById('after').getAttribute('src');"
            " if (a && a.includes('/files/preview') && !window.seen.includes(a)) window.seen.push(a); })"
            ".observe(document.getElementById('after'), {attributes: true});"
        )

    def download(self, what: str) -> bytes:
        for old in self.downloads.glob("*.*"):
            if old.is_file():
                old.unlink()
        self.click(f"#download-{what}")
        files = self.wait(
            lambda: [
                f for f in self.downloads.iterdir() if f.is_file() and f.suffix != ".crdownload" and f.name[0] != "."
            ],
            f"a download of {what}",
        )
        time.sleep(0.3)
        return bytes(files[0].read_bytes())

    def shot(self, path: Path, whole: bool = True) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            metrics = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": metrics["width"], "height": metrics["height"], "scale": 1}
            data = self.cdp("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        else:
            data = self.cdp("Page.captureScreenshot", format="png")["data"]
        import base64

        path.write_bytes(base64.b64decode(data))

    def logs(self) -> None:
        """Collect requests and console errors since the last call."""
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
        self.console += [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def close(self) -> None:
        self.logs()
        self.driver.quit()


@contextmanager
def app(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``dop app``, and yield its process and its address."""
    process = subprocess.Popen(
        [*DOP, "app", "--no-browser", "--folder", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().split("dop app: ")[1].strip()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(90)


def make_files(folder: Path) -> None:
    """Write two damaged photographs, a truncated one, a table with outliers, and a video."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, sample in (("photo.png", "astronaut"), ("second.png", "coffee")):
        pixels = np.array(Image.open(sample_folder() / f"{sample}.png").convert("RGB").resize((112, 112)))
        damaged = random.random(pixels.shape) < 0.3
        pixels[damaged] = random.choice([0, 255], size=int(damaged.sum()))
        Image.fromarray(pixels).save(folder / name)
    whole = (folder / "photo.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    table = random.normal(size=(60, 2)) @ random.normal(size=(2, 40))
    table += 10 * (random.random((60, 40)) < 0.08) * random.normal(size=(60, 40))
    write_video(folder / "scene.mp4")
    header = ",".join(f"sensor{k}" for k in range(40))
    np.savetxt(folder / "table.csv", table, delimiter=",", header=header, comments="")


def write_video(path: Path) -> None:
    """Write a video from a fixed camera with a moving square."""
    import av

    random = np.random.default_rng(1)
    background = np.kron(random.integers(60, 200, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(30):
            frame = background.copy()
            frame[16:28, 2 * k : 2 * k + 10] = 250
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def command_line(command: str, files: Path, folder: Path, masks: Path) -> bytes:
    """Run the command that the page displays in a separate folder, and return the recovered file."""
    folder.mkdir(parents=True)
    shutil.copy(files, folder)
    for mask in masks.glob("*-[0-9]*.png"):
        shutil.copy(mask, folder)
    words = shlex.split(command)
    subprocess.run([*DOP, *words[1:]], cwd=folder, check=True, capture_output=True)
    return (folder / words[words.index("--out") + 1] / files.stem / f"recovered{files.suffix}").read_bytes()


def check_restoration(page: Page, files: Path, out: Path, jobs: Path) -> None:
    """Drop a photograph, watch the restoration, move the slider, correct the map, resume, and download."""
    shots = out / "screenshots"
    page.shot(shots / "desk-1-empty.png")
    page.drop(files / "photo.png")
    page.until("photo.png", "ready")
    page.wait(lambda: "second" in page.text("[data-time=quick]") or "minute" in page.text("[data-time=quick]"), "times")
    page.wait(lambda: "about" in page.text("#job-facts"), "an estimate")
    check("112 × 112 pixels, colour · about 3" in page.text("#job-facts"), f"estimate: {page.text('#job-facts')}")
    check(bool(page.text("[data-time=default]")), f"times: {page.text('.presets').replace(chr(10), ' ')}")
    page.tick("[name=preset][value=quick]")
    page.shot(shots / "desk-2-ready.png")
    page.watch_previews()
    page.click("#go-recover")
    page.wait(lambda: page.js("return window.seen.length >= 2"), "two previews")
    page.shot(shots / "desk-3-running.png")
    page.until("photo.png", "done")
    seen = page.js("return window.seen.length")
    check(seen >= 3, f"{seen} live previews")
    page.wait(lambda: "files/recovered" in (page.find("#after").get_attribute("src") or ""), "the result")
    first = page.download("result")
    command = page.js("return document.getElementById('command').textContent")
    job = next(path for path in jobs.iterdir() if (path / "photo.png").is_file())
    same = command_line(command, files / "photo.png", out / "cli-1", job)
    check(first == same, f"the download equals {command!r} bit for bit ({len(first)} bytes)")

    before = page.js("return getComputedStyle(document.getElementById('stage')).getPropertyValue('--split')")
    stage = page.find("#stage")
    page.js("arguments[0].scrollIntoView({block: 'center'})", stage)
    ActionChains(page.driver).drag_and_drop_by_offset(page.find("#divider"), 120, 0).perform()
    after = page.js("return getComputedStyle(document.getElementById('stage')).getPropertyValue('--split')")
    check(before != after, f"the pointer moves the slider: {before} to {after}")
    page.find("#split").send_keys(Keys.ARROW_LEFT * 5)
    keyed = page.js("return getComputedStyle(document.getElementById('stage')).getPropertyValue('--split')")
    check(keyed != after, f"arrow keys move the slider: {keyed}")
    page.shot(shots / "desk-4-done.png")
    page.tick("#map-on")
    page.wait(lambda: page.js("return document.getElementById('map').width === 112"), "the map")
    painted = page.js(
        "const c = document.getElementById('map');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let k = 3; k < d.length; k += 4) n += d[k] > 127; return n / (c.width * c.height)"
    )
    check(0.3 < painted < 0.9, f"the map marks {painted:.0%} of the pixels")
    page.shot(shots / "desk-5-map.png")

    page.tick("#brush-on")
    paint = page.find("#paint")
    page.js("arguments[0].scrollIntoView({block: 'center'})", paint)
    ActionChains(page.driver).move_to_element_with_offset(paint, -90, -60).click_and_hold().move_by_offset(
        80, 30
    ).move_by_offset(40, 40).release().perform()
    page.tick("[name=brush][value='2']")
    ActionChains(page.driver).move_to_element_with_offset(paint, 60, -80).click_and_hold().move_by_offset(
        60, 0
    ).release().perform()
    ActionChains(page.driver).send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.SPACE).perform()  # by the keyboard
    page.shot(shots / "desk-6-brush.png")
    page.click("#correct")
    page.until("photo.png", "waiting", "running")
    page.until("photo.png", "done")
    page.wait(lambda: "restored-2" in page.js("return document.getElementById('command').textContent"), "the command")
    page.wait(lambda: page.js("return !!document.getElementById('download-undamaged')"), "downloads")
    second = page.download("result")
    command = page.js("return document.getElementById('command').textContent")
    same = command_line(command, files / "photo.png", out / "cli-2", job)
    check(second == same, f"the corrected result equals {command!r} bit for bit")
    check(second != first, "the correction changes the result")
    given = np.array(Image.open(files / "photo.png"))
    known = np.array(Image.open(job / "undamaged-2.png")) > 0
    result = np.array(Image.open(job / "restored-2" / "photo" / "recovered.png"))
    check(
        bool(known.any()) and np.array_equal(result[known], given[known]),
        f"{known.sum()} pixels that were painted clean are unchanged",
    )
    report = page.download("report")
    check(
        report.lower().startswith(b"<!doctype html>") and b"photo" in report,
        f"the report is a page of {len(report)} bytes",
    )
    page.dark(True)
    page.shot(shots / "desk-7-dark.png")
    page.dark(False)


def restore_until(page: Page, name: str, percent: int) -> None:
    """Start the restoration of a photograph with the preset ``quick``, and wait until it has reached ``percent``."""
    page.tick("[name=preset][value=quick]")
    page.click("#go-recover")
    page.until(name, "running")
    page.wait(
        lambda: page.find("#work").is_displayed() and not page.js("return bar.className.includes('unknown')"), "work"
    )
    page.wait(lambda: int(page.find("#bar").get_attribute("aria-valuenow") or 0) >= percent, f"{percent} %")


def check_cancel(page: Page, files: Path, out: Path, jobs: Path) -> None:
    """Stop and resume a run while a second file waits, and compare it with an uninterrupted run."""
    page.drop(files / "second.png")
    page.until("second.png", "ready")
    restore_until(page, "second.png", 20)
    page.click("#stop")
    page.until("second.png", "stopped")
    check(page.find("#resume").is_displayed(), f"stopped: {page.text('#resume-text')}")
    page.shot(out / "screenshots" / "desk-8-stopped.png")
    page.click("#resume")
    page.until("second.png", "running")
    page.until("second.png", "done")
    page.wait(lambda: page.js("return !!document.getElementById('download-result')"), "downloads")
    resumed = page.download("result")
    command = page.js("return document.getElementById('command').textContent")
    job = next(path for path in jobs.iterdir() if (path / "second.png").is_file())
    same = command_line(command, files / "second.png", out / "cli-3", job)
    check(resumed == same, "a run that was stopped and resumed equals an uninterrupted run bit for bit")


def check_bad_file(page: Page, files: Path, jobs: Path) -> None:
    """Drop a truncated PNG: the page must print the error of the command line, and leave no files behind."""
    before = sorted(path.name for path in jobs.iterdir())
    page.drop(files / "cut.png")
    line = page.wait(lambda: page.js("return document.querySelector('#errors span')?.textContent"), "an error")
    error_output = subprocess.run(
        [*DOP, "recover", "cut.png", "--out", "x"], cwd=files, capture_output=True, text=True
    ).stderr
    check(error_output.strip() == f"dop recover: error: {line}", f"a truncated PNG: {line}")
    check(sorted(path.name for path in jobs.iterdir()) == before, "it leaves no files behind")
    page.click("#errors .plain")


def check_table(page: Page, files: Path, out: Path) -> None:
    """Separate a table and a video in the second tab."""
    page.click("#tab-separate")
    page.drop(files / "table.csv")
    page.until("table.csv", "ready")
    check(page.text("#job-facts") == "60 rows × 40 columns", f"a table: {page.text('#job-facts')}")
    page.click("#go-separate")
    page.until("table.csv", "done")
    page.wait(lambda: page.js("return !!document.getElementById('download-outliers')"), "downloads")
    summary = page.text("#summary").replace("\n", " ")
    check("Rank 2" in summary and "Outliers 8 %" in summary, f"summary of the table: {summary}")
    low_rank = page.download("result")
    command = page.js("return document.getElementById('command').textContent")
    same = command_line(command, files / "table.csv", out / "cli-4", files)
    check(low_rank == same, f"the low-rank part equals {command!r} bit for bit ({len(low_rank)} bytes)")
    page.shot(out / "screenshots" / "desk-9-table.png")
    page.drop(files / "scene.mp4")
    page.until("scene.mp4", "ready")
    check(page.text("#job-facts") == "30 frames of 64 × 48 pixels", f"a video: {page.text('#job-facts')}")
    page.click("#go-separate")
    page.until("scene.mp4", "done")
    is_playable = "return [...document.querySelectorAll('video')].filter(v => v.readyState >= 2).length"
    page.wait(lambda: page.js(is_playable) == 4, "four videos")
    check(True, "the four videos of the result can be played")
    page.shot(out / "screenshots" / "desk-9-video.png")
    page.click("#tab-recover")


def check_two(first: Page, second: Page, address: str, files: Path) -> None:
    """Check that two browsers see only their own files."""
    second.driver.get(address)
    second.wait(lambda: second.text("#welcome-title"), "the page")
    check(
        second.driver.find_elements(By.CSS_SELECTOR, "#jobs li") == [],
        "a second browser does not show files of the first",
    )
    second.drop(files / "second.png")
    second.until("second.png", "ready")
    time.sleep(1)
    names = first.js("return [...document.querySelectorAll('#jobs b')].map(b => b.textContent)")
    check(names == ["photo.png", "second.png"], f"the first browser shows only its own files: {names}")
    session = first.js("return sessionStorage.getItem('session')")
    own = second.js("return sessionStorage.getItem('session')")
    job = first.js("return document.querySelector('#jobs li').dataset.id")
    other = second.js(
        "return fetch(`api/${arguments[0]}/jobs/${arguments[1]}/files/observation`).then(r => r.status)", own, job
    )
    check(session != own and other == 404, f"status of a file of another browser: {other}")
    second.driver.get_log("browser")  # discard the expected 404


def check_phone(page: Page, address: str, out: Path) -> None:
    """Restore on a page of the size of a phone."""
    shots = out / "screenshots"
    page.size(*PHONE)
    page.driver.get(address)
    page.wait(lambda: page.text("#job-name"), "the job")
    page.shot(shots / "phone-1-ready.png")
    page.tick("[name=preset][value=instant]")
    page.click("#go-recover")
    page.until("second.png", "done")
    page.wait(lambda: page.js("return !!document.getElementById('download-result')"), "downloads")
    page.tick("#brush-on")
    page.shot(shots / "phone-2-brush.png")
    page.dark(True)
    page.tick("#brush-on")
    page.shot(shots / "phone-3-dark.png")
    wide = page.js("return document.documentElement.scrollWidth")
    check(wide <= PHONE[0], f"the page is at most as wide as the phone: {wide} pixels")
    page.dark(False)


def check_attack(address: str, session: str, job: str, jobs: Path, out: Path) -> None:
    """Check that a page of another origin, even one that knows the token, cannot start jobs or read results."""
    before = sorted(path.name for path in jobs.iterdir())
    content = ATTACK.format(address=address, session=session, job=job).encode()

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = Page(out / "elsewhere", *DESK)
    try:
        page.driver.get(f"http://localhost:{server.server_port}/")
        page.wait(lambda: page.driver.title != "elsewhere", "the attack")
        ends = page.driver.title.split()
        check(
            ends[1] == "refused" and ends[3] == "refused",
            f"a page of another origin cannot read results: {page.driver.title}",
        )
        check(sorted(path.name for path in jobs.iterdir()) == before, "and cannot start jobs")
    finally:
        page.close()
        server.shutdown()


def check_end(process: subprocess.Popen[str], page: Page, jobs: Path) -> None:
    """Press Ctrl-C during a restoration: the state must be saved, and all processes must end."""
    page.size(*DESK)
    restore_until(page, "second.png", 10)
    process.send_signal(signal.SIGINT)
    status = process.wait(90)
    check(status == 130, f"Ctrl-C ends the server with status {status}")
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    check(f"{jobs}" not in left and "dop_lightning.cli.app.examine" not in left, "all processes have ended")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="new folder for screenshots and results")
    options = parser.parse_args()
    out = options.out.resolve()
    if out.exists():
        raise SystemExit(f"{out} exists: pass another --out")
    files, jobs = out / "files", out / "jobs"
    make_files(files)
    pages: list[Page] = []
    with app(jobs) as (process, address):
        first, second = Page(out / "first", *DESK), Page(out / "second", *DESK)
        pages += [first, second]
        first.driver.get(address)
        first.wait(lambda: first.text("#welcome-title"), "the page")
        check_restoration(first, files, out, jobs)
        check_cancel(first, files, out, jobs)
        check_bad_file(first, files, jobs)
        check_two(first, second, address, files)
        check_table(first, files, out)
        session = first.js("return sessionStorage.getItem('session')")
        job = first.js("return document.querySelector('#jobs li').dataset.id")
        check_attack(address, session, job, jobs, out)
        check_phone(second, address, out)
        for page in pages:
            page.logs()
        local = address.rsplit("/", 2)[0]
        outside = [
            url for page in pages for url in page.requests if not url.startswith((local, "data:", "blob:", "chrome"))
        ]
        check(outside == [], f"no external request among {sum(len(p.requests) for p in pages)} {outside[:3]}")
        errors = [line for page in pages for line in page.console]
        check(errors == [], f"no console error {errors[:3]}")
        check_end(process, second, jobs)
    with app(jobs) as (_, address):
        second.driver.get(address)
        second.wait(lambda: second.find("#adopt").is_displayed(), "earlier files")
        second.click("#adopt")
        second.wait(lambda: second.state("second.png"), "the files")
        check("stopped" in second.text("#jobs"), "after a restart with --folder, the page offers earlier files")
        time.sleep(1)
        second.shot(out / "screenshots" / "desk-10-restart.png")
    for page in pages:
        page.close()
    print(f"{len(failures)} checks failed" if failures else "all checks passed", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main())
