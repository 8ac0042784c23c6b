"""Rectangles, dust and text are found by the image alone, and what is no damage is left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dop_lightning.engine.steps.clean_entries import (
    dead_rectangles,
    dust_specks,
    likely_damage,
    printed_text,
    structured_damage,
)
from dop_lightning.engine.steps.clean_entries.damage import damage_of
from dop_lightning.images.formats import find_images, read_image
from dop_lightning.problems.noise import Noise
from dop_lightning.problems.problem import Problem
from dop_lightning.problems.randomness import stream
from tests.suites.scripts import imported_script

with imported_script("synthetic_damage"):
    from synthetic_damage import DeadRectangles, Dust, Text

UNSEEN = -7.0

Search = Callable[..., Tensor]

EACH: list[tuple[str, Search, Noise, Noise, float]] = [
    ("rectangles", dead_rectangles, DeadRectangles(1.0), DeadRectangles(UNSEEN), 0.95),
    ("rectangles", dead_rectangles, DeadRectangles("colour"), DeadRectangles(UNSEEN), 0.95),
    ("rectangles", dead_rectangles, DeadRectangles("noise"), DeadRectangles(UNSEEN), 0.95),
    ("dust", dust_specks, Dust(0.02, 1.0), Dust(0.02, UNSEEN), 0.6),
    ("dust", dust_specks, Dust(0.02, 0.0), Dust(0.02, UNSEEN), 0.6),
    ("dust", dust_specks, Dust(0.02, 1.0, 0.5), Dust(0.02, UNSEEN), 0.4),
    ("text", printed_text, Text("white", lines=2), Text(UNSEEN, lines=2), 0.6),
    ("text", printed_text, Text("orange", True, 2), Text(UNSEEN, True, 2), 0.6),
]
"""The option, the search, the damage, the same of a value that no image has, and the least F1."""

NAMES = [f"{kind} {vars(noise)}" for kind, _, noise, _, _ in EACH]

ONE_OF_EACH = [EACH[0], EACH[3], EACH[6]]


def photograph(name: str = "chelsea") -> Tensor:
    """One that comes with the package, of about 128×128 pixels."""
    return read_image(find_images([name])[0]).values.clone()


def corrupted(noise: Noise, marked: Noise, image: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    """The image of 8 bits and the support of its damage."""
    observation = noise.corrupt(image, stream(seed, "corruption")).observation
    support = marked.corrupt(image, stream(seed, "corruption")).observation == UNSEEN
    return (observation * 255).round() / 255, support


def f1(found: Tensor, support: Tensor) -> float:
    return 2 * float((found & support).sum()) / float(found.sum() + support.sum())


@pytest.mark.parametrize(("kind", "search", "noise", "marked", "least"), EACH, ids=NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_synthetic_damage_is_found(
    kind: str, search: Search, noise: Noise, marked: Noise, least: float, channels: int
) -> None:
    image = photograph()
    y, support = corrupted(noise, marked, image if channels == 3 else image.mean(dim=0, keepdim=True))
    found = search(y)
    assert f1(found, support) > least
    assert torch.equal(structured_damage(y, kind) & support, found & support)


@pytest.mark.parametrize(
    ("kind", "search", "noise", "marked", "least"), ONE_OF_EACH, ids=["rectangles", "dust", "text"]
)
def test_scale_does_not_matter_and_missing_entries_are_not_found(
    kind: str, search: Search, noise: Noise, marked: Noise, least: float
) -> None:
    y, support = corrupted(noise, marked, photograph())
    found = search(y)
    assert torch.equal(search(1024 * y, 1024.0), found)
    observed = torch.ones_like(y, dtype=torch.bool)
    observed[:, :64] = False
    assert not search(torch.where(observed, y, torch.nan), observed=observed)[:, :64].any()
    some = torch.rand(y.shape[1:], generator=torch.Generator().manual_seed(0)) < 0.98
    part = search(torch.where(some, y, torch.nan), observed=some.expand_as(y))
    assert not part[:, ~some].any()
    assert f1(part, support & some) > least - 0.15
    assert not search(torch.zeros_like(y), observed=torch.zeros_like(observed)).any()
    assert not search(torch.ones(1, 5, 5)).any()
    assert not search(torch.ones(40)).any()


def board() -> Tensor:
    """A checkerboard of 8 pixels, exactly drawn."""
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    return ((rows // 8 + columns // 8) % 2).float()[None]


def sky() -> Tensor:
    """White above a blurred horizon, and a disk of black."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    image = (1.4 - rows / 96 + 0.1 * torch.sin(columns / 5)).clamp(0, 1)
    return torch.where((rows - 60).square() + (columns - 40).square() < 150, 0.0, image)[None]


@pytest.mark.parametrize("search", [dead_rectangles, printed_text])
@pytest.mark.parametrize(
    "make", [board, sky, photograph, lambda: photograph("camera"), lambda: photograph("astronaut")]
)
def test_undamaged_structures_are_not_masked(search: Search, make: Callable[[], Tensor]) -> None:
    assert not search(make()).any()


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "rocket"])
def test_hardly_any_dust_in_photographs_and_no_suggestion(name: str) -> None:
    image = photograph(name)
    assert float(dust_specks(image).float().mean()) < 0.003
    assert likely_damage(image) is None


@pytest.mark.parametrize(
    ("kind", "search", "noise", "marked", "least"), ONE_OF_EACH, ids=["rectangles", "dust", "text"]
)
def test_the_option_is_suggested(kind: str, search: Search, noise: Noise, marked: Noise, least: float) -> None:
    y, _ = corrupted(noise, marked, photograph())
    with pytest.warns(UserWarning, match=rf"probably has {kind}\. Pass --damage {kind} \(in Python: damage='{kind}'"):
        damage_of(Problem("photo", y, data_range=1.0), "auto")


def test_kinds_are_joined() -> None:
    y, _ = corrupted(EACH[0][2], EACH[0][3], photograph())
    y, _ = corrupted(EACH[3][2], EACH[3][3], y, seed=2)
    assert torch.equal(structured_damage(y, "rectangles+dust"), dead_rectangles(y) | dust_specks(y))


def test_large_images_are_searched_in_middle_and_corners() -> None:
    y = photograph().repeat(1, 4, 4)
    assert likely_damage(y) is None
    y[:, 425:445, 565:590] = 1.0
    assert likely_damage(y) == "rectangles"


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_no_suggestion_for_images_of_few_colours(name: str) -> None:
    assert likely_damage((photograph(name) * 5).round() / 5) is None
    assert likely_damage((photograph(name)[:1] * 15).round() / 15) is None


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("name", ["camera", "coffee"])
def test_no_suggestion_with_impulses(name: str, share: float) -> None:
    image = photograph(name)
    generator = torch.Generator().manual_seed(0)
    hit = torch.rand(image.shape, generator=generator) < share
    salt = (torch.rand(image.shape, generator=generator) < 0.5).to(image)
    assert likely_damage(torch.where(hit, salt, image)) is None
