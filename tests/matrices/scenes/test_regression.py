"""Huber regression onto known components."""

import pytest
import torch

from dop_lightning.matrices.scenes.regression import huber_codes, robust_deviation


def rows_with_outliers(share: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    V = torch.linalg.qr(torch.randn(120, 3, generator=generator)).Q.mT.contiguous()
    codes = torch.randn(40, 3, generator=generator)
    y = codes @ V + 0.01 * torch.randn(40, 120, generator=generator)
    hit = torch.rand(40, 120, generator=generator) < share
    return torch.where(hit, y + 0.5 + 0.3 * torch.rand(40, 120, generator=generator), y), V, codes


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_outliers_of_one_sign_do_not_add_error(share: float) -> None:
    y, V, codes = rows_with_outliers(share)
    error = (huber_codes(y, V, 0.01) - codes).square().mean().sqrt()
    assert error < 0.016  # the noise is 0.01
    if share:
        assert error < 0.1 * (y @ V.mT - codes).square().mean().sqrt()


def test_rows_do_not_depend_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    y, V, _ = rows_with_outliers(0.2)
    together = huber_codes(y, V, 0.01, torch.ones(3))
    torch.testing.assert_close(huber_codes(y[5:6], V, 0.01, torch.ones(3)), together[5:6])
    monkeypatch.setattr("dop_lightning.matrices.scenes.regression.AT_ONCE", 120 * 7)
    torch.testing.assert_close(huber_codes(y, V, 0.01, torch.ones(3)), together)


def test_empty_input_and_wrong_shapes() -> None:
    assert huber_codes(torch.zeros(4, 5), torch.zeros(0, 5), 0.1).shape == (4, 0)
    with pytest.raises(ValueError, match=r"same number of columns, got \(4, 5\) and \(2, 6\)"):
        huber_codes(torch.zeros(4, 5), torch.zeros(2, 6), 0.1)
    with pytest.raises(ValueError, match="noise must be"):
        huber_codes(torch.zeros(4, 5), torch.zeros(2, 5), 0.0)


def test_robust_deviation_is_consistent_for_gaussian_noise() -> None:
    noise = torch.randn(2, 20001, generator=torch.Generator().manual_seed(1))
    noise[1, :4000] = 50
    deviation = robust_deviation(noise)
    assert abs(float(deviation[0]) - 1) < 0.03
    assert float(deviation[1]) < 1.4
