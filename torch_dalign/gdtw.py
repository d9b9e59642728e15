r"""DecDTW: generalised dynamic time warping in continuous time, with gradients of the optimal warp itself.

.. math::
    \phi^* = \arg\min_\phi \; \sum_i w_i\, L\big(x_i - y(\phi_i)\big)
             + \sum_i \lambda_i\, \Delta t_i\, R\Big(\frac{\phi_{i+1} - \phi_i}{\Delta t_i} - s_0\Big)

y(.) is the line through the frames of y, :math:`\phi_i` the time in y that belongs to frame i of x, and slopes and
values of :math:`\phi` are bounded. What is differentiated is the solution, by the implicit function theorem, not a
recursion.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _checks, _gdtw_bounds, _gdtw_functions
from ._gdtw_bounds import Bounds, Clock
from ._gdtw_functions import Number, Penalty, Problem
from ._paths import line_cells
from ._piecewise import Segments

Band = float | Tensor | tuple[str, Tensor] | tuple[Number, Number] | None
_ENDS = {False: "fixed", True: "free", "start": "free_start", "end": "free_end"}


class GDTWInfo(NamedTuple):
    """How the solver fared, item by item, int64 (B,).

    Attributes
    ----------
    status : Tensor
        0: optimal (the conditions of Karush, Kuhn and Tucker hold to rounding). 1: infeasible; phi is NaN and F +inf.
        2: not converged; phi is feasible. 3: invalid numbers (a NaN, infinite features, times that do not grow); all
        NaN. Items of status 1 and 2 have gradient 0.
    blocked : Tensor
        The first knot that no warp reaches of an infeasible item, else -1.
    degenerate : Tensor
        Knots held by more constraints than necessary. Their multipliers are not unique; gradients of bounds are those
        of the relaxing side.
    singular : Tensor
        Directions in which F is flat (lambda = 0 where y is constant, say); gradients do not move phi along them.
    weak : Tensor
        Constraints that hold without force: derivatives differ from side to side.
    steps : Tensor
        Newton steps.
    """

    status: Tensor
    blocked: Tensor
    degenerate: Tensor
    singular: Tensor
    weak: Tensor
    steps: Tensor


# ---------------------------------------------------------------- the problem as it is


def gdtw(
    x: Tensor,
    y: Tensor,
    *,
    x_times: Tensor | None = None,
    y_times: Tensor | None = None,
    reg_weight: float | Tensor = 0.1,
    nominal_slope: Number = None,
    slope_min: Number = None,
    slope_max: Number = None,
    band_min: Number = None,
    band_max: Number = None,
    ends: str = "fixed",
    loss: Penalty = "sqeuclidean",
    regularizer: Penalty = "quadratic",
    quality: str = "default",
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    on_infeasible: str = "raise",
    return_info: bool = False,
) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, GDTWInfo]:
    r"""Optimal warp of y onto x in continuous time, and the value of its objective.

    .. math::
        F(\phi) = \sum_i w_i\, L\big(x_i - y(\phi_i)\big)
                  + \sum_i \lambda_i\, \Delta t_i\, R\Big(\frac{\phi_{i+1} - \phi_i}{\Delta t_i} - s_0\Big)

    .. math::
        s^{\min}_i \le \frac{\phi_{i+1} - \phi_i}{\Delta t_i} \le s^{\max}_i, \qquad
        b^{\min}_i \le \phi_i \le b^{\max}_i

    with the times :math:`t_i` of the frames of x (the knots), :math:`\Delta t_i = t_{i+1} - t_i`, the weights w of the
    trapezoidal rule, and y(.) the line through the frames of y. F is not convex: `quality` says how much work goes into
    finding the global minimum; what is found is a local one to rounding.

    Parameters
    ----------
    x, y : Tensor
        (B, N, D) and (B, M, D), float32 or float64; float16 and bfloat16 are computed in float32. y is the sequence
        that is read at phi.
    x_times, y_times : Tensor, optional
        (N,) or (B, N), and (M,) or (B, M): times of the frames, which grow. Default: each item's frames are uniform on
        [0, 1].
    reg_weight : float or Tensor, default 0.1
        lambda >= 0, for all edges, or anything that broadcasts to (B, N - 1).
    nominal_slope : float or Tensor, optional
        s0, a number or (B,). Default: duration of y over that of x where both ends are fixed; else 1 with time stamps
        (of x or y), and without any one frame of y for each frame of x, (N - 1) / (M - 1) on [0, 1].
    slope_min, slope_max : float or Tensor, optional
        Bounds of the slope, numbers or what broadcasts to (B, N - 1). Default: 0 and +inf, so phi never falls.
    band_min, band_max : float or Tensor, optional
        Bounds of phi in y's time, numbers or what broadcasts to (B, N), infinite for none. Default: none but y's own
        ends.
    ends : str, default "fixed"
        "fixed": phi begins at y's first and ends at its last time. "free_start", "free_end", "free": one or both need
        not (x is a part of y).
    loss : str or pair, default "sqeuclidean"
        L: "sqeuclidean", the sum of squares over features; ("p", p), the sum of :math:`|e|^p` with p > 1; or
        ("huber", delta), which is :math:`e^2` up to delta and :math:`2 \delta |e| - \delta^2` beyond. For p = 1 take
        ("huber", delta) with a small delta.
    regularizer : str or pair, default "quadratic"
        R: "quadratic", ("p", p) or ("huber", delta).
    quality : str, default "default"
        "fast", "default" or "thorough".
    x_lengths, y_lengths : Tensor, optional
        (B,) integers: what lies beyond is never read, its gradient is 0.
    on_infeasible : str, default "raise"
        What happens to an item whose bounds leave no warp: "raise" a ValueError (not in compiled code), or "nan": phi
        is NaN, the objective +inf and gradients 0.
    return_info : bool, default False
        Whether to return the solver's status and counts as well.

    Returns
    -------
    phi : Tensor
        (B, N), in the unit of y's time; beyond an item's length its last value, without gradient. float64 where
        features or times are, else float32. NaN for an item with a NaN.
    objective : Tensor
        F (B,), the GDTW discrepancy, with a gradient of its own.
    info : GDTWInfo
        With return_info=True.

    Raises
    ------
    ValueError
        For shapes, lengths and options out of range, and for an item without a warp, which it names together with the
        first knot that the bounds leave no room.
    TypeError
        For other dtypes.

    Notes
    -----
    Differentiable once, in x, y, reg_weight, nominal_slope, slope and band bounds and time stamps. Where a frame of x
    waits at a sample of y (a kink of y(.)), phi does not move with its inputs, and its gradient is 0. A second
    derivative raises. The solution can jump to another minimum when inputs move; gradients are those of the minimum at
    hand.

    References
    ----------
    Xu, Garg, Milford and Gould, "Deep Declarative Dynamic Time Warping for End-to-End Learning of Alignment Paths",
    ICLR 2023, eq. 4 to 7. Deriso and Boyd, "A General Optimization Framework for Dynamic Time Warping", 2019.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> y = torch.tensor([[[0.0], [0.0], [1.0], [2.0], [3.0]]])
    >>> x = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]])
    >>> phi, objective = functional.gdtw(x, y, reg_weight=1e-6)
    >>> phi.round(decimals=3)
    tensor([[0.0000, 0.5000, 0.7500, 1.0000]])
    """
    _checks.choice(ends, "ends", _gdtw_functions.ENDS)
    _checks.choice(quality, "quality", _gdtw_functions.QUALITIES)
    _checks.choice(on_infeasible, "on_infeasible", _gdtw_functions.ON_INFEASIBLE)
    inputs = _Inputs.checked(x, y, x_lengths, y_lengths, x_times, y_times)
    (batch, n, _), edges = inputs.x.shape, inputs.x.shape[1] - 1
    problem = Problem(
        *inputs,
        _gdtw_functions.reg_weight(reg_weight, batch, edges),
        _gdtw_functions.nominal_slope(nominal_slope, batch),
        _gdtw_functions.series(slope_min, "slope_min", batch, edges),
        _gdtw_functions.series(slope_max, "slope_max", batch, edges),
        _gdtw_functions.series(band_min, "band_min", batch, n),
        _gdtw_functions.series(band_max, "band_max", batch, n),
        *_fixed(ends),
        *_gdtw_functions.penalty(loss, "loss", "sqeuclidean"),
        *_gdtw_functions.penalty(regularizer, "regularizer", "quadratic"),
        quality,
    )
    solution = _gdtw_functions.solve(problem, on_infeasible)
    dtype = _gdtw_functions.result_dtype(x, x_times, y_times)
    warp = solution.phi.to(dtype), solution.objective.to(dtype)
    if not return_info:
        return warp
    return *warp, GDTWInfo(solution.status.long(), solution.blocked, *solution.counts.unbind(1))


class _Inputs(NamedTuple):
    """Checked features, lengths and times, as a problem begins."""

    x: Tensor
    y: Tensor
    x_lengths: Tensor | None
    y_lengths: Tensor | None
    x_times: Tensor | None
    y_times: Tensor | None

    @classmethod
    def checked(
        cls,
        x: Tensor,
        y: Tensor,
        x_lengths: Tensor | None,
        y_lengths: Tensor | None,
        x_times: Tensor | None,
        y_times: Tensor | None,
    ) -> _Inputs:
        """Raises for what does not fit together."""
        x, y = _checks.features(x, y, "sqeuclidean")
        batch, n, m = *x.shape[:2], y.shape[1]
        x_lengths = _checks.lengths(x_lengths, "x_lengths", batch, n)
        y_lengths = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", batch, m)
        x_times = _gdtw_functions.times(x_times, "x_times", batch, n, x_lengths)
        y_times = _gdtw_functions.times(y_times, "y_times", batch, m, y_lengths)
        return cls(x, _checks.apart(y, x), x_lengths, y_lengths, x_times, _checks.apart(y_times, x_times))

    def clocks(self) -> tuple[Clock, Clock]:
        """Times of both sides."""
        x = Clock.of(self.x_times, self.x_lengths, *self.x.shape[:2])
        return x, Clock.of(self.y_times, self.y_lengths, *self.y.shape[:2])


def _fixed(ends: str) -> tuple[bool, bool]:
    return ends in ("fixed", "free_end"), ends in ("fixed", "free_start")


# ---------------------------------------------------------------- the layer


class DecDTW(nn.Module):
    r"""Layer that aligns two sequences and gives the warp: which time of y belongs to each frame of x.

    .. math::
        \phi^* = \arg\min_\phi \; \sum_i w_i\, L\big(x_i - y(\phi_i)\big)
                 + \lambda \sum_i \Delta t_i\, R\Big(\frac{\phi_{i+1} - \phi_i}{\Delta t_i} - s_0\Big)

    under bounds of its slope and values (see `gdtw`). A loss on :math:`\phi^*` itself, such as its distance to known
    times (`metrics.time_error`), trains the features; so the layer aligns in training as it does afterwards.

    Parameters
    ----------
    reg_weight : float, Tensor or nn.Parameter, default 0.1
        lambda >= 0: how much the slope is held at its nominal value. A tensor may be anything that broadcasts to
        (B, N - 1), one value per edge.
    loss, regularizer : str or pair
        L, default "sqeuclidean", and R, default "quadratic"; or ("p", p) with p > 1, or ("huber", delta).
    slope_bounds : pair, optional
        (lo, hi), which multiply the nominal slope; numbers, tensors that broadcast to (B, N - 1), or None for "0" and
        "without bound".
    band : optional
        Where phi may be:

        * a number, 0-dim tensor or parameter: Sakoe-Chiba band, half its width as a share of y's duration around the
          straight line from corner to corner;
        * ("rk", R): band of Ratanamahatana and Keogh whose width changes: R (K,) or (B, K), K >= 2, are widths at K
          uniform points of the diagonal, as shares of the durations. With u_k = k / (K - 1) in shares of x's and y's
          duration, phi is at most the line through (u_k, u_k + R_k) and at least that through (u_k + R_k, u_k);
        * (band_min, band_max): bounds in y's time, numbers, tensors that broadcast to (B, N), or None.
    subsequence : bool or str, default False
        True: x is a part of y, whose ends phi need not reach. "start" or "end": only there.
    n_knots : int, optional
        Align at that many uniform times from x's first to its last (x interpolated linearly), in place of its frames:
        faster for long x. phi is then (B, n_knots), and every N above is n_knots.
    quality : str, default "default"
        "fast", "default" or "thorough": how much work goes into finding the global minimum.
    on_infeasible : str, default "raise"
        For an item whose bounds leave no warp: "raise" a ValueError (not in compiled code), or "nan".
    return_cost : bool, default False
        Whether to return the objective F (B,) as well.

    Attributes
    ----------
    reg_weight, slope_min, slope_max, band_width, band_min, band_max
        The numbers above, each None if there is none. A number or tensor is held as a buffer that is no part of the
        state_dict and that neither dtype nor device of the module changes; an nn.Parameter becomes a parameter of the
        module. Assigning follows the same rules.

    Notes
    -----
    Call: ``layer(x, y, x_lengths=None, y_lengths=None, x_times=None, y_times=None)``.

    * x (B, N, D), y (B, M, D), float32 or float64; float16 and bfloat16 are computed in float32, also under autocast.
    * x_times (N,) or (B, N), y_times (M,) or (B, M): times of the frames, which grow. Without them each item's frames
      are uniform on [0, 1], whatever its length, and so is phi.
    * Output: phi (B, N), in the unit of y's time; beyond an item's length its last value, without gradient. With
      return_cost=True also F (B,), with a gradient of its own.
    * Differentiable once in x, y, time stamps and all parameters; a second derivative raises.
    * The nominal slope is the duration of y over that of x; with free ends it is 1 if there are time stamps, and
      without one frame of y for each frame of x.
    * Results do not depend on the number of threads.

    Raises
    ------
    ValueError
        For shapes, lengths and options out of range, and for an item without a warp.
    TypeError
        For other dtypes.

    References
    ----------
    Xu, Garg, Milford and Gould, "Deep Declarative Dynamic Time Warping for End-to-End Learning of Alignment Paths",
    ICLR 2023. Its bands and slopes are functions of times scaled to [0, 1], as they are here in any unit.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x, y = torch.randn(2, 30, 4, requires_grad=True), torch.randn(2, 40, 4)
    >>> layer = dalign.DecDTW(reg_weight=torch.nn.Parameter(torch.tensor(0.1)), slope_bounds=(0.3, 3.0))
    >>> phi = layer(x, y)
    >>> phi.shape
    torch.Size([2, 30])
    >>> truth = (torch.linspace(0, 1, 30), torch.linspace(0, 1, 30) ** 1.2)
    >>> dalign.metrics.time_error((torch.linspace(0, 1, 30), phi), truth).backward()
    >>> layer.reg_weight.grad.shape, x.grad.shape
    (torch.Size([]), torch.Size([2, 30, 4]))
    """

    _HELD = ("reg_weight", "slope_min", "slope_max", "band_width", "band_min", "band_max")

    def __init__(
        self,
        reg_weight: float | Tensor = 0.1,
        loss: Penalty = "sqeuclidean",
        regularizer: Penalty = "quadratic",
        slope_bounds: tuple[Number, Number] | None = None,
        band: Band = None,
        subsequence: bool | str = False,
        n_knots: int | None = None,
        quality: str = "default",
        on_infeasible: str = "raise",
        return_cost: bool = False,
    ) -> None:
        super().__init__()
        _gdtw_functions.reg_weight(reg_weight, *_free_shape(reg_weight))
        _gdtw_functions.penalty(loss, "loss", "sqeuclidean")
        _gdtw_functions.penalty(regularizer, "regularizer", "quadratic")
        _checks.choice(subsequence, "subsequence", tuple(_ENDS))
        _checks.choice(quality, "quality", _gdtw_functions.QUALITIES)
        _checks.choice(on_infeasible, "on_infeasible", _gdtw_functions.ON_INFEASIBLE)
        self.reg_weight, self.loss, self.regularizer = reg_weight, loss, regularizer
        self.slope_min, self.slope_max = _pair(slope_bounds, "slope_bounds")
        self.band_kind, self.band_width, (self.band_min, self.band_max) = _band(band)
        self.subsequence, self.n_knots = subsequence, _knot_count(n_knots)
        self.quality, self.on_infeasible, self.return_cost = quality, on_infeasible, return_cost

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        x_times: Tensor | None = None,
        y_times: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The warp (B, N), and with return_cost=True its objective (B,)."""
        dtype = _gdtw_functions.result_dtype(_checks.real(x, "x"), x_times, y_times)
        inputs = _Inputs.checked(x, y, x_lengths, y_lengths, x_times, y_times)
        solution = _gdtw_functions.solve(self._problem(inputs), self.on_infeasible)
        phi = solution.phi.to(dtype)
        return (phi, solution.objective.to(dtype)) if self.return_cost else phi

    def _problem(self, inputs: _Inputs) -> Problem:
        fixed = _fixed(_ENDS[self.subsequence])
        slope, low, high = None, self.band_min, self.band_max
        if self.slope_min is not None or self.slope_max is not None or self.n_knots is not None or self.band_kind:
            clock_x, clock_y = inputs.clocks()
            slope = _gdtw_bounds.nominal_slope(clock_x, clock_y, all(fixed))
            if self.n_knots is not None:
                inputs, clock_x = _at_knots(inputs, clock_x, self.n_knots)
            low, high = self._bounds(clock_x, clock_y)
        batch, n, _ = inputs.x.shape
        return Problem(
            *inputs,
            _gdtw_functions.reg_weight(self.reg_weight, batch, n - 1),
            slope,
            self._slope(self.slope_min, "slope_min", slope, batch, n - 1),
            self._slope(self.slope_max, "slope_max", slope, batch, n - 1),
            _gdtw_functions.series(low, "band_min", batch, n),
            _gdtw_functions.series(high, "band_max", batch, n),
            *fixed,
            *_gdtw_functions.penalty(self.loss, "loss", "sqeuclidean"),
            *_gdtw_functions.penalty(self.regularizer, "regularizer", "quadratic"),
            self.quality,
        )

    @staticmethod
    def _slope(bound: Tensor | None, name: str, nominal: Tensor | None, batch: int, edges: int) -> Tensor | None:
        factor = _gdtw_functions.series(bound, name, batch, edges)
        return None if factor is None or nominal is None else factor * nominal[:, None]

    def path(
        self,
        phi: Tensor,
        frames: int,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        y_times: Tensor | None = None,
    ) -> list[Tensor]:
        """Index pairs of a warp: each knot of x with its nearest frame of y, joined by straight lines of cells.

        Parameters
        ----------
        phi : Tensor
            (B, N), as the layer gives it.
        frames : int
            M, the number of frames of y.
        x_lengths, y_lengths, y_times : Tensor, optional
            As in the call that gave phi.

        Returns
        -------
        list of Tensor
            For each item (L, 2), int64, from the first to the last knot by steps of at most one frame of x and y, as
            `dtw_path` gives them; (0, 2) where phi is NaN.

        Raises
        ------
        ValueError, TypeError
            For shapes, lengths and dtypes, and for a warp that falls.

        Examples
        --------
        >>> import torch, torch_dalign as dalign
        >>> dalign.DecDTW().path(torch.tensor([[0.0, 0.4, 1.0]]), frames=5)[0].tolist()
        [[0, 0], [1, 1], [1, 2], [2, 3], [2, 4]]
        """
        phi = _checks.real(phi, "phi").detach()
        _checks.dimensions(phi, "phi", "BN")
        batch, knots = phi.shape
        x_lengths = _checks.lengths(x_lengths, "x_lengths", batch, knots)
        y_lengths = _checks.lengths(y_lengths, "y_lengths", batch, frames)
        clock = Clock.of(_gdtw_functions.times(y_times, "y_times", batch, frames, y_lengths), y_lengths, batch, frames)
        anchors = torch.stack((torch.arange(knots).expand(batch, -1), _nearest_frames(phi.double(), clock)), 2)
        falls = (anchors.diff(dim=1) < 0).any(2)
        if falls.any():
            b, i = falls.nonzero()[0].tolist()
            raise ValueError(f"phi must not fall, got {phi[b, i]:g} and then {phi[b, i + 1]:g} in item {b} at knot {i}")
        lengths = torch.full((batch,), knots) if x_lengths is None else x_lengths
        cells, counts = line_cells(anchors, lengths, knots + frames - 1)
        counts = counts.masked_fill(phi[:, 0].isnan(), 0)
        return [item[:count] for item, count in zip(cells, counts.tolist(), strict=True)]

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        parts = [f"reg_weight={_shown(self.reg_weight)}"]
        parts += [f"loss={self.loss!r}"] if self.loss != "sqeuclidean" else []
        parts += [f"regularizer={self.regularizer!r}"] if self.regularizer != "quadratic" else []
        held = [name for name in self._HELD[1:] if getattr(self, name) is not None]
        parts += [f"{name}={_shown(getattr(self, name))}" for name in held]
        parts += [f"subsequence={self.subsequence!r}"] if self.subsequence is not False else []
        parts += [f"n_knots={self.n_knots}"] if self.n_knots is not None else []
        return ", ".join([*parts, f"quality={self.quality!r}"])

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._HELD:
            self._hold(name, value)
        else:
            super().__setattr__(name, value)

    def _hold(self, name: str, value: Any) -> None:
        self._parameters.pop(name, None)
        self._buffers.pop(name, None)
        if isinstance(value, nn.Parameter):
            self.register_parameter(name, value)
        else:
            held = value if value is None or isinstance(value, Tensor) else _gdtw_functions.number(value, name)
            tensor = torch.tensor(held, dtype=torch.float64) if isinstance(held, float) else held
            self.register_buffer(name, tensor, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DecDTW:
        """Move or cast parameters alone."""
        buffers, self._buffers = self._buffers, {}
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers = buffers
        return self

    def _bounds(self, x: Clock, y: Clock) -> Bounds:
        if self.band_kind == "sakoe_chiba":
            return _gdtw_bounds.sakoe_chiba(self.band_width, x, y)
        if self.band_kind == "rk":
            _check_width(self.band_width, len(x.lengths))
            return _gdtw_bounds.ratanamahatana_keogh(self.band_width, x, y)
        return self.band_min, self.band_max


def _at_knots(inputs: _Inputs, clock: Clock, count: int) -> tuple[_Inputs, Clock]:
    """The same with x interpolated at knots, all of them its own."""
    features, times = _gdtw_bounds.uniform_knots(inputs.x, clock, count)
    given = None if inputs.x_times is None else times
    moved = inputs._replace(x=features, x_lengths=None, x_times=given)
    return moved, Clock.of(times, None, len(features), count)


# ---------------------------------------------------------------- options


def _free_shape(value: object) -> tuple[int, int]:
    """A shape to which value broadcasts, if any."""
    shape = (1, 1, *(value.shape if isinstance(value, Tensor) else ()))
    return shape[-2], shape[-1]


def _pair(value: object, name: str) -> tuple[Any, Any]:
    """Two numbers, tensors or None."""
    if value is None:
        return None, None
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a pair (lo, hi), got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name} must be a pair (lo, hi), got {len(value)} entries")
    for side in value:
        if side is not None:
            _gdtw_functions.series(side, name, *_free_shape(side))
    low, high = value
    if isinstance(low, numbers.Real) and isinstance(high, numbers.Real) and low > high:
        raise ValueError(f"{name} must be a pair (lo, hi) with lo <= hi, got ({low}, {high})")
    return low, None if isinstance(high, numbers.Real) and high == float("inf") else high


def _band(value: Any) -> tuple[str | None, Any, tuple[Any, Any]]:
    """Kind, width, and bounds."""
    if value is None:
        return None, None, (None, None)
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], str):
        _checks.choice(value[0], "band[0] (if a name)", ("rk",))
        width = _checks.real(value[1], "band[1]")
        if width.dim() not in (1, 2) or width.shape[-1] < 2:
            raise ValueError(f"band[1] must have shape (K,) or (B, K) with K >= 2, got {tuple(width.shape)}")
        return "rk", value[1], (None, None)
    if isinstance(value, (tuple, list)):
        return "bounds", None, _pair(value, "band")
    if isinstance(value, Tensor):
        if value.dim():
            raise ValueError(
                f"band must be a number, ('rk', R) or (band_min, band_max), got shape {tuple(value.shape)}"
            )
    elif isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"band must be a number, ('rk', R) or (band_min, band_max), got {type(value).__name__}")
    elif not _gdtw_functions.number(value, "band") >= 0:
        raise ValueError(f"band must be >= 0, half a width as a share of y's duration, got {value}")
    return "sakoe_chiba", value, (None, None)


def _check_width(width: Tensor, batch: int) -> None:
    if width.dim() == 2 and width.shape[0] not in (1, batch):
        raise ValueError(f"band[1] must have shape (K,) or ({batch}, K), got {tuple(width.shape)}")


def _knot_count(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"n_knots must be a whole number, got {type(value).__name__}")
    if int(value) < 2:
        raise ValueError(f"n_knots must be at least 2, got {value}")
    return int(value)


def _shown(value: Any) -> str:
    learned = " (learned)" if value.requires_grad else ""
    return (f"{value.item():g}" if value.numel() == 1 else f"tensor{tuple(value.shape)}") + learned


def _nearest_frames(phi: Tensor, clock: Clock) -> Tensor:
    """Frames of y nearest to times phi (B, N), halves rounded up; 0 for NaN."""
    segments = Segments.of(clock.times, phi)
    frame = (segments.low + segments.share(phi) + 0.5).floor().nan_to_num(0.0)
    return frame.long().minimum(clock.lengths[:, None] - 1)
