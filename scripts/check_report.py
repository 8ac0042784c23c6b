"""Open the page of `dop report` in headless Chromium, on a desktop and on a phone, and check it.

    pip install playwright                  # and Chromium, from the system or by: playwright install chromium
    python scripts/check_report.py runs/pca/report.html --out screenshots

Checks: no console errors, no requests except for the page, no element wider than the window, and a slider and curves
that respond to keyboard and touch. Screenshots are written of both sizes, in light and dark mode and in print layout.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE", help="report.html of a run")
    parser.add_argument("--out", type=Path, help="folder for screenshots; none are written by default")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    wrong = 0
    with sync_playwright() as playwright:
        executable = next(filter(None, map(shutil.which, BROWSERS)), None)
        # no sandbox: it is unavailable in containers, and we wrote the pages
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for page in options.pages:
            problems = [
                complaint for check in (check_desktop, check_phone) for complaint in check(browser, page, options.out)
            ]
            print(f"{page}: {'; '.join(problems) or 'good'}")
            wrong += bool(problems)
        browser.close()
    return 1 if wrong else 0


def check_desktop(browser: Any, path: Path, out: Path | None) -> list[str]:
    with opened(browser, path, viewport=DESK) as (page, complaints):
        complaints += too_wide(page) + slider_by_keys(page) + curve_by_keys(page) + keys_reach_all(page)
        save(page, out, path, "desk")
        page.emulate_media(color_scheme="dark")
        save(page, out, path, "dark")
        page.emulate_media(media="print", color_scheme="light")
        save(page, out, path, "print")
    return complaints


def check_phone(browser: Any, path: Path, out: Path | None) -> list[str]:
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with opened(browser, path, **phone) as (page, complaints):
        complaints += too_wide(page) + slider_by_touch(page)
        save(page, out, path, "phone")
    return complaints


@contextmanager
def opened(browser: Any, path: Path, **device: Any) -> Iterator[tuple[Any, list[str]]]:
    """Open the page in a separate window, and collect complaints."""
    complaints: list[str] = []
    context = browser.new_context(**device)
    page = context.new_page()
    address = path.resolve().as_uri()

    def on_console(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"console: {message.text}")

    def on_request(request: Any) -> None:
        if request.url != address and not request.url.startswith("data:"):
            complaints.append(f"requests {request.url}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", on_request)
    page.goto(address)
    yield page, complaints
    context.close()


def too_wide(page: Any) -> list[str]:
    width, room = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    return [f"is {width} px wide in a window of {room} px"] if width > room else []


def slider_by_keys(page: Any) -> list[str]:
    """Check that keys move the slider and change the picture."""
    stack = page.locator(".stack").first
    if not stack.count():
        return []
    slider = stack.locator("input")
    slider.scroll_into_view_if_needed()
    slider.focus()
    before = stack.screenshot()
    for key, value in (("ArrowRight", "51"), ("ArrowLeft", "50"), ("Home", "0"), ("End", "100"), ("Home", "0")):
        page.keyboard.press(key)
        if slider.input_value() != value:
            return [f"{key} moves the slider to {slider.input_value()} instead of {value}"]
    label = slider.get_attribute("aria-valuetext")
    complaints = [] if label == "0 % observed, 100 % recovered" else [f"the label of the slider at 0 is {label!r}"]
    if stack.screenshot() == before:
        complaints.append("the slider moves, but the picture does not change")
    page.keyboard.press("End")
    for _ in range(5):  # restore the initial position
        page.keyboard.press("PageDown")
    return complaints


def slider_by_touch(page: Any) -> list[str]:
    stack = page.locator(".stack").first
    if not stack.count():
        return []
    slider = stack.locator("input")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    slider.tap(position={"x": 0.2 * box["width"], "y": 0.5 * box["height"]})
    value = int(slider.input_value())
    complaints = [] if 17 <= value <= 23 else [f"a touch at 20 % moves the slider to {value}"]
    slider.tap(position={"x": 0.5 * box["width"], "y": 0.5 * box["height"]})
    return complaints


def curve_by_keys(page: Any) -> list[str]:
    """Check that the value at the end of a curve is printed as in the data."""
    curve = page.locator("svg[tabindex]").first
    if not curve.count():
        return []
    curve.focus()
    page.keyboard.press("End")
    label = page.locator("figure.chart", has=curve).first.locator("output").text_content()
    value = curve.locator("polyline").first.get_attribute("data-values").split()[-1].partition(":")[2]
    page.keyboard.press("Tab")  # restore the initial state
    return [] if label.endswith(f": {value}") else [f"the end of a curve is printed as {label!r} instead of {value}"]


def keys_reach_all(page: Any) -> list[str]:
    """Check that the Tab key reaches every slider, curve, link and button."""
    wanted = page.evaluate(
        "[...document.querySelectorAll('a, button, input, summary, [tabindex]')]"
        ".filter(element => element.checkVisibility()).length"
    )
    page.evaluate("document.activeElement.blur(); window.reached = new Set()")
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
        page.evaluate("document.activeElement !== document.body && reached.add(document.activeElement)")
    reached = page.evaluate("reached.size")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    return [] if reached >= wanted else [f"the Tab key reaches {reached} of {wanted} controls"]


def save(page: Any, out: Path | None, path: Path, name: str) -> None:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=out / f"{path.resolve().parent.name}-{name}.png", full_page=True)


if __name__ == "__main__":
    sys.exit(main())
