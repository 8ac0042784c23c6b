r"""Collective operations of a recovery whose matrix is distributed over processes by rows.

Rank p holds some rows of D and of U, and all of V. Each pass communicates sums of m×k and k×k numbers and a few
vectors. Decisions depend only on sums, or on values computed by rank 0, so that all ranks have identical bits.

Shapes: n rows on all ranks together, m columns, k singular triplets, P ranks.
"""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from dop_lightning.foundation.renamed import RenamedAttribute

Value = Callable[[Tensor, Tensor], Tensor]
"""Function that returns values for row and column index tensors of equal shape; row indices are local to a rank."""

Core = Callable[[Tensor, Tensor], Tensor]


class LostRankError(ValueError):
    """Another rank has exited or is unreachable."""


class SingleProcess:
    """A single process that holds all rows, so that collective operations are trivial.

    Attributes:
        rank: rank of this process.
        size: P.
        device: device of all tensors.
    """

    rank, size = 0, 1
    device = torch.device("cpu")

    def total(self, rows: int) -> int:
        """Return the total number of rows n.

        Args:
            rows: number of rows of this rank.
        """
        return rows

    def own(self, length: int) -> slice:
        """Return the part of ``length`` rows or columns that belongs to this rank."""
        return slice(0, length)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks. ``values`` may be overwritten."""
        return values

    def scattered_sum(self, values: Tensor) -> Tensor:
        """Return this rank's part of the sum over all ranks.

        Args:
            values: summand of this rank, ``(m, k)``.
        """
        return values

    def gather_rows(self, share: Tensor, length: int) -> Tensor:
        """Return the concatenated parts of all ranks, ``(length, k)``.

        Args:
            share: ``(q, k)``, where q is the size of :meth:`own` for ``length``.
            length: total number of rows.
        """
        return share

    def broadcast(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the values of rank 0. Shapes and types must agree on all ranks."""
        return values

    def every(self, *numbers: float) -> Tensor:
        """Return the numbers of all ranks, ``(P, q)`` float64 on the CPU, once all ranks have called this."""
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")[None]

    def qr(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the QR decomposition of a matrix distributed by rows.

        Returns:
            This rank's rows of Q, and R.
        """
        Q, R = torch.linalg.qr(share)
        return Q, R

    def decomposed(self, left: Tensor, right: Tensor, core: Core) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition of ``Q_left·core(R_left, R_right)·Q_rightᵀ``.

        Args:
            left: this rank's rows of ``Q_left·R_left``.
            right: this rank's rows of ``Q_right·R_right``.
            core: returns a matrix in float64, given both R factors.

        Returns:
            This rank's rows of the left vectors, the values in float64, and this rank's rows of the right vectors.
        """
        Qu, Ru = torch.linalg.qr(left)
        Qv, Rv = torch.linalg.qr(right)
        u, values, vh = torch.linalg.svd(core(Ru.double(), Rv.double()), full_matrices=False)
        return Qu @ u.to(Qu), values, Qv @ vh.mT.to(Qv)

    def svd(self, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition of a matrix distributed by rows.

        Returns:
            This rank's rows of the left vectors, the values, and the transposed right vectors.
        """
        U, values, Vh = torch.linalg.svd(share, full_matrices=False)
        return U, values, Vh

    def median(self, values: Tensor) -> Tensor:
        """Return the lower median of nonnegative values over all ranks."""
        return values.median()

    def collect(self, rows: Tensor, columns: Tensor, value: Value) -> Tensor:
        """Return values of some entries of the matrix, on all ranks.

        Args:
            rows: global row indices, ``(h,)``.
            columns: ``(h,)``.
            value: returns the values for row indices of this rank.
        """
        return value(rows, columns)

    def normal(self, generator: torch.Generator, side: int, count: int) -> Tensor:
        """Return this rank's rows of a normal random matrix ``(side, count)``, float32 on the CPU."""
        return torch.randn(side, count, generator=generator, dtype=torch.float32, device="cpu")

    # Old names, until version 0.3.
    whole = RenamedAttribute("gather_rows")
    same = RenamedAttribute("broadcast")


SINGLE_PROCESS = SingleProcess()


class Ranks(SingleProcess):
    """The processes of the default process group of ``torch.distributed``, each holding some rows of one matrix.

    m×k sums over ranks are computed in the order of ranks. The QR decomposition is computed from the stacked R factors
    of all ranks [Demmel, Grigori, Hoemmen and Langou, 2012]. This is as stable as Householder QR, whereas CholeskyQR
    fails for the nearly dependent columns of a step.

    Args:
        rows: n, at least the number of ranks; 0 until it is known.
        device: device of all tensors.

    Attributes:
        rows: n; set it before rows are distributed.
        sent: bytes sent by this rank, assuming ring algorithms for sums and gathers.
        seconds: time in communication, including the wait for slower ranks.
        calls: number of collective calls.
    """

    def __init__(self, rows: int = 0, device: torch.device | str = "cpu") -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = torch.device(device)
        self.rows = rows
        self.sent, self.seconds, self.calls = 0.0, 0.0, 0

    def _call(self, sent: float, collective: Callable[..., object], *arguments: object, **options: object) -> None:
        start = time.perf_counter()
        try:
            collective(*arguments, **options)
        except RuntimeError as error:
            raise LostRankError(f"rank {self.rank}: another rank has exited or is unreachable") from error
        finally:
            self.seconds += time.perf_counter() - start
        self.sent += sent
        self.calls += 1

    @property
    def _remote_fraction(self) -> float:
        return (self.size - 1) / self.size

    def total(self, rows: int) -> int:
        """Return the total number of rows n."""
        return self.rows

    def own(self, length: int) -> slice:
        """Return the part that belongs to this rank."""
        return slice(length * self.rank // self.size, length * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all ranks, in an order that only depends on their number."""
        values = values.contiguous()
        self._call(2 * self._remote_fraction * values.nbytes, dist.all_reduce, values)
        return values

    def every(self, *numbers: float) -> Tensor:
        """Return the numbers of all ranks."""
        own = torch.tensor([*numbers, 0.0], dtype=torch.float64, device=self.device)
        return torch.stack(self._gather(own)).cpu()[:, : len(numbers)]

    def _gather(self, values: Tensor) -> list[Tensor]:
        found = [torch.empty_like(values) for _ in range(self.size)]
        self._call((self.size - 1) * values.nbytes, dist.all_gather, found, values)
        return found

    def _sizes(self, length: int) -> list[int]:
        return [length * (p + 1) // self.size - length * p // self.size for p in range(self.size)]

    def scattered_sum(self, values: Tensor) -> Tensor:
        """Return this rank's part of the sum, computed in the order of ranks."""
        sizes = self._sizes(len(values))
        own = sizes[self.rank]
        summands = values.new_empty(self.size * own, values.shape[1])
        sent = self._remote_fraction * values.nbytes
        self._call(sent, dist.all_to_all_single, summands, values.contiguous(), [own] * self.size, sizes)
        return summands.view(self.size, own, -1).sum(dim=0)

    def gather_rows(self, share: Tensor, length: int) -> Tensor:
        """Return the concatenated parts of all ranks."""
        sizes = self._sizes(length)
        padded = share.new_zeros(max(sizes), share.shape[1])
        padded[: len(share)] = share
        return torch.cat([part[:size] for part, size in zip(self._gather(padded), sizes, strict=True)])

    def broadcast(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return the values of rank 0."""
        flat = torch.cat([value.double().flatten() for value in values])
        self._call(flat.nbytes, dist.broadcast, flat, 0)
        parts = flat.split([value.numel() for value in values])
        return tuple(part.view(value.shape).to(value) for part, value in zip(parts, values, strict=True))

    def decomposed(self, left: Tensor, right: Tensor, core: Core) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition. Rank 0 computes that of the small core."""
        sides = [torch.linalg.qr(side) for side in (left, right)]
        k = left.shape[1]
        sent = torch.cat([_pad_factor(R) for _, R in sides])
        received = [torch.empty_like(sent) for _ in range(self.size)] if self.rank == 0 else None
        self._call(sent.nbytes, dist.gather, sent, received, 0)
        back = torch.zeros(2 * k + 2, k, dtype=torch.float64, device=left.device)
        sendings: list[Tensor] | None = None
        if received is not None:
            inner_left, R_left = _stacked_qr([part[: k + 1] for part in received])
            inner_right, R_right = _stacked_qr([part[k + 1 :] for part in received])
            u, values, vh = torch.linalg.svd(core(R_left, R_right), full_matrices=False)
            width = len(values)
            sendings = [torch.zeros_like(back) for _ in received]
            for one, of_left, of_right in zip(sendings, inner_left, inner_right, strict=True):
                one[: len(of_left), :width] = of_left @ u
                one[k : k + len(of_right), :width] = of_right @ vh.mT
                one[2 * k, :width] = values
                one[2 * k + 1, 0] = width
        self._call(back.nbytes, dist.scatter, back, sendings, 0)
        width = int(back[2 * k + 1, 0])
        turned = [Q @ back[start : start + len(R), :width].to(Q) for (Q, R), start in zip(sides, (0, k), strict=True)]
        return turned[0], back[2 * k, :width].clone(), turned[1]

    def qr(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return this rank's rows of Q, and R in float64."""
        Q, R = torch.linalg.qr(share)
        k = share.shape[1]
        sent = _pad_factor(R)
        received = [torch.empty_like(sent) for _ in range(self.size)] if self.rank == 0 else None
        self._call(sent.nbytes, dist.gather, sent, received, 0)
        back = torch.zeros(2 * k + 1, k, dtype=torch.float64, device=share.device)
        sendings: list[Tensor] | None = None
        if received is not None:
            inner, outer = _stacked_qr(received)
            width = len(outer)
            sendings = [torch.zeros_like(back) for _ in received]
            for one, rows in zip(sendings, inner, strict=True):
                one[: len(rows), :width] = rows
                one[k : k + width] = outer
                one[2 * k, 0] = width
        self._call(back.nbytes, dist.scatter, back, sendings, 0)
        width = int(back[2 * k, 0])
        return Q @ back[: len(R), :width].to(Q), back[k : k + width]

    def svd(self, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition."""
        Q, R = self.qr(share)
        u, values, vh = self.broadcast(*torch.linalg.svd(R, full_matrices=False))
        return Q @ u.to(Q), values.to(Q), vh.to(Q)

    def median(self, values: Tensor) -> Tensor:
        """Return the lower median over all ranks."""
        # radix selection on the binary representation, which sorts like the numbers
        bits = values.double().contiguous().view(torch.int64)
        count = int(self.sum(torch.tensor(len(values), device=self.device)))
        place, found = (count - 1) // 2, 0
        for shift in range(56, -1, -8):
            digits = bits >> shift
            histogram = self.sum(torch.bincount(digits & 255, minlength=256))
            below = histogram.cumsum(0)
            digit = int(torch.searchsorted(below, place, right=True))
            place -= int(below[digit] - histogram[digit])
            found = (found << 8) | digit
            bits = bits[digits == found]
        return torch.tensor([found], dtype=torch.int64, device=self.device).view(torch.float64)[0].to(values)

    def collect(self, rows: Tensor, columns: Tensor, value: Value) -> Tensor:
        """Return the values, on all ranks."""
        own = self.own(self.rows)
        inside = torch.nonzero((rows >= own.start) & (rows < own.stop)).flatten()
        found = value(rows[inside] - own.start, columns[inside])
        return self.sum(found.new_zeros(len(rows)).index_copy_(0, inside, found))

    def normal(self, generator: torch.Generator, side: int, count: int) -> Tensor:
        """Return this rank's rows of the matrix that a single process would draw."""
        # for blocks of at least 16 values, the generator returns the same numbers as in a single call
        own = self.own(side)
        parts = []
        for start in range(0, side, BLOCK):
            draws = torch.randn(min(BLOCK, side - start), count, generator=generator, dtype=torch.float32, device="cpu")
            parts.append(draws[max(0, own.start - start) : max(0, own.stop - start)].clone())
        return torch.cat(parts)


BLOCK = 2**12
"""Rows per draw of random numbers."""


def _pad_factor(R: Tensor) -> Tensor:
    """Return R padded with zeros to ``(k, k)``, with an additional row that starts with its height."""
    k = R.shape[1]
    result = R.new_zeros(k + 1, k)
    result[: len(R)] = R
    result[k, 0] = len(R)
    return result


def _stacked_qr(parts: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Return the QR decomposition of the stacked R factors of all ranks: the rows of Q per rank, and R."""
    heights = [int(part[-1, 0]) for part in parts]
    stacked = torch.cat([part[:height] for part, height in zip(parts, heights, strict=True)])
    Q, R = torch.linalg.qr(stacked.double())
    return list(Q.split(heights)), R
