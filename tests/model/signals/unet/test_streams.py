"""Work beside each other: the same results, in order."""

import pytest
import torch
from torch import Tensor, nn

from dop_lightning.model.signals.unet.streams import SIDE_STREAMS, run_concurrently


def test_networks_run_sequentially_on_a_cpu() -> None:
    order: list[int] = []

    def work(k: int) -> Tensor:
        order.append(k)
        return torch.tensor(k)

    results = run_concurrently([lambda k=k: work(k) for k in range(20)], torch.device("cpu"))
    assert [int(result) for result in results] == order == list(range(20))


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 3, SIDE_STREAMS + 3])
def test_gpu_streams_equal_sequential_values_and_gradients(size: int) -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)).to(device) for _ in range(size)]
    z = torch.randn(32, 64, device=device)
    found = []
    for beside in (True, False):
        for _ in range(20):  # memory is given from one stream to another
            works = [lambda network=network: network(z) for network in networks]
            results = run_concurrently(works, device) if beside else [work() for work in works]
            gradients = torch.autograd.grad(
                torch.stack(results).square().sum(), [p for n in networks for p in n.parameters()]
            )
        found.append([*(result.detach() for result in results), *gradients])
        del results  # else the next gradients meet nodes of another stream
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
