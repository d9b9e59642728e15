r"""The general lattice: differentiable dynamic time warping with any steps, weights, ends and minimum.

.. math::
    D_{nm} = \mu\big(\{D_{n - i_s, m - j_s} + W_{nms} C_{nm}\}_s \cup \{C_{nm} + a_{nm}\}\big), \quad
    \text{value} = \mu\big(\{D_{nm} + e_{nm}\}\big)

with steps :math:`(i_s, j_s)`, their weights W, costs a of starting and e of ending in a cell, and an operator
:math:`\mu`: "softmin", "sparsemin", "smoothmin" or "hardmin". Soft-DTW, CTC and their relatives are settings of it (see
`torch_dalign.presets`).
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _checks
from ._ddtw_functions import DDTWFunction, DDTWGradFunction, Lattice, Options
from ._modules import SmoothedLoss
from ._ops import ops
from ._softdtw_functions import blank_padding
from .cost import CostFunction, Metric, check_metric, lattice_or_features

Step = tuple[int, int]
Weights = Sequence[float] | Tensor | None
Ends = str | tuple[int, int] | Tensor

THREE_STEPS: tuple[Step, ...] = ((1, 0), (0, 1), (1, 1))
SMOOTHINGS = ("softmin", "sparsemin", "smoothmin", "hardmin")
MOST_STEPS = 32
#: Cells along x and along y where a path may start or end, for each name.
_ALL = 2**31
_SIDES = {"corner": (1, 1), "any_x": (_ALL, 1), "any_y": (1, _ALL)}


# ---------------------------------------------------------------- functions of a cost lattice


def ddtw(
    cost: Tensor,
    gamma: float | Tensor = 1.0,
    *,
    steps: Sequence[Step] = THREE_STEPS,
    step_weights: Weights = None,
    start: Ends = "corner",
    end: Ends = "corner",
    smoothing: str = "softmin",
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> Tensor:
    r"""Value of the general lattice for given costs: see `DDTW` for the formula.

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32. A cell of cost +inf is blocked.
    gamma, steps, step_weights, start, end, smoothing
        As in `DDTW`.
    x_lengths, y_lengths : Tensor, optional
        (B,) integers: item b uses the first x_lengths[b] rows and y_lengths[b] columns. What lies beyond is never read,
        its gradient is 0.

    Returns
    -------
    Tensor
        (B,), float64 for float64 costs, else float32. +inf with gradient 0 where no path is left; NaN where a cost is
        NaN. Differentiable in cost, gamma, step_weights, start and end; twice for "softmin" (the second time in eager
        mode only).

    Raises
    ------
    ValueError, TypeError
        For shapes, lengths, values or options out of range, and other dtypes.

    References
    ----------
    Zeitler and Müller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", TASLPRO 2026, Algorithm 1.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> cost = torch.tensor([[[0.0, 1.0, 5.0], [1.0, 5.0, 0.0]]])
    >>> functional.ddtw(cost, steps=[(0, 1), (1, 1), (1, 2)], smoothing="hardmin")
    tensor([0.])
    """
    problem = _problem(
        cost, None, "precomputed", gamma, steps, step_weights, start, end, smoothing, x_lengths, y_lengths
    )
    return problem.value()


def ddtw_alignment(
    cost: Tensor,
    gamma: float | Tensor = 1.0,
    *,
    steps: Sequence[Step] = THREE_STEPS,
    step_weights: Weights = None,
    start: Ends = "corner",
    end: Ends = "corner",
    smoothing: str = "softmin",
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
) -> Tensor:
    r"""Alignment of given costs, the gradient of `ddtw`: :math:`H_{nm} = \partial\, \text{value} / \partial C_{nm}`.

    With unit step weights and softmin it is the probability that a path visits the cell.

    Parameters
    ----------
    cost, gamma, steps, step_weights, start, end, smoothing, x_lengths, y_lengths
        As in `ddtw`.

    Returns
    -------
    Tensor
        (B, N, M). For "softmin" differentiable once, in all that `ddtw` is.

    Raises
    ------
    ValueError, TypeError
        As `ddtw`.

    References
    ----------
    Zeitler and Müller 2026, Algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> functional.ddtw_alignment(torch.zeros(1, 3, 2), steps=[(1, 0), (1, 1)])
    tensor([[[1.0000, 0.0000],
             [0.5000, 0.5000],
             [0.0000, 1.0000]]])
    """
    problem = _problem(
        cost, None, "precomputed", gamma, steps, step_weights, start, end, smoothing, x_lengths, y_lengths
    )
    return problem.alignment()


# ---------------------------------------------------------------- the module


class DDTW(SmoothedLoss):
    r"""The general alignment loss (dDTW): any steps, cell-wise step weights, free ends, four minimum operators.

    .. math::
        D_{nm} = \mu\big(\{D_{n - i_s, m - j_s} + W_{nms} C_{nm}\}_s \cup \{C_{nm} + a_{nm}\}\big), \quad
        \text{value} = \mu\big(\{D_{nm} + e_{nm}\}\big)

    Parameters
    ----------
    steps : sequence of pairs, default ((1, 0), (0, 1), (1, 1))
        At most 32 steps (x, y) of whole numbers >= 0, not both 0. Cells that a longer step passes over do not count.
    step_weights : sequence of floats or Tensor, optional
        Factors W >= 0 of the cost of the cell that a step arrives in; inf blocks the step there. S numbers, or a tensor
        that broadcasts to (B, N, M, S): (S,), (M, S), (N, 1, S), (B, N, M, S). Never materialised. Default: ones.
    start, end : str, pair of ints, or Tensor, default "corner"
        Where paths may start and end. "corner"; "any_x" or "any_y": also every other cell (n, 0), or (0, m), and for
        the end (n, M - 1), or (N - 1, m): free along that axis. A pair (a, b): the first a cells of that side along x
        and the first b along y, counted from the corner. A boolean mask (B, N, M) or (1, N, M). Or a tensor of costs
        a, e of that shape, +inf where a path must not. A start cell counts its own cost with weight 1.
    smoothing : str, default "softmin"
        The operator :math:`\mu` on a set q (blocked entries left out), with g = gamma:
        "softmin" :math:`-g \log \sum e^{-q / g}`; "smoothmin" :math:`\langle p, q \rangle` with
        :math:`p = \mathrm{softmax}(-q / g)`; "sparsemin"
        :math:`\min_{y \in \Delta} \langle y, q \rangle + \tfrac g2 (|y|^2 - 1)`; "hardmin" the least one (the first of
        equal ones in the order of the steps, the start last).
    gamma : float, Tensor or nn.Parameter, default 1.0
        Smoothing > 0, without meaning for "hardmin". A tensor that requires grad or a parameter is learned.
    metric : str or callable, default "sqeuclidean"
        As in `SoftDTW`; "precomputed": the module is called as ``loss(cost)``.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Notes
    -----
    Call: ``loss(x, y, x_lengths=None, y_lengths=None, *, step_weights=None, start=None, end=None)``; the last three
    override the constructor's.

    * Shapes, dtypes and lengths as in `SoftDTW`. The lattice (B, N, M) of costs is stored.
    * Differentiable in x, y, gamma, and in step_weights, start and end where these are tensors that require grad; for
      "softmin" twice (the second time in eager mode only). An nn.Parameter becomes one of the module.
    * An item that has no path left has value +inf and gradient 0; one with a NaN has value and gradient NaN.
    * "softmin" runs in vectors along rows, columns or diagonals, whichever the steps leave free; the other operators
      run cell by cell in float64. Only softmin's value is a minimum over whole paths.
    * Results do not depend on the number of threads.

    Raises
    ------
    ValueError
        For shapes, lengths, labels, values or options out of range.
    TypeError
        For other dtypes, or a missing y.

    References
    ----------
    Zeitler and Müller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", TASLPRO 2026.
    Mensch and Blondel, "Differentiable Dynamic Programming for Structured Prediction and Attention", ICML 2018.

    Examples
    --------
    Each frame of x advances, targets may be skipped, and the match may begin and end anywhere in y:

    >>> import torch, torch_dalign as dalign
    >>> loss = dalign.DDTW(steps=[(1, 0), (1, 1), (1, 2)], start="any_y", end="any_y", gamma=0.1)
    >>> x = torch.randn(4, 20, 12, requires_grad=True)
    >>> loss(x, torch.randn(4, 50, 12)).backward()
    >>> x.grad.shape
    torch.Size([4, 20, 12])
    """

    step_weights: Weights
    start: Ends
    end: Ends

    def __init__(
        self,
        steps: Sequence[Step] = THREE_STEPS,
        step_weights: Weights = None,
        start: Ends = "corner",
        end: Ends = "corner",
        smoothing: str = "softmin",
        gamma: float | Tensor = 1.0,
        metric: Metric = "sqeuclidean",
        reduction: str = "mean",
    ) -> None:
        super().__init__(gamma, reduction)
        check_metric(metric)
        _checks.choice(smoothing, "smoothing", SMOOTHINGS)
        self.steps = tuple(_checks.steps(steps, None, MOST_STEPS))
        self.metric, self.smoothing = metric, smoothing
        _check_weights(step_weights, len(self.steps))
        self._hold("step_weights", step_weights)
        for name, ends in (("start", start), ("end", end)):
            _check_ends(ends, name)
            self._hold(name, ends)

    def _hold(self, name: str, value: Any) -> None:
        """A parameter, a buffer that is not part of the state_dict, or a plain attribute."""
        if isinstance(value, nn.Parameter) or not isinstance(value, Tensor):
            setattr(self, name, value)
        else:
            self.register_buffer(name, value, persistent=False)

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        *,
        step_weights: Weights = None,
        start: Ends | None = None,
        end: Ends | None = None,
    ) -> Tensor:
        """The loss; ``x`` is the cost lattice for metric "precomputed"."""
        return self._reduce(self._problem(x, y, x_lengths, y_lengths, step_weights, start, end).value())

    def alignment(
        self,
        x: Tensor,
        y: Tensor | None = None,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        *,
        step_weights: Weights = None,
        start: Ends | None = None,
        end: Ends | None = None,
    ) -> Tensor:
        """Alignment H (B, N, M) = d value / d cost; for "softmin" itself differentiable.

        With unit step weights and softmin H is the probability that a path visits a cell. Reduction plays no part.

        Examples
        --------
        >>> import torch, torch_dalign as dalign
        >>> x = torch.tensor([[[0.0], [1.0], [1.0]]])
        >>> dalign.DDTW(smoothing="hardmin").alignment(x, x[:, :2])
        tensor([[[1., 0.],
                 [0., 1.],
                 [0., 1.]]])
        """
        return self._problem(x, y, x_lengths, y_lengths, step_weights, start, end).alignment()

    def best_path(
        self,
        x: Tensor,
        y: Tensor | None = None,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        *,
        step_weights: Weights = None,
        start: Ends | None = None,
        end: Ends | None = None,
    ) -> list[Tensor]:
        """Best path of each item (Viterbi): the one of least cost with the same steps, weights and ends.

        Returns
        -------
        list of Tensor
            B tensors (L, 2) int64: the cells (n, m) from the first to the last; (0, 2) where no path is left. Of
            equally good ones, going back from the end, each step is the first in the order of the steps.

        Examples
        --------
        >>> import torch, torch_dalign as dalign
        >>> x = torch.tensor([[[0.0], [1.0], [1.0]]])
        >>> dalign.DDTW().best_path(x, x[:, :2])
        [tensor([[0, 0],
                [1, 1],
                [2, 1]])]
        """
        return self._problem(x, y, x_lengths, y_lengths, step_weights, start, end).best_path()

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        name = getattr(self.metric, "__name__", repr(self.metric)) if callable(self.metric) else repr(self.metric)
        parts = [f"steps={self.steps}", f"smoothing={self.smoothing!r}", self._gamma_repr(), f"metric={name}"]
        for key, default in (("step_weights", None), ("start", "corner"), ("end", "corner")):
            value = getattr(self, key)
            if isinstance(value, Tensor):
                parts.append(f"{key}=tensor{tuple(value.shape)}" + (" (learned)" if value.requires_grad else ""))
            elif value != default:
                parts.append(f"{key}={value!r}")
        parts += [f"reduction={self.reduction!r}"] if self.reduction != "mean" else []
        return ", ".join(parts)

    def _problem(
        self,
        x: Any,
        y: Tensor | None,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        step_weights: Weights,
        start: Ends | None,
        end: Ends | None,
    ) -> _Problem:
        weights = self.step_weights if step_weights is None else step_weights
        begin, finish = self.start if start is None else start, self.end if end is None else end
        return _problem(
            x, y, self.metric, self.gamma, self.steps, weights, begin, finish, self.smoothing, x_lengths, y_lengths
        )


class SubsequenceSoftDTW(DDTW):
    r"""Soft-DTW of the whole of x against any part of y, whose start and end are free (OTAM).

    The lattice of `SoftDTW`, where a path may start in any cell (0, m) and end in any cell (N - 1, m): the soft minimum
    over all parts of y and all their alignments.

    Parameters
    ----------
    gamma : float, Tensor or nn.Parameter, default 1.0
        Smoothing > 0; a tensor that requires grad or a parameter is learned.
    metric : str or callable, default "sqeuclidean"
        As in `SoftDTW`.
    step_weights : sequence of three floats or Tensor, optional
        Weights of the steps down (1, 0), right (0, 1), diagonal (1, 1), as in `DDTW`.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Notes
    -----
    Call, shapes, derivatives and errors as `DDTW`; `alignment` shows where x was found, `best_path` the best part.

    References
    ----------
    Cao, Ji, Cao, Chang and Niebles, "Few-Shot Video Classification via Temporal Alignment", CVPR 2020. Zeitler and
    Müller, "Subsequence SDTW", 2026.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> y = torch.tensor([[[5.0], [0.0], [1.0], [2.0], [7.0]]])
    >>> dalign.SubsequenceSoftDTW(gamma=0.01).best_path(y[:, 1:4], y)
    [tensor([[0, 1],
            [1, 2],
            [2, 3]])]
    """

    def __init__(
        self,
        gamma: float | Tensor = 1.0,
        metric: Metric = "sqeuclidean",
        step_weights: Weights = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(THREE_STEPS, step_weights, "any_y", "any_y", "softmin", gamma, metric, reduction)


# ---------------------------------------------------------------- a checked problem


class _Problem(NamedTuple):
    """A checked batch: a lattice with its options."""

    lattice: Lattice
    options: Options

    def value(self) -> Tensor:
        """(B,)."""
        needs = [torch.is_grad_enabled() and t is not None and t.requires_grad for t in self.lattice]
        now = not any(needs[2:])  # else backward computes all gradients together
        return DDTWFunction.apply(*self.lattice, *self.options, needs[0] and now, needs[1] and now)[0]

    def alignment(self) -> Tensor:
        """H (B, N, M)."""
        cost = self.lattice.cost
        needs = (True, False, False, False, False)
        return DDTWGradFunction.apply(cost.new_ones(cost.shape[0]), *self.lattice, *self.options, *needs)[0]

    def best_path(self) -> list[Tensor]:
        """(L, 2) of each item."""
        cost, _, weights, start_cost, end_cost = self.lattice
        x_lengths, y_lengths, steps, start, end, _ = self.options
        _, paths, lengths = ops.ddtw_path(
            cost.detach(), x_lengths, y_lengths, steps, weights, start, start_cost, end, end_cost
        )
        return [path[:length] for path, length in zip(paths, lengths.tolist(), strict=True)]


def _problem(
    x: Tensor,
    y: Tensor | None,
    metric: Metric,
    gamma: float | Tensor,
    steps: Sequence[Step],
    step_weights: Weights,
    start: Ends,
    end: Ends,
    smoothing: str,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
) -> _Problem:
    _checks.choice(smoothing, "smoothing", SMOOTHINGS)
    pairs = _checks.steps(steps, None, MOST_STEPS)
    x, y, name = lattice_or_features(x, y, metric)
    shape = x.shape if y is None else (x.shape[0], x.shape[1], y.shape[1])
    x_lengths = _checks.lengths(x_lengths, "x_lengths", shape[0], shape[1])
    y_lengths = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", shape[0], shape[2])
    cost = x if y is None or name is None else _costs(x, y, name, x_lengths, y_lengths)
    weights = _weights(step_weights, cost, len(pairs))
    first, start_cost = _ends(start, "start", cost)
    last, end_cost = _ends(end, "end", cost)
    flat = [number for pair in pairs for number in pair]
    options = Options(x_lengths, y_lengths, flat, first, last, smoothing)
    return _Problem(Lattice(cost, _checks.gamma(gamma), weights, start_cost, end_cost), options)


def _costs(x: Tensor, y: Tensor, metric: str, x_lengths: Tensor | None, y_lengths: Tensor | None) -> Tensor:
    if metric == "nll":
        _checks.label_values(y, x.shape[2], y_lengths)
    return CostFunction.apply(*blank_padding(x, y, x_lengths, y_lengths), metric)


def _check_weights(weights: object, count: int) -> None:
    """What can be told without a lattice."""
    if weights is None:
        return
    if not isinstance(weights, Tensor):
        _checks.weights_of_steps(weights, count)
    elif not weights.is_floating_point() or weights.dim() > 4 or weights.dim() < 1 or weights.shape[-1] != count:
        raise ValueError(
            f"step_weights must be a floating-point tensor that broadcasts to (B, N, M, {count}), got {weights.dtype} "
            f"of shape {tuple(weights.shape)}"
        )


def _weights(weights: Weights, cost: Tensor, count: int) -> Tensor | None:
    """(B|1, N|1, M|1, S) of the dtype of cost."""
    _check_weights(weights, count)
    if weights is None:
        return None
    if not isinstance(weights, Tensor):
        return cost.new_tensor([float(w) for w in weights]).view(1, 1, 1, count)
    _check_device(weights, "step_weights", cost)
    full = (*cost.shape, count)
    spread = weights.reshape((1,) * (4 - weights.dim()) + tuple(weights.shape))
    if any(size not in (1, whole) for size, whole in zip(spread.shape, full, strict=True)):
        raise ValueError(f"step_weights must broadcast to (B, N, M, S) = {full}, got shape {tuple(weights.shape)}")
    for axis in range(3):  # an expanded axis is no reason to store it, unless each element has its own derivative
        if spread.shape[axis] > 1 and spread.stride(axis) == 0 and not spread.requires_grad:
            spread = spread.narrow(axis, 0, 1)
    if _are_values_known(weights) and not bool((spread >= 0).all()):
        raise ValueError("step_weights must be >= 0 (inf blocks a step), got a negative one or NaN")
    return spread.to(cost.dtype)


def _check_device(tensor: Tensor, name: str, cost: Tensor) -> None:
    if _checks.tensor(tensor, name).device != cost.device:
        raise ValueError(f"{name} must be on the device of the costs, {cost.device}, got {tensor.device}")


def _are_values_known(tensor: Tensor) -> bool:
    return not torch.compiler.is_compiling() and not tensor.is_meta


def _check_ends(ends: object, name: str) -> None:
    """What can be told without a lattice."""
    if isinstance(ends, Tensor):
        if ends.dim() != 3 or not (ends.dtype == torch.bool or ends.is_floating_point()):
            raise ValueError(
                f"{name} must be a boolean mask or floating-point costs (B, N, M) or (1, N, M), got {ends.dtype} of "
                f"shape {tuple(ends.shape)}"
            )
    elif isinstance(ends, str):
        _checks.choice(ends, f"{name} (if a name)", tuple(_SIDES))
    elif not (isinstance(ends, tuple) and len(ends) == 2 and all(_is_count(cells) for cells in ends)):
        raise TypeError(f'{name} must be "corner", "any_x", "any_y", two whole numbers >= 1 or a tensor, got {ends!r}')


def _is_count(cells: object) -> bool:
    return isinstance(cells, numbers.Integral) and int(cells) >= 1


def sides(ends: Ends, name: str) -> list[int]:
    """Cells along x and along y, for ends that are not a tensor."""
    _check_ends(ends, name)
    if isinstance(ends, Tensor):
        raise TypeError(f'{name} must be "corner", "any_x", "any_y" or two whole numbers >= 1, got a tensor')
    return [min(int(cells), _ALL) for cells in (_SIDES[ends] if isinstance(ends, str) else ends)]


def _ends(ends: Ends, name: str, cost: Tensor) -> tuple[list[int], Tensor | None]:
    """Cells along the sides, or costs (B|1, N, M)."""
    if not isinstance(ends, Tensor):
        return sides(ends, name), None
    _check_ends(ends, name)
    _check_device(ends, name, cost)
    if ends.shape[0] not in (1, cost.shape[0]) or ends.shape[1:] != cost.shape[1:]:
        raise ValueError(f"{name} must have shape (B, N, M) = {tuple(cost.shape)}, or 1 for B, got {tuple(ends.shape)}")
    if ends.dtype == torch.bool:
        return [1, 1], torch.zeros_like(ends, dtype=cost.dtype).masked_fill(~ends, torch.inf)
    if _are_values_known(ends) and not bool((ends > -torch.inf).all()):
        raise ValueError(f"{name} must hold costs above -inf (+inf where a path must not), got -inf or NaN")
    return [1, 1], ends.to(cost.dtype)
