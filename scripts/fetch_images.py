"""Download the four standard images of the paper (F16, Peppers, Baboon, kodim03) for `dop figure … --scale paper`.

    python scripts/fetch_images.py                       # to data/standard
    python scripts/fetch_images.py --out DIR --base-url https://my.mirror/images

The first source is the page that the paper cites (https://webpages.tuni.fi/foi/GCF-BM3D, formerly www.cs.tut.fi/~foi).
Fallbacks are the USC-SIPI database and the Kodak suite, whose files may differ in details. The licences of the images
are unclear, so they are not part of this package. The addresses were collected from public code and have not been
verified, and no checksums of the files are known. A file is accepted if it is a complete image with the size and mode
that the paper uses. `--checksums` compares files with checksums that you trust; the script prints those of its files.

Existing images are kept. Files are written atomically.
"""

import argparse
import hashlib
import http.client
import io
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from PIL import Image

PAGE = "https://webpages.tuni.fi/foi/GCF-BM3D/images"
SIPI = "https://sipi.usc.edu/database/misc"
KODAK = "https://r0k.us/graphics/kodak/kodak"

SOURCES = {
    "F16.png": (f"{PAGE}/image_F16_512rgb.png", f"{SIPI}/4.2.05.tiff"),
    "Peppers.png": (f"{PAGE}/image_Peppers512rgb.png", f"{SIPI}/4.2.07.tiff"),
    "Baboon.png": (f"{PAGE}/image_Baboon512rgb.png", f"{SIPI}/4.2.03.tiff"),
    "kodim03.png": (f"{PAGE}/kodim03.png", f"{KODAK}/kodim03.png"),
}
"""Addresses of each image; the first one that works is used."""

SIZES = {"F16.png": (512, 512), "Peppers.png": (512, 512), "Baboon.png": (512, 512), "kodim03.png": (768, 512)}
"""Width and height of each image, RGB."""

LARGEST = 20 * 2**20
"""Maximum size of a response in bytes; the images are smaller than one million bytes."""


class Wrong(Exception):
    """A response is not the expected file; retrying would not help."""


def download(url: str, retries: int, wait: float, timeout: float) -> bytes:
    """Return the content at ``url``.

    If the server does not respond, closes the connection early, or is busy (5xx, 429), the request is repeated up to
    ``retries`` times after pauses that double.
    """
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "dop_lightning fetch_images"})
    except ValueError as error:
        raise Wrong(f"invalid address ({error})") from error
    for attempt in range(retries + 1):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                content = answer.read(LARGEST + 1)
                expected = answer.headers.get("Content-Length")
        except urllib.error.HTTPError as error:
            problem = f"the server responded with {error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                raise Wrong(problem) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error) or type(error).__name__
            problem = f"no response ({' '.join(reason.split())})"
        else:
            if len(content) > LARGEST:
                raise Wrong(f"the response is larger than {LARGEST} bytes; expected an image")
            if expected is None or len(content) == int(expected):
                return content
            problem = f"the response ended after {len(content)} of {expected} bytes"
        if attempt < retries:
            time.sleep(wait * 2**attempt)
    raise Wrong(f"{problem}, after {retries + 1} attempts")


def as_png(name: str, content: bytes) -> bytes:
    """Convert an image to a PNG file; PNG files are returned unchanged."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "TIFF")) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Wrong(f"not a complete PNG or TIFF image ({' '.join(str(error).split())})") from error
    if (image.size, image.mode) != (SIZES[name], "RGB"):
        width, height = SIZES[name]
        raise Wrong(f"must be {width}×{height} RGB, got {image.width}×{image.height} {image.mode}")
    if image.format == "PNG":
        return content
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def check_sum(name: str, content: bytes, checksums: dict[str, str]) -> str:
    """Return the SHA-256 of a file, after comparing it with the trusted one."""
    found = hashlib.sha256(content).hexdigest()
    if checksums.get(name, found) != found:
        raise Wrong(f"the SHA-256 must be {checksums[name]}, got {found}")
    return found


def read_checksums(path: Path) -> dict[str, str]:
    """Read SHA-256 checksums by name, from lines as written by `sha256sum`."""
    checksums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        parts = line.split()
        if not parts or line.startswith("#"):
            continue
        if len(parts) != 2 or len(parts[0]) != 64 or set(parts[0].lower()) - set("0123456789abcdef"):
            raise Wrong(f"{path}, line {number}: expected a SHA-256 and a name, got {line[:80]!r}")
        checksums[parts[1].lstrip("*")] = parts[0].lower()
    return checksums


def write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        temporary.unlink(missing_ok=True)


def fetch(name: str, urls: list[str], out: Path, checksums: dict[str, str], options: argparse.Namespace) -> str:
    """Make sure that one image exists, and describe what was done."""
    path = out / name
    if path.is_file():
        try:
            content = as_png(name, path.read_bytes())
            return f"{path}: exists, SHA-256 {check_sum(name, content, checksums)}"
        except Wrong as error:
            print(f"{path}: downloading again: {error}", file=sys.stderr)
    problems = []
    for url in urls:
        try:
            content = as_png(name, download(url, options.retries, options.wait, options.timeout))
            found = check_sum(name, content, checksums)
        except Wrong as error:
            problems.append(f"{url}: {error}")
            continue
        write(path, content)
        return f"{path}: from {url}, SHA-256 {found}"
    raise Wrong(f"{name}: {'; '.join(problems)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/standard"), help="output folder; default: %(default)s")
    parser.add_argument("--base-url", help="server with all four images, as <base-url>/F16.png and so on")
    parser.add_argument(
        "--checksums",
        type=Path,
        metavar="FILE",
        help="trusted SHA-256 checksums of the PNG files, in the format of sha256sum",
    )
    parser.add_argument("--retries", type=int, default=3, help="retries per address; default: %(default)s")
    parser.add_argument("--wait", type=float, default=2.0, help="seconds before the first retry; default: %(default)s")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds without a response; default: %(default)s")
    options = parser.parse_args()
    failed = False
    try:
        checksums = read_checksums(options.checksums) if options.checksums else {}
        for name, urls in SOURCES.items():
            own = [f"{options.base_url.rstrip('/')}/{name}"] if options.base_url else list(urls)
            try:
                print(fetch(name, own, options.out, checksums, options), flush=True)
            except Wrong as error:
                failed = True
                print(f"fetch_images: error: {error}", file=sys.stderr)
    except (Wrong, OSError, UnicodeDecodeError) as error:
        print(f"fetch_images: error: {error}", file=sys.stderr)
        return 1
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
