r"""soft-DTW: a differentiable dynamic time warping loss, its expected alignment, and divergences.

.. math::
    R_{0,0} = C_{0,0}, \quad
    R_{i,j} = \min{}^\gamma_k \big(R_{(i,j) - \text{step}_k} + w_k C_{i,j}\big), \quad
    \min{}^\gamma(a) = -\gamma \log \sum_k e^{-a_k / \gamma}

with the steps down (1, 0), right (0, 1) and diagonal (1, 1). The value is R in the last corner, and its gradient with
respect to the costs is the alignment H, the expected weight with which a path visits a cell.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._autograd import inner
from ._modules import SmoothedLoss
from ._softdtw_functions import AlignmentFunction, FeaturesFunction, Options, SoftDTWFunction, blank_padding
from .cost import CostFunction, Metric, check_metric, lattice_or_features

DIVERGENCES = (False, True, "sharp", "mean_cost")


# ---------------------------------------------------------------- functions of a cost lattice


def soft_dtw(
    cost: Tensor,
    gamma: float | Tensor = 1.0,
    *,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    band: float | None = None,
    step_weights: tuple[float, float, float] | None = None,
) -> Tensor:
    r"""soft-DTW value of given costs.

    .. math:: \text{value} = \min{}^\gamma_{\pi} \sum_{(i,j) \in \pi} w_{ij} C_{ij}

    over all paths :math:`\pi` from the first to the last corner, where :math:`w_{ij}` is the weight of the step into
    the cell and 1 in the first cell.

    Parameters
    ----------
    cost : Tensor
        (B, N, M), float32 or float64; float16 and bfloat16 are computed in float32. A cell of cost +inf is blocked.
    gamma : float or Tensor, default 1.0
        Smoothing > 0; towards 0 the value becomes hard DTW. A 0-dim tensor may require grad.
    x_lengths, y_lengths : Tensor, optional
        (B,) integers: item b uses the first x_lengths[b] rows and y_lengths[b] columns. What lies beyond is never read,
        its gradient is 0.
    band : int or float, optional
        Sakoe-Chiba band: an integer >= 1 or a float >= 0.5. Cell (i, j) is allowed when
        :math:`|i (M - 1) - j (N - 1)| \le \text{band} \cdot \max(N - 1, M - 1)` with the item's own lengths.
    step_weights : tuple of three floats, optional
        Weights >= 0 of the steps down (1, 0), right (0, 1), diagonal (1, 1); inf blocks a step. Default: ones.

    Returns
    -------
    Tensor
        (B,), float64 for float64 costs, else float32. +inf with gradient 0 where no path is left; NaN where a cost is
        NaN. Twice differentiable in cost and gamma (the second time in eager mode only).

    Raises
    ------
    ValueError
        For shapes, lengths or options out of range.
    TypeError
        For other dtypes.

    References
    ----------
    Cuturi and Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017.
    Zeitler, Krause and Müller, "Soft dynamic time warping with variable step weights", ICASSP 2024.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> functional.soft_dtw(cost)  # -log(1 + 2 exp(-1)): three paths of cost 0, 1 and 1
    tensor([-0.5514])
    """
    lattice = _checks.lattice(cost)
    options = _options(gamma, x_lengths, y_lengths, step_weights, band, lattice.shape)
    return _value_of_costs(lattice, options)


def alignment(
    cost: Tensor,
    gamma: float | Tensor = 1.0,
    *,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    band: float | None = None,
    step_weights: tuple[float, float, float] | None = None,
) -> Tensor:
    r"""Expected alignment of given costs, the gradient of `soft_dtw`.

    .. math:: H_{ij} = \frac{\partial\, \text{value}}{\partial C_{ij}}

    With unit step weights this is the probability that a path visits the cell; every path starts in the first corner
    and ends in the last, so these two are 1.

    Parameters
    ----------
    cost, gamma, x_lengths, y_lengths, band, step_weights
        As in `soft_dtw`.

    Returns
    -------
    Tensor
        (B, N, M), float64 for float64 costs, else float32; 0 beyond an item's lengths, in blocked cells, and where no
        path is left. Differentiable once in cost and gamma (a Hessian product of the value).

    Raises
    ------
    ValueError, TypeError
        As `soft_dtw`.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> functional.alignment(torch.zeros(1, 2, 2))
    tensor([[[1.0000, 0.3333],
             [0.3333, 1.0000]]])
    """
    lattice = _checks.lattice(cost)
    return AlignmentFunction.apply(lattice, *_options(gamma, x_lengths, y_lengths, step_weights, band, lattice.shape))


def gak(
    x: Tensor,
    y: Tensor,
    gamma: float | Tensor = 1.0,
    metric: Metric = "sqeuclidean",
    *,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    band: float | None = None,
    step_weights: tuple[float, float, float] | None = None,
) -> Tensor:
    r"""Logarithm of the global alignment kernel.

    .. math:: \log k(x, y) = \log \sum_\pi e^{-\langle \pi, C \rangle / \gamma} = -\text{soft-DTW}_\gamma(x, y) / \gamma

    Parameters
    ----------
    x, y : Tensor
        (B, N, D) and (B, M, D), as `SoftDTW` takes them.
    gamma : float or Tensor, default 1.0
        Width of the kernel; a 0-dim tensor may require grad.
    metric, x_lengths, y_lengths, band, step_weights
        As in `SoftDTW`.

    Returns
    -------
    Tensor
        (B,), differentiable as `SoftDTW`; -inf where no path is left.

    Raises
    ------
    ValueError, TypeError
        As `SoftDTW`.

    References
    ----------
    Cuturi, "Fast Global Alignment Kernels", ICML 2011.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> log_kernel = dalign.gak(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1))
    >>> log_kernel.exp().round(decimals=3)  # three paths of cost 0
    tensor([3.])
    """
    checked = _checks.gamma(gamma)
    problem = _problem(x, y, metric, checked, x_lengths, y_lengths, step_weights, band)
    value = problem.value()
    return -value / checked.to(value.dtype)


# ---------------------------------------------------------------- the loss module


class SoftDTW(SmoothedLoss):
    r"""soft-DTW loss between two batches of sequences of any lengths.

    .. math:: \text{loss}(x, y) = \min{}^\gamma_{\pi} \sum_{(i,j) \in \pi} w_{ij}\, C(x_i, y_j), \qquad
              \min{}^\gamma(a) = -\gamma \log \sum_k e^{-a_k / \gamma}

    The costs are fused into the recursion: from features in, no lattice is stored. (While a short pair is worked on, up
    to 4 MiB of a thread's workspace hold its costs.) Where a gradient may be needed, it is computed with the value:
    evaluate under ``torch.no_grad()``.

    Parameters
    ----------
    gamma : float, Tensor or nn.Parameter, default 1.0
        Smoothing > 0; towards 0 the loss becomes hard DTW. A tensor that requires grad or a parameter is learned.
        ``loss.gamma = 0.1`` changes it without recompiling a compiled training step.
    metric : str or callable, default "sqeuclidean"
        A metric of `pairwise` ("sqeuclidean", "euclidean", "manhattan", "cosine", "nll", "bce"), a callable
        ``metric(x, y) -> cost`` (B, N, M), or "precomputed": the module is then called as ``loss(cost)``.
    band : int or float, optional
        Sakoe-Chiba band, an integer >= 1 or a float >= 0.5: cell (i, j) is allowed when
        :math:`|i (M - 1) - j (N - 1)| \le \text{band} \cdot \max(N - 1, M - 1)` with the item's own lengths. Saves time
        and memory.
    divergence : bool or str, default False
        The loss itself is not 0 for y = x, and can be negative. True gives the divergence
        :math:`s(x, y) - \tfrac12 s(x, x) - \tfrac12 s(y, y)` with s = soft-DTW, "sharp" the one with the expected path
        cost :math:`s = \langle H, C \rangle`, "mean_cost" the one with the mean cost of all paths
        :math:`s = \langle H_0, C \rangle`, where :math:`H_0` is the alignment of zero costs. The last two store
        lattices (B, N, M) and can be negative when lengths differ. Not with "nll", "bce" and "precomputed".
    step_weights : tuple of three floats, optional
        Weights >= 0 of the steps down (1, 0), right (0, 1), diagonal (1, 1); inf blocks a step. Default: ones.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Notes
    -----
    Call: ``loss(x, y, x_lengths=None, y_lengths=None)``.

    * x (B, N, D), y (B, M, D), float32 or float64; float16 and bfloat16 are computed in float32, also under autocast,
      and give a float32 loss and gradients of their own type. y is (B, M) class indices for "nll".
    * x_lengths, y_lengths (B,) integers in [1, N] and [1, M]; what lies beyond is never read, its gradient is 0.
    * Output: a scalar, or (B,) with reduction "none". An item for which band, weights and blocked cells leave no path
      has value +inf and gradient 0; one with a NaN has value and gradient NaN.
    * Differentiable twice in x, y and gamma; the second time in eager mode only, and then lattices are stored.
    * Results do not depend on the number of threads.

    Raises
    ------
    ValueError
        For shapes, lengths, labels or options out of range.
    TypeError
        For other dtypes, or a missing y.

    References
    ----------
    Cuturi and Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017.
    Blondel, Mensch and Vert, "Differentiable Divergences Between Time Series", AISTATS 2021.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.randn(4, 50, 12, requires_grad=True)
    >>> y = torch.randn(4, 30, 12)
    >>> loss = dalign.SoftDTW(gamma=0.1)
    >>> loss(x, y, y_lengths=torch.tensor([30, 20, 25, 30])).backward()
    >>> x.grad.shape
    torch.Size([4, 50, 12])
    """

    def __init__(
        self,
        gamma: float | Tensor = 1.0,
        metric: Metric = "sqeuclidean",
        band: float | None = None,
        divergence: bool | str = False,
        step_weights: tuple[float, float, float] | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(gamma, reduction)
        check_metric(metric)
        _checks.choice(divergence, "divergence", DIVERGENCES)
        if divergence and metric in ("nll", "bce", "precomputed"):
            raise ValueError(f"divergence={divergence!r} needs a metric that compares x with x, not {metric!r}")
        _checks.band(band)
        _checks.step_weights(step_weights)
        self.metric, self.band, self.divergence, self.step_weights = metric, band, divergence, step_weights

    def forward(
        self, x: Tensor, y: Tensor | None = None, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None
    ) -> Tensor:
        """The loss; ``x`` is the cost lattice for metric "precomputed"."""
        term = self._term(x, y, x_lengths, y_lengths)
        if self.divergence:
            term = term - (self._term(x, x, x_lengths, x_lengths) + self._term(y, y, y_lengths, y_lengths)) / 2
        return self._reduce(term)

    def alignment(
        self, x: Tensor, y: Tensor | None = None, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None
    ) -> Tensor:
        """Expected alignment H (B, N, M) = d soft-DTW / d cost, itself differentiable in x, y and gamma.

        With unit step weights H is the probability that a path visits a cell. Reduction and divergence play no part.

        Examples
        --------
        >>> import torch, torch_dalign as dalign
        >>> x = torch.tensor([[[0.0], [1.0], [1.0]]])
        >>> dalign.SoftDTW(gamma=0.01).alignment(x, x[:, :2]).round(decimals=3)
        tensor([[[1., 0.],
                 [0., 1.],
                 [0., 1.]]])
        """
        return self._problem(x, y, x_lengths, y_lengths).alignment()

    def extra_repr(self) -> str:
        """Gamma, and what differs from the defaults."""
        name = getattr(self.metric, "__name__", repr(self.metric)) if callable(self.metric) else repr(self.metric)
        parts = [self._gamma_repr(), f"metric={name}"]
        parts += [f"{k}={getattr(self, k)!r}" for k in ("band", "step_weights") if getattr(self, k) is not None]
        parts += [f"divergence={self.divergence!r}"] if self.divergence else []
        parts += [f"reduction={self.reduction!r}"] if self.reduction != "mean" else []
        return ", ".join(parts)

    def _problem(self, x: Any, y: Tensor | None, x_lengths: Tensor | None, y_lengths: Tensor | None) -> _Problem:
        return _problem(x, y, self.metric, self.gamma, x_lengths, y_lengths, self.step_weights, self.band)

    def _term(self, x: Any, y: Tensor | None, x_lengths: Tensor | None, y_lengths: Tensor | None) -> Tensor:
        """One of the terms s(x, y) of the loss or divergence, (B,)."""
        problem = self._problem(x, y, x_lengths, y_lengths)
        if self.divergence == "sharp":
            return problem.sharp()
        return problem.mean_cost() if self.divergence == "mean_cost" else problem.value()


# ---------------------------------------------------------------- costs or features with their options


class _Problem(NamedTuple):
    """A checked batch: features with a named metric, or a lattice of costs (then y and metric are None)."""

    x: Tensor
    y: Tensor | None
    metric: str | None
    options: Options

    def value(self) -> Tensor:
        """soft-DTW (B,), fused where there are features."""
        if self.y is None:
            return _value_of_costs(self.x, self.options)
        needed = (_is_needed(t) for t in (self.x, self.y, self.options.gamma))
        return FeaturesFunction.apply(self.x, self.y, self.metric, *self.options, *needed)[0]

    def costs(self) -> Tensor:
        """The lattice C (B, N, M)."""
        if self.y is None or self.metric is None:
            return self.x
        lengths = self.options.x_lengths, self.options.y_lengths
        return CostFunction.apply(*blank_padding(self.x, self.y, *lengths), self.metric)

    def alignment(self) -> Tensor:
        """H (B, N, M)."""
        return AlignmentFunction.apply(self.costs(), *self.options)

    def sharp(self) -> Tensor:
        """<H, C> (B,), +inf where no path is left."""
        costs = self.costs()
        return _expected_cost(AlignmentFunction.apply(costs, *self.options), costs)

    def mean_cost(self) -> Tensor:
        """<H_0, C> (B,): the mean cost of all paths, +inf where there is none."""
        costs = self.costs()
        uniform = torch.zeros_like(costs).masked_fill(costs == torch.inf, torch.inf)
        options = self.options._replace(gamma=torch.ones_like(self.options.gamma))
        return _expected_cost(AlignmentFunction.apply(uniform, *options), costs)


def _problem(
    x: Tensor,
    y: Tensor | None,
    metric: Metric,
    gamma: float | Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    step_weights: tuple[float, float, float] | None,
    band: float | None,
) -> _Problem:
    x, y, name = lattice_or_features(x, y, metric)
    shape = x.shape if y is None else (x.shape[0], x.shape[1], y.shape[1])
    options = _options(gamma, x_lengths, y_lengths, step_weights, band, shape)
    if y is not None and name == "nll":
        _checks.label_values(y, x.shape[2], options.y_lengths)
    return _Problem(x, y, name, options)


def _options(
    gamma: float | Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    step_weights: tuple[float, float, float] | None,
    band: float | None,
    shape: tuple[int, ...],
) -> Options:
    return Options(
        _checks.gamma(gamma),
        _checks.lengths(x_lengths, "x_lengths", shape[0], shape[1]),
        _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", shape[0], shape[2]),
        _checks.step_weights(step_weights),
        _checks.band(band),
    )


def _is_needed(tensor: Tensor) -> bool:
    """Whether a backward may ask for the gradient of tensor."""
    return torch.is_grad_enabled() and tensor.requires_grad


def _value_of_costs(lattice: Tensor, options: Options) -> Tensor:
    keep = _is_needed(lattice) or _is_needed(options.gamma)
    return SoftDTWFunction.apply(lattice, *options, keep)[0]


def _expected_cost(align: Tensor, costs: Tensor) -> Tensor:
    """<H, C> (B,); the first cell has H = 1 unless there is no path."""
    return inner(align, costs).to(costs.dtype).masked_fill(align[:, 0, 0] == 0, torch.inf)
