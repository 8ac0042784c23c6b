"""The compiled fit of the mixture agrees with plain operations."""

import pytest
import torch

from dop_lightning.engine.steps.clean_entries import mixture
from dop_lightning.engine.steps.clean_entries.mixture import MIN_LOG_DENSITY, Entries, Mixture
from dop_lightning.foundation.native import library

CLASSES = 5


def some_entries(groups: int, seed: int, with_gaps: bool, number: int = 3000) -> Entries:
    generator = torch.Generator().manual_seed(seed)

    def normal(size: int = number) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    corrupted = (torch.rand(number // groups, generator=generator) < 0.3).repeat_interleave(groups)
    classes = torch.randint(CLASSES, (number,), generator=generator)
    residual = torch.where(corrupted, 0.4 * normal(), 0.02 * (1 + classes) * normal())
    far = residual.abs() > 0.2
    return Entries(
        residual=residual,
        classes=classes,
        outlying=0.5 + 0.5 * normal(),
        missed=torch.where(far, normal(), MIN_LOG_DENSITY),
        pardon=normal().abs(),
        groups=groups,
        seen=torch.rand(number, generator=generator) < 0.8 if with_gaps else None,
    )


def initial() -> Mixture:
    return Mixture(torch.tensor(0.2), torch.linspace(0.01, 0.1, CLASSES), torch.full((CLASSES,), 0.05))


@pytest.mark.parametrize("with_gaps", [False, True])
@pytest.mark.parametrize("share_too", [False, True])
@pytest.mark.parametrize("groups", [1, 3, 300])
def test_kernel_agrees_with_plain_operations(groups: int, share_too: bool, with_gaps: bool) -> None:
    kernels = library()
    assert kernels is not None
    for seed in range(3):
        entries = some_entries(groups, seed, with_gaps)
        compiled = initial()._refit_compiled(kernels, entries, 1 / 256, share_too)
        plain = initial()._refit_plain(entries, 1 / 256, share_too)
        assert torch.allclose(compiled.scales, plain.scales, rtol=2e-4, atol=0)
        assert torch.allclose(compiled.share, plain.share, rtol=2e-4, atol=1e-6)
        assert torch.equal(compiled.missed, plain.missed)


@pytest.mark.parametrize("groups", [1, 3])
def test_single_iteration_agrees_up_to_rounding(monkeypatch: pytest.MonkeyPatch, groups: int) -> None:
    monkeypatch.setattr(mixture, "ROUNDS", 1)
    kernels, entries = library(), some_entries(groups, 5, True)
    assert kernels is not None
    compiled, plain = initial()._refit_compiled(kernels, entries, 1 / 256, True), initial()
    plain = plain._refit_plain(entries, 1 / 256, True)
    assert torch.allclose(compiled.scales, plain.scales, rtol=3e-6, atol=0)
    assert torch.allclose(compiled.share, plain.share, rtol=3e-6, atol=0)


def test_fit_does_not_change_its_start() -> None:
    start, entries = initial(), some_entries(1, 0, False)
    start.refit(entries, 1 / 256, True)
    assert torch.equal(start.scales, initial().scales)
    assert torch.equal(start.share, initial().share)


def test_expanded_scales_of_one_class_are_fitted() -> None:
    entries = some_entries(1, 1, False)
    start = Mixture(torch.tensor(0.2), torch.full((CLASSES,), 0.01), torch.tensor(0.05).expand(CLASSES))
    assert len(start.refit(entries, 1 / 256, True).scales.unique()) > 1


def test_float64_is_fitted_by_plain_operations() -> None:
    entries = some_entries(1, 2, False)
    floats = (entries.residual, entries.outlying, entries.missed, entries.pardon)
    residual, *densities = (each.double() for each in floats)
    start = initial()
    doubled = Mixture(*(each.double() for each in (start.share, start.missed, start.scales)))
    fitted = doubled.refit(Entries(residual, entries.classes, *densities), 1 / 256, True)
    assert fitted.scales.dtype == torch.float64
    assert torch.allclose(fitted.scales.float(), start.refit(entries, 1 / 256, True).scales, rtol=2e-4)
