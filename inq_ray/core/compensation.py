"""Compensation: live weights are adjusted for the rounding of others, so that outputs change least.

A row of a layer's weight gives an output w·x of inputs x with second moments H = E[x xᵀ]. If some of its weights change
by d, the output changes by d·x, whose mean square is d H dᵀ. The live weights change so that this is smallest:
d_L = -H_LL⁻¹ H_LF d_F for live weights L and changed ones F (Optimal Brain Surgeon, Hassibi & Stork 1993). If none is
left, weights are rounded one after the other, each taking earlier errors into account (GPTQ, Frantar et al. 2023, arXiv
2210.17323, in the form of LDLQ, Chee et al. 2023, arXiv 2307.13304).

Rows come in groups, as in a grouped convolution: all rows of a group have the same inputs. Arguments and results are
float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Fraction of the mean of H's diagonal added to it: H is singular if inputs are few or linearly dependent.
DAMPING = 0.01
# Largest number of values in matrices that are factored at once: 256 MB.
_MOST_VALUES = 1 << 25
# Number of columns after which errors are propagated by a matrix product.
_BLOCK = 64

# Rank of the approximation of H in the solver's preconditioner, and the least part of H's diagonal that it leaves.
_NYSTROM_RANK = 64
_LEAST_REST = 1e-3
# Tolerance of the solver, for the root of the error of outputs relative to that at the start.
_TOLERANCE = 1e-3
_MOST_ITERATIONS = 50
# Multiplications after which a large layer is taken as it is; the first iterations bring nearly all of the gain.
_MOST_PRODUCTS = 1 << 36
_LEAST_ITERATIONS = 8
# Number of rows that are solved at once, each with a matrix of 16 KB.
_MOST_ROWS = 4096

Nearest = Callable[[Tensor], Tensor]
"""From values (float64 [..., rows] of one column) to the levels they are rounded to."""


def damped(moments: Tensor, damping: float = DAMPING, *, least: Tensor | None = None) -> Tensor:
    """Return invertible second moments: damped, with 1 on the diagonal of inputs that are always 0.

    Args:
        moments: float64 [groups, n, n], symmetric.
        damping: Fraction of the mean of the diagonal that is added to it.
        least: Least value to add, float64 [groups, 1], for moments that may be nothing but noise; None = 0.
    """
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(dim=-1, keepdim=True)
    added = torch.where(diagonal > 0, damping * mean, torch.ones_like(diagonal))
    if least is not None:
        added = torch.maximum(added, least)
    result = moments.clone()
    result.diagonal(dim1=-2, dim2=-1).add_(added)
    return result


def compensate(change: Tensor, live: Tensor, moments: Tensor) -> Tensor:
    """Return the changes of live weights for which the changes of others affect each row's output least.

    Args:
        change: float64 [groups, rows, n], the changes of the changed weights; 0 elsewhere.
        live: bool [groups, rows, n], weights that may change; none of the changed ones.
        moments: float64 [groups, n, n], positive definite: see :func:`damped`.

    Returns:
        float64 [groups, rows, n], 0 where weights are not live.
    """
    scale, matrix, factor = _scaled(moments)
    right = (change / scale).float().neg_() @ matrix
    return _solve(right, live, matrix, factor).double().mul_(scale)


def refit(rows: Tensor, live: Tensor, moments: Tensor, cross: Tensor) -> Tensor:
    """Return weights whose outputs on the current inputs are closest to those of ``rows`` on the previous inputs.

    Args:
        rows: float64 [groups, rows, n].
        live: bool [groups, rows, n], weights that may move.
        moments: float64 [groups, n, n], H of the current inputs x, positive definite: see :func:`damped`.
        cross: float64 [groups, n, n], E[y xᵀ] with the previous inputs y, equally damped.

    Returns:
        float64 [groups, rows, n].
    """
    if bool(live.all()):
        refitted: Tensor = torch.linalg.solve(moments, rows @ cross, left=False)
        return refitted
    scale, matrix, factor = _scaled(moments)
    right = (rows @ (cross - moments)).mul_(scale).float()
    return _solve(right, live, matrix, factor).double().mul_(scale).add_(rows)


def _scaled(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return H as the solver needs it.

    Args:
        moments: float64 [groups, n, n], H, positive definite.

    Returns:
        A scale, float64 [groups, 1, n], by which rows and columns of H are multiplied to get 1 on the diagonal; the
        scaled H, float32; a factor B of its Nyström approximation B Bᵀ, float64 [groups, n, k], which has the largest
        eigenvalues: few, and by far the largest (Frangella, Tropp & Udell 2023, arXiv 2110.02820, algorithm 2.1).
    """
    scale = moments.diagonal(dim1=-2, dim2=-1).rsqrt().unsqueeze(-2)
    matrix = moments.float().mul_(scale.float()).mul_(scale.float().mT)
    n = moments.shape[-1]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(n, max(1, min(_NYSTROM_RANK, n // 8)), generator=generator, dtype=torch.float64, device="cpu")
    basis = torch.linalg.qr(drawn.to(moments.device)).Q
    sketch = (moments @ (basis * scale.mT)) * scale.mT
    triangle = torch.linalg.cholesky(basis.mT @ sketch)
    factor = torch.linalg.solve_triangular(triangle.mT, sketch, upper=True, left=False)
    return scale, matrix, factor.mul_(scale.mT != 1)  # so that weights of inputs that are always 0 do not move


def _solve(right: Tensor, live: Tensor, matrix: Tensor, factor: Tensor) -> Tensor:
    """Return d of d_L H_LL = right_L for the live weights L of each row, 0 elsewhere.

    Conjugate gradients solve all rows at once, because they need only products with H, the same for every mask. They
    use float32, which with the preconditioner converges as fast as float64.

    Args:
        right: float32 [groups, rows, n].
        live: bool [groups, rows, n].
        matrix: H of :func:`_scaled`.
        factor: B of :func:`_scaled`.
    """
    unit = right.abs().amax().clamp_min(torch.finfo(right.dtype).tiny)  # squares of small numbers would be 0
    parts = zip(*(torch.split(each, _MOST_ROWS, dim=-2) for each in (right / unit, live)), strict=True)
    solved = [_conjugate_gradients(wanted, free, matrix, factor) for wanted, free in parts]
    return torch.cat(solved, dim=-2).mul_(unit)


def _conjugate_gradients(right: Tensor, live: Tensor, matrix: Tensor, factor: Tensor) -> Tensor:
    """Return the result of :func:`_solve` for some of the rows.

    The preconditioner of a row is the inverse of P_LL for P = B Bᵀ + M, with M diagonal and P's diagonal that of H. By
    Woodbury's identity it needs a matrix [k, k] per row.
    """
    free, tiny = live.to(right.dtype), torch.finfo(right.dtype).tiny
    root = (1 - factor.square().sum(-1)).clamp_min(_LEAST_REST).rsqrt().unsqueeze(-2)
    factor, root = (factor * root.mT).float(), root.float()
    outer = (factor.unsqueeze(-1) * factor.unsqueeze(-2)).flatten(-2)
    inner = (free @ outer).view(*free.shape[:2], factor.shape[-1], -1).double()
    inner.diagonal(dim1=-2, dim2=-1).add_(1)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(inner)).float()

    def preconditioned(residual: Tensor) -> Tensor:
        scaled = residual * root
        within = ((scaled @ factor).unsqueeze(-2) @ inverse).squeeze(-2)
        return (scaled - within @ factor.mT).mul_(root).mul_(free)

    residual = right * free
    moved, direction = torch.zeros_like(residual), preconditioned(residual)
    norm = (residual * direction).sum(-1, keepdim=True)
    target = norm * _TOLERANCE**2
    affordable = _MOST_PRODUCTS // max(1, residual.numel() * residual.shape[-1])
    for _ in range(max(_LEAST_ITERATIONS, min(_MOST_ITERATIONS, affordable))):
        product = (direction @ matrix).mul_(free)
        curvature = (direction * product).sum(-1, keepdim=True).clamp_min(tiny)
        step = torch.where(norm > target, norm / curvature, 0)
        moved.addcmul_(step, direction)
        residual.addcmul_(step, product, value=-1)
        corrected = preconditioned(residual)
        before, norm = norm, (residual * corrected).sum(-1, keepdim=True)
        if not bool((norm > target).any()):
            break
        direction.mul_(torch.where(before > target, norm / before, 0)).add_(corrected)
    return moved


def round_in_turn(rows: Tensor, moments: Tensor, nearest: Nearest, live: Tensor | None = None) -> Tensor:
    """Round weights to levels column by column, so that each row's output changes least.

    Columns with large moments come first. Each weight is rounded to its best level, given the earlier ones.

    Args:
        rows: float64 [groups, rows, n].
        moments: float64 [groups, n, n], positive definite: see :func:`damped`.
        nearest: Rounds values to levels, for float64 [groups, rows].
        live: bool [groups, rows, n], weights to round, None = all; others keep their values.

    Returns:
        float64 [groups, rows, n].
    """
    order = moments.diagonal(dim1=-2, dim2=-1).argsort(dim=-1, descending=True, stable=True)
    if live is not None and not bool(live.all()):
        return _round_each_row(rows, moments, nearest, live, order)
    by_column = order.unsqueeze(-2).expand_as(rows)
    sorted_rows = rows.gather(-1, by_column)
    index = order.unsqueeze(-1)
    matrix = moments.gather(-2, index.expand_as(moments)).gather(-1, index.transpose(-1, -2).expand_as(moments))
    feedback = _feedback(matrix)
    rounded, error = torch.zeros_like(rows), torch.zeros_like(rows)
    num_columns = rows.shape[-1]
    for start in range(0, num_columns, _BLOCK):
        end = min(start + _BLOCK, num_columns)
        pushed = error[..., :start] @ feedback[..., :start, start:end]
        for at in range(start, end):
            inner = (error[..., start:at] @ feedback[..., start:at, at : at + 1]).squeeze(-1)
            rounded[..., at] = nearest(sorted_rows[..., at] + pushed[..., at - start] + inner)
            error[..., at] = sorted_rows[..., at] - rounded[..., at]
    return torch.empty_like(rows).scatter_(-1, by_column, rounded)


def _round_each_row(rows: Tensor, moments: Tensor, nearest: Nearest, live: Tensor, order: Tensor) -> Tensor:
    """Do :func:`round_in_turn` if each row has its own live weights, and so its own matrix."""
    groups, num_rows, n = rows.shape
    width = int(live.sum(-1).max())
    # A row's live columns from the last to the first, after others up to the width, which are decoupled below.
    place = torch.empty_like(order).scatter_(-1, order, torch.arange(n, device=rows.device).expand_as(order))
    columns = (place.unsqueeze(-2).expand_as(rows) + n * (~live)).argsort(dim=-1)[..., :width].flip(-1)
    used, rounded = live.gather(-1, columns), rows.gather(-1, columns)
    index = torch.where(used, columns, n)
    extended = functional.pad(moments, (0, 1, 0, 1))  # has zeros for the others
    step = max(1, _MOST_VALUES // max(1, width * width))
    for group in range(groups):
        for start in range(0, num_rows, step):
            part = (group, slice(start, start + step))
            factor = _factors(extended[group], index[part])
            diagonal = factor.diagonal(dim1=-2, dim2=-1)
            values, column = rounded[part].clone(), torch.zeros_like(rows[..., 0])
            error = torch.zeros_like(values)
            for end in range(width, 0, -_BLOCK):
                begin = max(0, end - _BLOCK)
                pushed = (factor[:, begin:end, end:] @ error[:, end:].unsqueeze(-1)).squeeze(-1)
                for at in range(end - 1, begin - 1, -1):
                    inner = (error[:, at + 1 : end] * factor[:, at, at + 1 : end]).sum(-1)
                    column[part] = values[:, at] + (pushed[:, at - begin] + inner) / diagonal[:, at]
                    rounded[part][:, at] = torch.where(used[part][:, at], nearest(column)[part], values[:, at])
                    error[:, at] = values[:, at] - rounded[part][:, at]
    return rows.scatter(-1, columns, rounded)


def _factors(matrix: Tensor, index: Tensor) -> Tensor:
    """Return the Cholesky factors, transposed, of parts of a matrix: float64 [rows, width, width].

    Rows are taken one after the other, because a part that stays in a CPU's cache is factored twice as fast.

    Args:
        matrix: float64 [n + 1, n + 1], positive definite but for its last row and column, which are 0.
        index: int64 [rows, width], rows and columns of each part; n stands for one that is decoupled from all others.
    """
    rows, width = index.shape
    factors = matrix.new_empty(rows, width, width)
    success = torch.empty((), dtype=torch.int32, device=matrix.device)
    decoupled = (index == len(matrix) - 1).to(matrix.dtype)
    index = index.int()
    for row, own in enumerate(index):
        part = matrix.view(-1).index_select(0, (own.unsqueeze(-1) * len(matrix) + own).view(-1)).view(width, width)
        part.diagonal().add_(decoupled[row])
        torch.linalg.cholesky_ex(part.mT, check_errors=True, out=(factors[row].mT, success))  # LAPACK's order
    return factors


def _feedback(matrix: Tensor) -> Tensor:
    """Return U, strictly upper triangular, of H = (U + 1) D (U + 1)ᵀ: how errors of earlier columns move later ones.

    Args:
        matrix: float64 [..., n, n], H.
    """
    upper = torch.linalg.cholesky(matrix.flip(-1, -2)).flip(-1, -2)
    feedback: Tensor = (upper / upper.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)).triu(diagonal=1)
    return feedback
