"""Recovery as a reconstructor of deepinv: batches, physics of several kinds, deepinv's own test and Trainer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

deepinv = pytest.importorskip("deepinv", exc_type=ImportError)

from deepinv.physics.functional.blur import gaussian_blur  # noqa: E402

from dop_lightning import recover_image  # noqa: E402
from dop_lightning.images.formats import sample_folder  # noqa: E402
from dop_lightning.images.formats.image_files import read_image  # noqa: E402
from dop_lightning.integrations.deepinv import RobustReconstructor, SensingPhysics  # noqa: E402
from dop_lightning.integrations.deepinv.given import OneOfBatch, measurements  # noqa: E402
from dop_lightning.model.operators import GaussianBlur  # noqa: E402

SIDE = 32
SMALL: dict[str, Any] = {"preset": "quick", "width": 4, "iterations": 6, "precision": "fp32"}


def pictures(count: int = 4, channels: int = 3) -> Tensor:
    """B×C×H×W in [0, 1], smooth, each another one."""
    k, c, rows, columns = torch.meshgrid(*map(torch.arange, (count, channels, SIDE, SIDE)), indexing="ij")
    return 0.5 + 0.35 * torch.sin(0.15 * (c + 1) * rows + 0.1 * (k + 1) * columns + k)


def salted(y: Tensor, share: float = 0.2, seed: int = 0) -> Tensor:
    """Salt and pepper on a share of the entries."""
    generator = torch.Generator().manual_seed(seed)
    salt = (torch.rand(y.shape, generator=generator) < 0.5).to(y)
    return torch.where(torch.rand(y.shape, generator=generator) < share, salt, y)


def mask(count: int, seed: int = 1) -> Tensor:
    """B×1×H×W, 30 % missing, each image another."""
    return (torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) > 0.3).float()


def physics_of(kind: str) -> Any:
    """One A for all images."""
    size = (3, SIDE, SIDE)
    if kind == "identity":
        return deepinv.physics.Denoising(noise_model=deepinv.physics.SaltPepperNoise(0.1, 0.1))
    if kind == "inpainting":
        return deepinv.physics.Inpainting(img_size=size, mask=mask(1)[0].expand(size))
    if kind == "blur":
        return deepinv.physics.Blur(filter=gaussian_blur(sigma=(1.2, 1.2)), padding="circular")
    if kind == "downsampling":
        return deepinv.physics.Downsampling(img_size=size, factor=2, filter="bicubic")
    return deepinv.physics.CompressedSensing(m=900, img_size=size, rng=torch.Generator().manual_seed(0))


QUIET: dict[str, Any] = {"verbose": False, "show_progress_bar": False, "non_blocking_transfers": False}
KINDS = ("identity", "inpainting", "blur", "downsampling", "compressed")


@pytest.mark.parametrize("kind", KINDS)
def test_batch_equals_single_images_bit_for_bit(kind: str) -> None:
    physics, model = physics_of(kind), RobustReconstructor(**SMALL)
    y = salted(physics.A(pictures()))
    together = model(y, physics)
    assert together.shape == (4, 3, SIDE, SIDE)
    assert len(model.outcomes) == 4
    apart = torch.cat([model(y[k : k + 1], physics) for k in range(4)])
    assert torch.equal(together, apart)
    assert torch.equal(model(y.flip(0), physics).flip(0), together)  # nor does the position matter


def test_the_identity_is_recovered_as_by_recover_image() -> None:
    y = salted(pictures(2))
    found = RobustReconstructor(**SMALL)(y, physics_of("identity"))
    for mine, image in zip(found, y, strict=True):
        own = recover_image(image, value_range=(0, 1), progress=False, **SMALL)
        assert torch.equal(mine, own.image)


def test_unmeasured_entries_are_missing() -> None:
    physics, x = physics_of("inpainting"), pictures(1)
    y = salted(physics.A(x)) * (physics.mask != 0)
    found = RobustReconstructor(**SMALL)(y, physics)
    own = recover_image(y[0], mask=physics.mask[0] != 0, value_range=(0, 1), progress=False, **SMALL)
    assert torch.equal(found[0], own.image)
    nan = torch.where(physics.mask != 0, y, torch.nan)
    assert torch.equal(RobustReconstructor(**SMALL)(nan, physics_of("identity")), found)


@pytest.mark.parametrize("kind", ["mask", "kernel"])
def test_parameters_per_image_belong_to_the_image(kind: str) -> None:
    """Masks or kernels B×… of a batch: each image is recovered with its own one, as if it were alone."""
    x = pictures(3)
    if kind == "mask":
        masks = mask(3).expand(3, 3, SIDE, SIDE)
        physics = deepinv.physics.Inpainting(img_size=(3, SIDE, SIDE), mask=masks)
        alone = [deepinv.physics.Inpainting(img_size=(3, SIDE, SIDE), mask=one[None]) for one in masks]
    else:
        kernels = torch.zeros(3, 1, 5, 5)
        for k in range(3):
            kernels[k, 0, 2, : k + 3] = 1 / (k + 3)
        physics = deepinv.physics.Blur(filter=kernels, padding="circular")
        alone = [deepinv.physics.Blur(filter=one[None], padding="circular") for one in kernels]
    y, model = salted(physics.A(x)), RobustReconstructor(**SMALL)
    together = model(y, physics)
    for k in range(3):
        torch.testing.assert_close(model(y[k : k + 1], alone[k])[0], together[k])


def test_an_image_of_a_batch_can_be_measured_among_zeros() -> None:
    blur = physics_of("blur")
    one, x, y = OneOfBatch(blur, 2, 4), pictures(1), pictures(1).flip(-1)
    torch.testing.assert_close(one.A(x), blur.A(x))
    torch.testing.assert_close((one.A(x) * y).sum(), (x * one.A_adjoint(y)).sum())


def test_observations_of_unusual_scale_are_divided() -> None:
    (usual,) = measurements(physics_of("blur"), pictures(1))
    assert usual.scale == 1.0

    class Large(deepinv.physics.LinearPhysics):
        def A(self, x: Tensor, **kwargs: Any) -> Tensor:
            return 40 * x.sum(1, keepdim=True)

        def A_adjoint(self, y: Tensor, **kwargs: Any) -> Tensor:
            return 40 * y.expand(-1, 3, -1, -1)

    (large,) = measurements(Large(), pictures(1)[:, :1])
    assert large.scale == pytest.approx(120)
    X = pictures(1)
    torch.testing.assert_close(large.sensing.physics.A(X), X.sum(1, keepdim=True) / 3)


@pytest.mark.parametrize("kind", ["identity", "blur"])
def test_other_value_ranges(kind: str) -> None:
    physics, x = physics_of(kind), pictures(1)
    y = salted(physics.A(x))
    usual = RobustReconstructor(**SMALL)(y, physics)
    other = RobustReconstructor(value_range=(-1, 1), **SMALL)(physics.A(torch.full_like(x, -1)) + 2 * y, physics)
    # iterations amplify the rounding of another scale
    torch.testing.assert_close(other, 2 * usual - 1, atol=5e-2, rtol=0)
    assert float((other - (2 * usual - 1)).abs().mean()) < 2e-3


def test_seeds_dtypes_and_gradients_are_as_requested() -> None:
    physics = physics_of("blur")
    y = salted(physics.A(pictures(1))).expand(2, -1, -1, -1)
    same = RobustReconstructor(**SMALL)(y, physics)
    assert torch.equal(same[0], same[1])
    other = RobustReconstructor(seed=[0, 1], **SMALL)(y, physics)
    assert torch.equal(other[0], same[0])
    assert not torch.equal(other[1], same[1])
    with torch.inference_mode():
        half = RobustReconstructor(**SMALL)(y[:1].double(), physics.double())
    assert half.dtype == torch.float64
    assert not half.requires_grad
    state = torch.get_rng_state()
    RobustReconstructor(**SMALL)(y[:1].float(), physics.float())
    assert torch.equal(torch.get_rng_state(), state)


class Saturated(torch.nn.Module):
    def A(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RobustReconstructor(preset="fast"), "preset must be one of"),
        (lambda: RobustReconstructor(iterations=0), "iterations must be a whole number of at least 1, got 0"),
        (
            lambda: RobustReconstructor(seed=[1, 2])(pictures(1), physics_of("identity")),
            "one entry per image, 1, got 2",
        ),
        (
            lambda: RobustReconstructor()(pictures(1).int(), physics_of("identity")),
            r"real tensor .*, got torch\.int32",
        ),
        (lambda: RobustReconstructor()([pictures(1)], physics_of("identity")), "got list"),
        (lambda: RobustReconstructor()(pictures(1), Saturated()), "Saturated must be linear"),
        (lambda: RobustReconstructor()(pictures(1), deepinv.physics.Haze()), "must be linear, with the methods"),
        (
            lambda: RobustReconstructor()(pictures(1)[..., :9], physics_of("inpainting")),
            r"A_adjoint failed for the shape \(3, 32, 9\)",
        ),
        (
            lambda: RobustReconstructor(preset="instant")(pictures(1), physics_of("blur")),
            "measured|sensing|measurement",
        ),
    ],
)
def test_unsupported_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


class Pairs(torch.utils.data.Dataset):
    """Images and their observations, as deepinv's data sets give them."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        return {"x": self.x[k], "y": self.y[k]}


def loader(physics: Any, x: Tensor) -> Any:
    return torch.utils.data.DataLoader(Pairs(x, salted(physics.A(x))), batch_size=2)


def test_passes_deepinv_tests() -> None:
    physics, x = physics_of("blur"), pictures(2)
    data = loader(physics, x)
    generator = deepinv.models.ConvDecoder(img_size=(3, SIDE, SIDE), in_size=(4, 4), channels=8, layers=4)
    models = {
        "ours": RobustReconstructor(**SMALL),
        "theirs": deepinv.models.DeepImagePrior(generator, img_size=(8, 4, 4), iterations=3),
    }
    found = {}
    for name, model in models.items():
        batches = data if name == "ours" else torch.utils.data.DataLoader(data.dataset, batch_size=1)
        found[name] = deepinv.test(model, batches, physics, **QUIET)
    assert set(found["theirs"]) <= set(found["ours"])
    restored = RobustReconstructor(**SMALL)(next(iter(data))["y"], physics)
    expected = float(deepinv.metric.PSNR()(restored, x).mean())
    assert found["ours"]["PSNR"] == pytest.approx(expected, abs=1e-3)


def test_works_in_a_deepinv_trainer_with_online_measurements(tmp_path: Any) -> None:
    physics = deepinv.physics.Denoising(noise_model=deepinv.physics.SaltPepperNoise(0.1, 0.1))
    x = pictures(2)
    trainer = deepinv.Trainer(
        RobustReconstructor(**{**SMALL, "iterations": 2}),
        physics=physics,
        optimizer=None,
        train_dataloader=None,
        online_measurements=True,
        metrics=[deepinv.metric.PSNR(), deepinv.metric.SSIM()],
        device="cpu",
        save_path=str(tmp_path),
        **QUIET,
    )
    found = trainer.test(torch.utils.data.DataLoader([{"x": image} for image in x], batch_size=2))
    assert np.isfinite(found["PSNR"])
    assert np.isfinite(found["SSIM"])


def test_own_measurements_are_recovered_like_deepinv_ones() -> None:
    """An operator of this package as a physics of deepinv, which the reconstructor wraps again."""
    physics = SensingPhysics(GaussianBlur(1.0), (3, SIDE, SIDE))
    y = salted(physics.A(pictures(2)))
    assert torch.equal(RobustReconstructor(**SMALL)(y, physics)[1:], RobustReconstructor(**SMALL)(y[1:], physics))


def test_photograph_with_outliers_is_restored() -> None:
    """A quarter of the outliers' error is left at most; the adjoint alone leaves all of it."""
    photograph = read_image(sample_folder() / "astronaut.png").values[None, :, 40:88, 90:138]
    blur = deepinv.physics.Blur(filter=gaussian_blur(sigma=(1.0, 1.0)), padding="circular")
    for physics in (deepinv.physics.Denoising(), blur):
        y = salted(physics.A(photograph))
        found = RobustReconstructor(preset="quick", width=8, iterations=150)(y, physics)
        error = (found - photograph).square().mean()
        assert error < 0.25 * (y - photograph).square().mean()
