r"""The sums that a recovery needs where the rows of its matrix are spread over processes.

Rank p holds some rows of D and of U, and all of V. Of each pass, sums of m×k and k×k numbers and a few vectors travel.
Everything that decides is a sum, or what rank 0 has computed, so that all ranks have the same bits.

Shapes: n rows of all ranks together, m columns, k singular triplets, P ranks.
"""

import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

Value = Callable[[Tensor, Tensor], Tensor]
"""Returns values at rows and columns, which are index tensors of one shape; rows are counted within a rank."""

Core = Callable[[Tensor, Tensor], Tensor]


class LostRankError(ValueError):
    """Another rank has ended, or cannot be reached."""


class Alone:
    """One process with all rows: nothing to sum.

    Attributes:
        rank: number of this process.
        size: P.
        device: of all tensors.
    """

    rank, size = 0, 1
    device = torch.device("cpu")

    def total(self, rows: int) -> int:
        """Return n.

        Args:
            rows: number of rows of this rank.
        """
        return rows

    def own(self, length: int) -> slice:
        """Return the share of ``length`` rows or columns that belongs to this rank."""
        return slice(0, length)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over ranks; ``values`` may be overwritten."""
        return values

    def scattered_sum(self, values: Tensor) -> Tensor:
        """Return the own share of the sum over ranks.

        Args:
            values: ``(m, k)``, a summand.
        """
        return values

    def whole(self, share: Tensor, length: int) -> Tensor:
        """Return the shares of all ranks, ``(length, k)``.

        Args:
            share: ``(q, k)``, where q is the size of :meth:`own` of ``length``.
            length: of all together.
        """
        return share

    def same(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return what rank 0 has; shapes and types must agree."""
        return values

    def every(self, *numbers: float) -> Tensor:
        """Return the numbers of all ranks, ``(P, q)`` float64 on the CPU, after all have come here."""
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")[None]

    def qr(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return the QR decomposition of a matrix whose rows are spread over the ranks.

        Returns:
            The own rows of Q, and R.
        """
        Q, R = torch.linalg.qr(share)
        return Q, R

    def decomposed(self, left: Tensor, right: Tensor, core: Core) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition of ``Q_left·core(R_left, R_right)·Q_rightᵀ``.

        Args:
            left: own rows of ``Q_left·R_left``.
            right: own rows of ``Q_right·R_right``.
            core: returns a matrix for both R, in float64.

        Returns:
            The own rows of the left vectors, the values in float64, and the own rows of the right vectors.
        """
        Qu, Ru = torch.linalg.qr(left)
        Qv, Rv = torch.linalg.qr(right)
        u, values, vh = torch.linalg.svd(core(Ru.double(), Rv.double()), full_matrices=False)
        return Qu @ u.to(Qu), values, Qv @ vh.mT.to(Qv)

    def svd(self, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition of a matrix whose rows are spread over the ranks.

        Returns:
            The own rows of the left vectors, the values, and the transposed right vectors.
        """
        U, values, Vh = torch.linalg.svd(share, full_matrices=False)
        return U, values, Vh

    def median(self, values: Tensor) -> Tensor:
        """Return the lower median of values that are at least 0, of all ranks together."""
        return values.median()

    def collect(self, rows: Tensor, columns: Tensor, value: Value) -> Tensor:
        """Return the values at entries of the matrix, on all ranks.

        Args:
            rows: counted over all ranks, ``(h,)``.
            columns: ``(h,)``.
            value: returns them for rows of this rank.
        """
        return value(rows, columns)

    def normal(self, generator: torch.Generator, side: int, count: int) -> Tensor:
        """Return the own rows of a random normal matrix ``(side, count)`` of float32, on the CPU."""
        return torch.randn(side, count, generator=generator, dtype=torch.float32, device="cpu")


ALONE = Alone()


class Ranks(Alone):
    """The processes of the default process group of ``torch.distributed``, each with some rows of one matrix.

    Sums over ranks of m×k numbers are in the order of ranks. The QR decomposition is that of the stacked R factors of
    all ranks [Demmel, Grigori, Hoemmen and Langou, 2012], which is as stable as one by Householder reflections;
    CholeskyQR is not, for the nearly dependent columns of a step.

    Args:
        rows: n, at least the number of ranks; 0 until it is known.
        device: of all tensors.

    Attributes:
        rows: n; to be set before rows are spread.
        sent: bytes that this rank has sent, if sums and gathers go around in a ring.
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
            raise LostRankError(f"rank {self.rank}: another rank has ended or cannot be reached") from error
        finally:
            self.seconds += time.perf_counter() - start
        self.sent += sent
        self.calls += 1

    @property
    def _others(self) -> float:
        return (self.size - 1) / self.size

    def total(self, rows: int) -> int:
        """Return n."""
        return self.rows

    def own(self, length: int) -> slice:
        """Return the share of this rank."""
        return slice(length * self.rank // self.size, length * (self.rank + 1) // self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over ranks, in an order that depends on their number alone."""
        values = values.contiguous()
        self._call(2 * self._others * values.nbytes, dist.all_reduce, values)
        return values

    def every(self, *numbers: float) -> Tensor:
        """Return the numbers of all ranks."""
        own = torch.tensor([*numbers, 0.0], dtype=torch.float64, device=self.device)
        return torch.stack(self._gathered(own)).cpu()[:, : len(numbers)]

    def _gathered(self, values: Tensor) -> list[Tensor]:
        found = [torch.empty_like(values) for _ in range(self.size)]
        self._call((self.size - 1) * values.nbytes, dist.all_gather, found, values)
        return found

    def _sizes(self, length: int) -> list[int]:
        return [length * (p + 1) // self.size - length * p // self.size for p in range(self.size)]

    def scattered_sum(self, values: Tensor) -> Tensor:
        """Return the own share of the sum, in the order of ranks."""
        sizes = self._sizes(len(values))
        own = sizes[self.rank]
        summands = values.new_empty(self.size * own, values.shape[1])
        sent = self._others * values.nbytes
        self._call(sent, dist.all_to_all_single, summands, values.contiguous(), [own] * self.size, sizes)
        return summands.view(self.size, own, -1).sum(dim=0)

    def whole(self, share: Tensor, length: int) -> Tensor:
        """Return the shares of all ranks."""
        sizes = self._sizes(length)
        padded = share.new_zeros(max(sizes), share.shape[1])
        padded[: len(share)] = share
        return torch.cat([part[:size] for part, size in zip(self._gathered(padded), sizes, strict=True)])

    def same(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Return what rank 0 has."""
        flat = torch.cat([value.double().flatten() for value in values])
        self._call(flat.nbytes, dist.broadcast, flat, 0)
        parts = flat.split([value.numel() for value in values])
        return tuple(part.view(value.shape).to(value) for part, value in zip(parts, values, strict=True))

    def decomposed(self, left: Tensor, right: Tensor, core: Core) -> tuple[Tensor, Tensor, Tensor]:
        """Return the singular value decomposition, of which rank 0 computes what is small."""
        sides = [torch.linalg.qr(side) for side in (left, right)]
        k = left.shape[1]
        sent = torch.cat([_padded(R) for _, R in sides])
        received = [torch.empty_like(sent) for _ in range(self.size)] if self.rank == 0 else None
        self._call(sent.nbytes, dist.gather, sent, received, 0)
        back = torch.zeros(2 * k + 2, k, dtype=torch.float64, device=left.device)
        sendings: list[Tensor] | None = None
        if received is not None:
            inner_left, R_left = _stacked([part[: k + 1] for part in received])
            inner_right, R_right = _stacked([part[k + 1 :] for part in received])
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
        """Return the own rows of Q, and R in float64."""
        Q, R = torch.linalg.qr(share)
        k = share.shape[1]
        sent = _padded(R)
        received = [torch.empty_like(sent) for _ in range(self.size)] if self.rank == 0 else None
        self._call(sent.nbytes, dist.gather, sent, received, 0)
        back = torch.zeros(2 * k + 1, k, dtype=torch.float64, device=share.device)
        sendings: list[Tensor] | None = None
        if received is not None:
            inner, outer = _stacked(received)
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
        u, values, vh = self.same(*torch.linalg.svd(R, full_matrices=False))
        return Q @ u.to(Q), values.to(Q), vh.to(Q)

    def median(self, values: Tensor) -> Tensor:
        """Return the lower median of all ranks."""
        # digit by digit of the binary representation, which has the order of the numbers
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
        """Return the values on all ranks."""
        own = self.own(self.rows)
        inside = torch.nonzero((rows >= own.start) & (rows < own.stop)).flatten()
        found = value(rows[inside] - own.start, columns[inside])
        return self.sum(found.new_zeros(len(rows)).index_copy_(0, inside, found))

    def normal(self, generator: torch.Generator, side: int, count: int) -> Tensor:
        """Return the own rows of what one process draws."""
        # in blocks of 16 rows at least, of which the generator makes what it makes of all rows at once
        own = self.own(side)
        parts = []
        for start in range(0, side, BLOCK):
            draws = torch.randn(min(BLOCK, side - start), count, generator=generator, dtype=torch.float32, device="cpu")
            parts.append(draws[max(0, own.start - start) : max(0, own.stop - start)].clone())
        return torch.cat(parts)


BLOCK = 2**12
"""Rows that are drawn at once."""


def _padded(R: Tensor) -> Tensor:
    """R with zeros below, ``(k, k)``, and a row that begins with its height."""
    k = R.shape[1]
    result = R.new_zeros(k + 1, k)
    result[: len(R)] = R
    result[k, 0] = len(R)
    return result


def _stacked(parts: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """The QR decomposition of the R factors of all ranks, one below the other: the rows of Q of each, and R."""
    heights = [int(part[-1, 0]) for part in parts]
    stacked = torch.cat([part[:height] for part, height in zip(parts, heights, strict=True)])
    Q, R = torch.linalg.qr(stacked.double())
    return list(Q.split(heights)), R
