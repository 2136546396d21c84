"""Compensation: live weights are adjusted for the rounding of others, so that outputs change least.

A row of a layer's weight gives an output w·x of inputs x with second moments H = E[x xᵀ]. If some of its weights change
by d, the output changes by d·x, whose mean square is d H dᵀ. The live weights change so that this is smallest:
d_L = -H_LL⁻¹ H_LF d_F for live weights L and changed ones F (Optimal Brain Surgeon, Hassibi & Stork 1993). If none is
left, weights are rounded one after the other, each taking earlier errors into account (GPTQ, Frantar et al. 2023, arXiv
2210.17323, in the form of LDLQ, Chee et al. 2023, arXiv 2307.13304).

Rows come in groups, as in a grouped convolution: all rows of a group have the same inputs. Everything is float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Fraction of the mean of H's diagonal added to it: H is singular if inputs are few or linearly dependent.
DAMPING = 0.01
# Largest number of values in matrices that are factored at once: 256 MB.
_MOST_VALUES = 1 << 25
# Number of columns after which errors are propagated by a matrix product.
_BLOCK = 64

# Tolerance of the solver, relative to the initial gradient; damping has a larger effect.
_TOLERANCE = 1e-4
_MOST_ITERATIONS = 50
# Multiplications after which a large layer is taken as it is; the first iterations bring nearly all of the gain.
_MOST_PRODUCTS = 1 << 35
_LEAST_ITERATIONS = 10

Nearest = Callable[[Tensor], Tensor]
"""From values (float64 [..., rows] of one column) to the levels they are rounded to."""


def damped(moments: Tensor, damping: float = DAMPING) -> Tensor:
    """Return invertible second moments: damped, with 1 on the diagonal of inputs that are always 0.

    Args:
        moments: float64 [groups, n, n], symmetric.
        damping: Fraction of the mean of the diagonal that is added to it.
    """
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    mean = diagonal.mean(dim=-1, keepdim=True)
    added = torch.where(diagonal > 0, damping * mean, torch.ones_like(diagonal))
    return moments + torch.diag_embed(added)


def compensate(change: Tensor, live: Tensor, moments: Tensor) -> Tensor:
    """Return the changes of live weights for which the changes of others affect each row's output least.

    Args:
        change: float64 [groups, rows, n], the changes of the changed weights; 0 elsewhere.
        live: bool [groups, rows, n], weights that may change; none of the changed ones.
        moments: float64 [groups, n, n], positive definite: see :func:`damped`.

    Returns:
        float64 [groups, rows, n], 0 where weights are not live.
    """
    return _solve(-(change @ moments), live, moments)


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
    return rows + _solve(rows @ (cross - moments), live, moments)


def _solve(right: Tensor, live: Tensor, moments: Tensor) -> Tensor:
    """Return d of d_L H_LL = right_L for the live weights L of each row, 0 elsewhere.

    Conjugate gradients solve all rows at once, because they need only products with H, the same for every mask.
    """
    free, tiny = live.to(moments.dtype), torch.finfo(moments.dtype).tiny
    scale = moments.diagonal(dim1=-2, dim2=-1).rsqrt().unsqueeze(-2)  # makes the diagonal 1: Jacobi's preconditioner
    matrix = moments * scale * scale.transpose(-1, -2)
    residual = right * scale * free
    moved, direction = torch.zeros_like(residual), residual.clone()
    norm = (residual * residual).sum(-1, keepdim=True)
    target = norm * _TOLERANCE**2
    affordable = _MOST_PRODUCTS // max(1, residual.numel() * residual.shape[-1])
    for _ in range(max(_LEAST_ITERATIONS, min(_MOST_ITERATIONS, affordable))):
        product = direction @ matrix * free
        curvature = (direction * product).sum(-1, keepdim=True).clamp_min(tiny)
        step = torch.where(norm > target, norm / curvature, 0)
        moved += step * direction
        residual -= step * product
        before, norm = norm, (residual * residual).sum(-1, keepdim=True)
        if not bool((norm > target).any()):
            break
        direction = residual + norm / before.clamp_min(tiny) * direction
    return moved * scale


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
    # A row's live columns in order, then others up to the width, which are decoupled below.
    place = torch.empty_like(order).scatter_(-1, order, torch.arange(n, device=rows.device).expand_as(order))
    columns = (place.unsqueeze(-2).expand_as(rows) + n * (~live)).argsort(dim=-1)[..., :width]
    rounded = rows.gather(-1, columns)
    step = max(1, _MOST_VALUES // max(1, width * width))
    for group in range(groups):
        for start in range(0, num_rows, step):
            part = (group, slice(start, start + step))
            index, used, values = columns[part], live[part].gather(-1, columns[part]), rounded[part].clone()
            matrix = moments[group][index.unsqueeze(-1), index.unsqueeze(-2)]
            matrix = matrix * (used.unsqueeze(-1) & used.unsqueeze(-2))
            feedback = _feedback(matrix + torch.diag_embed((~used).to(matrix.dtype)))
            error, column = torch.zeros_like(values), torch.zeros_like(rows[..., 0])
            for at in range(width):
                column[part] = values[:, at] + (error[:, :at] * feedback[:, :at, at]).sum(-1)
                rounded[part][:, at] = torch.where(used[:, at], nearest(column)[part], values[:, at])
                error[:, at] = values[:, at] - rounded[part][:, at]
    return rows.scatter(-1, columns, rounded)


def _feedback(matrix: Tensor) -> Tensor:
    """Return U, strictly upper triangular, of H = (U + 1) D (U + 1)ᵀ: how errors of earlier columns move later ones.

    Args:
        matrix: float64 [..., n, n], H.
    """
    upper = torch.linalg.cholesky(matrix.flip(-1, -2)).flip(-1, -2)
    feedback: Tensor = (upper / upper.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)).triu(diagonal=1)
    return feedback
