"""The same recovery with rows spread over processes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.projections.builders import low_rank, relative_error
from tests.engine.projections.on_ranks import alone, dependent, matrix, vectors

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / ".ranks-hello-1").write_text("of a process that was killed")
    (folder / ".ranks-answer.json").write_text('{"name": "old", "tokens": {"1": "of a process that was killed"}}')
    command = [sys.executable, "-m", "tests.engine.projections.on_ranks"]
    processes = [subprocess.Popen([*command, str(rank), "2", str(folder)], cwd=ROOT) for rank in range(2)]
    assert [process.wait(100) for process in processes] == [0, 0]
    left = [file.name for file in folder.glob(".ranks-*")]
    assert [name for name in left if not name.startswith(".ranks-store-")] == []  # torch may leave its store at exit
    return [torch.load(folder / f"found-{rank}.pt", weights_only=False) for rank in range(2)]


def test_sums_and_shares(found: list[dict[str, Any]]) -> None:
    assert [each["own"] for each in found] == [(0, 75, 0, 3), (75, 151, 3, 7)]
    share = torch.arange(21.0).view(7, 3)
    assert torch.equal(torch.cat([each["scattered"] for each in found]), 3 * share)
    scaled = torch.cat([share[:3], 2 * share[3:]])
    expected = matrix("noisy")[torch.tensor([150, 0, 75, 76]), torch.tensor([3, 2, 1, 0])]
    normal = torch.randn(5001, 32, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.cat([each["normal"] for each in found]), normal)
    for each in found:
        assert torch.equal(each["whole"], scaled)
        assert [float(median) for median in each["median"]] == [float(vectors(n).median()) for n in (151, 40)]
        assert torch.equal(each["collected"], expected)
        assert [value.tolist() for value in each["same"]] == [[0.0, 0.0], [[3]]]
        assert each["every"].tolist() == [[0.0, 2.5], [1.0, 2.5]]


def test_decomposition_is_stable_where_cholesky_fails(found: list[dict[str, Any]]) -> None:
    A = dependent()
    assert int(torch.linalg.cholesky_ex(A.mT @ A).info) > 0 or torch.linalg.cond(A) > 1e6
    Q, R = torch.cat([each["qr"][0] for each in found]), found[0]["qr"][1]
    assert torch.equal(R, found[1]["qr"][1])
    torch.testing.assert_close(Q @ R.float(), A, atol=1e-5, rtol=0)
    torch.testing.assert_close(Q.mT @ Q, torch.eye(10), atol=1e-5, rtol=0)
    product, q = (torch.cat([each["wide"][k] for each in found]) for k in range(2))
    torch.testing.assert_close(product, low_rank(6, 9, 6, dtype=torch.float64))
    torch.testing.assert_close(q.mT @ q, torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["missing", "noisy"])
def test_two_processes_equal_one(found: list[dict[str, Any]], kind: str) -> None:
    recovery, L = alone(kind)
    both = [each[kind] for each in found]
    assert relative_error(torch.cat([each["rows"] for each in both]), L) < 1e-9
    for each in both:
        assert each["report"] == recovery.report()
        assert (each["steps"], each["fits"]) == (recovery.steps_done, recovery.progress.fits)
        assert each["observed"] == recovery.observed
        assert torch.equal(each["rows"], each["again"]), "the same bits on the same ranks"
        assert torch.equal(each["right"], both[0]["right"]), "ranks agree to the bit"
    assert recovery.progress.fits >= (2 if kind == "missing" else 1)
    assert recovery.progress.certificate is not None
    assert recovery.progress.certificate.is_accepted


def test_pass_sends_the_bytes_of_scaling_md(found: list[dict[str, Any]]) -> None:
    sent, k, kept = found[0]["pass"]
    P, m, b, samples = 2, 120, 8, 2**12
    thin = (P - 1) / P * m * k * b + (P - 1) * (m // P) * kept * b
    small = 2 * (2 * k + 1) * 2 * k * b + (4 * k + 2) * 2 * k * 8
    assert sent == thin + small + 2 * (P - 1) / P * (samples * b + 8)


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads /proc")
def test_processes_of_one_machine_listen_on_loopback_only(found: list[dict[str, Any]]) -> None:
    assert [set(each["listening"]) for each in found] == [{"0100007F"}] * 2
