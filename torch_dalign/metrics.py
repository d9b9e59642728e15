r"""Metrics of forecasts and alignments, with the names they have in the literature.

`dtw` and `tdi` judge shape and timing of a forecast, `time_error` and `time_deviation` (`warp_error`: both) an
alignment in seconds. All take a prediction and a target, in this order, and reduce over the batch as losses of torch
do.
"""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._modules import reduced
from ._paths import PathLike, padded
from ._piecewise import PiecewiseLinear, repeat_last
from .cost import Metric
from .dtw import _Problem as _DTWProblem
from .dtw import _problem as _dtw_problem
from .dtw import path_options
from .paths import ExpectedWarp

Warp = tuple[Tensor | None, Tensor] | PathLike
Times = Tensor | float | None
_DISTANCES = ("sqeuclidean", "euclidean", "manhattan", "cosine")


# ---------------------------------------------------------------- forecasts


def dtw(
    input: Tensor,
    target: Tensor,
    *,
    metric: Metric = "sqeuclidean",
    root: bool = True,
    band: float | None = None,
    input_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Dynamic time warping distance, with the square root that the forecasting literature takes.

    .. math:: \text{DTW}(x, y) = \Big(\min_\pi \sum_{(i,j) \in \pi} \|x_i - y_j\|^2\Big)^{1/2}

    This is the "DTW" of tslearn and of the DILATE paper; the root is taken before the mean over the batch.
    `torch_dalign.dtw` is the sum without the root.

    Parameters
    ----------
    input, target : Tensor
        (B, N, D) and (B, M, D), prediction and truth, float32 or float64; float16 and bfloat16 are computed in float32.
    metric : str or callable, default "sqeuclidean"
        "sqeuclidean", "euclidean", "manhattan", "cosine", or a callable ``metric(x, y) -> cost`` (B, N, M).
    root : bool, default True
        Whether to take the square root of the sum. For metrics that are no squares the sum itself is usual.
    band : int or float, optional
        Sakoe-Chiba band as in `torch_dalign.dtw`.
    input_lengths, target_lengths : Tensor, optional
        (B,) integers: what lies beyond is never read.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Returns
    -------
    Tensor
        A scalar, or (B,) with reduction "none". NaN for an item with a NaN. Differentiable once, along the best path;
        the gradient of the root at 0 is 0.

    Raises
    ------
    ValueError, TypeError
        For shapes, lengths and options out of range, and other dtypes.

    References
    ----------
    Le Guen and Thome, "Shape and Time Distortion Loss for Training Deep Time Series Forecasting Models", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import metrics
    >>> late = torch.tensor([[[0.0], [0.0], [0.0], [1.0]]])
    >>> truth = torch.tensor([[[0.0], [1.0], [1.0], [1.0]]])
    >>> metrics.dtw(late, truth)  # the same shape
    tensor(0.)
    """
    problem = _forecast(input, target, metric, input_lengths, target_lengths, reduction)
    value = problem.value(path_options(band, None, None, None, False, False))
    return reduced(_root(value) if root else value, reduction)


def tdi(
    input: Tensor,
    target: Tensor,
    *,
    kind: str = "squared",
    metric: Metric = "sqeuclidean",
    band: float | None = None,
    input_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""Temporal distortion index: how far the best DTW path strays from the diagonal.

    Two definitions are in use:

    .. math:: \text{squared} = \frac{1}{N M} \sum_{(i,j) \in \pi^*} (i - j)^2, \qquad
              \text{area} = \frac{2}{N M} \int \big| \pi^*(u) - d(u) \big| \, du

    "squared" is the DILATE paper's (and its code's), so tables of forecasting papers after it; "area" that of
    Frías-Paredes et al.: twice the area between the path, as a polyline through its cells, and the diagonal d, the
    straight line from its first to its last cell, over the lattice's: in [0, 1), 0 without distortion.

    Parameters
    ----------
    input, target, metric, band, input_lengths, target_lengths, reduction
        As in `dtw`.
    kind : str, default "squared"
        "squared" or "area".

    Returns
    -------
    Tensor
        A scalar, or (B,) with reduction "none"; NaN for an item with a NaN. N and M are the item's own lengths. It is
        piecewise constant in its input: no gradient. Of equally good paths the one of `dtw_path` counts.

    Raises
    ------
    ValueError, TypeError
        As `dtw`.

    References
    ----------
    Frías-Paredes, Mallor, Gastón-Romeo and León, "Assessing Energy Forecasting Inaccuracy by Simultaneously Considering
    Temporal and Absolute Errors", Energy Conversion and Management, 2017. Le Guen and Thome, NeurIPS 2019, Section 3.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import metrics
    >>> late = torch.tensor([[[0.0], [0.0], [0.0], [1.0]]])
    >>> truth = torch.tensor([[[0.0], [1.0], [1.0], [1.0]]])
    >>> metrics.tdi(late, truth)  # the path (0,0) (1,0) (2,0) (3,1) (3,2) (3,3)
    tensor(0.6250)
    >>> metrics.tdi(late, truth, kind="area")
    tensor(0.5000)
    """
    _checks.choice(kind, "kind", ("squared", "area"))
    problem = _forecast(input, target, metric, input_lengths, target_lengths, reduction)
    with torch.no_grad():
        value, path, length = problem.run(path_options(band, None, None, None, False, False), True)
    ends = path.gather(1, (length.clamp(min=1) - 1)[:, None, None].expand(-1, 1, 2)).double()  # (N - 1, M - 1)
    lattice = (ends + 1).prod(2)[:, 0]
    i, j = path.double().unbind(2)
    inside = ~_checks.padding(path.shape[1], length)
    if kind == "squared":
        index = ((i - j).square() * inside).sum(1) / lattice
    else:
        apart = j - i * (ends[..., 1] / ends[..., 0].clamp(min=1))
        index = 2 * (_mean_size(apart[:, :-1], apart[:, 1:]) * i.diff(dim=1) * inside[:, 1:]).sum(1) / lattice
    return reduced(index.masked_fill(length == 0, torch.nan).to(value.dtype), reduction)


def _forecast(
    input: object,
    target: object,
    metric: Metric,
    input_lengths: Tensor | None,
    target_lengths: Tensor | None,
    reduction: str,
) -> _DTWProblem:
    _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
    if not callable(metric):
        _checks.choice(metric, "metric (if not callable)", _DISTANCES)
    x, y = _checks.real(input, "input"), _checks.real(target, "target")
    _checks.dimensions(x, "input", "BND")
    _checks.dimensions(y, "target", "BMD")
    if (x.shape[0], x.shape[2]) != (y.shape[0], y.shape[2]):
        raise ValueError(
            f"input and target must have the same batch size and number of features, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    if x.dtype != y.dtype:
        raise TypeError(f"input and target must have the same dtype, got {x.dtype} and {y.dtype}")
    x_lengths = _checks.lengths(input_lengths, "input_lengths", x.shape[0], x.shape[1])
    y_lengths = _checks.lengths(_checks.apart(target_lengths, input_lengths), "target_lengths", y.shape[0], y.shape[1])
    return _dtw_problem(x, y, metric, x_lengths, y_lengths)


# ---------------------------------------------------------------- alignments


def time_error(
    input: Warp,
    target: Warp,
    *,
    x_times: Times = None,
    y_times: Times = None,
    input_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    span: tuple[float | Tensor, float | Tensor] | None = None,
    breakpoints: str = "merged",
    reduction: str = "mean",
) -> Tensor:
    r"""Mean absolute error of an alignment, TimeErr: the area between two piecewise linear warps over its duration.

    .. math:: \text{TimeErr}(\phi, \phi^*) = \frac{1}{S} \int_0^S |\phi(s) - \phi^*(s)| \, ds

    The integral is exact: between neighbouring breakpoints of either warp the difference runs linearly from a to b, and
    the mean of its size is :math:`(|a| + |b|) / 2`, or :math:`(a^2 + b^2) / (2 |a| + 2 |b|)` if its sign changes.

    Parameters
    ----------
    input, target : tuple (times, values), Tensor, or list of Tensor
        Prediction and truth, each of them either

        * breakpoints of a piecewise linear function from times of x to times of y: a tuple of times (K,) or (B, K),
          that never fall, and values (K,) or (B, K); times None stands for x_times. Two equal times make a jump. Or
        * alignment paths as `PathCost` takes them: cells (i, j), which become breakpoints
          (x_times[i], y_times[j]); a step (0, 1) becomes a jump.

        Before its first and after its last breakpoint a warp is constant.
    x_times, y_times : Tensor or float, optional
        Times of the frames, (N,) or (B, N), and (M,) or (B, M); or seconds from one frame to the next. Default: frames.
        They say what the cells of paths mean.
    input_lengths, target_lengths : Tensor, optional
        (B,) integers: number of breakpoints or cells of each item; what lies beyond is never read.
    span : tuple of two numbers or tensors (B,), optional
        Start and end of the integral. Default: the target's first and last breakpoint.
    breakpoints : str, default "merged"
        "merged": both warps as they are. "target": the prediction is first replaced by the line through its values at
        the target's breakpoints; so are the published figures of audio-to-score alignment computed.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Returns
    -------
    Tensor
        In the unit of the values: a scalar, or (B,) with reduction "none"; computed in float64, float64 where a tensor
        is, else float32. Differentiable in values and times.

    Raises
    ------
    ValueError, TypeError
        For times that fall, a span without duration, cells without a time, shapes, lengths and options out of range,
        and other dtypes.

    References
    ----------
    Xu, Garg, Milford and Gould, "Deep Declarative Dynamic Time Warping for End-to-End Learning of Alignment Paths",
    ICLR 2023, eq. 9. Thickstun, Brennan and Verma, "Rethinking Evaluation Methodology for Audio-to-Score Alignment",
    2020.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import metrics
    >>> truth = (torch.tensor([0.0, 4.0]), torch.tensor([0.0, 2.0]))
    >>> late = (torch.tensor([0.0, 2.0, 4.0]), torch.tensor([0.0, 1.5, 2.0]))
    >>> metrics.time_error(late, truth)
    tensor(0.2500)
    >>> path = torch.tensor([[0, 0], [1, 1], [2, 1]])
    >>> metrics.time_error(path, torch.tensor([[0, 0], [1, 0], [2, 1]]), x_times=0.1, y_times=0.1)
    tensor(0.0500)
    """
    gap = _gap(input, target, x_times, y_times, input_lengths, target_lengths, span, breakpoints, reduction)
    return reduced(gap.time_error(), reduction)


def time_deviation(
    input: Warp,
    target: Warp,
    *,
    x_times: Times = None,
    y_times: Times = None,
    input_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    span: tuple[float | Tensor, float | Tensor] | None = None,
    breakpoints: str = "merged",
    reduction: str = "mean",
) -> Tensor:
    r"""Root mean square error of an alignment, TimeDev.

    .. math:: \text{TimeDev}(\phi, \phi^*) = \Big(\frac{1}{S} \int_0^S (\phi(s) - \phi^*(s))^2 \, ds\Big)^{1/2}

    Exact: where the difference runs linearly from a to b, the mean of its square is :math:`(a^2 + ab + b^2) / 3`. The
    root is taken before the mean over the batch.

    Parameters
    ----------
    input, target, x_times, y_times, input_lengths, target_lengths, span, breakpoints, reduction
        As in `time_error`.

    Returns
    -------
    Tensor
        As `time_error`; its gradient at 0 is 0.

    Raises
    ------
    ValueError, TypeError
        As `time_error`.

    References
    ----------
    As `time_error`.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import metrics
    >>> truth = (torch.tensor([0.0, 4.0]), torch.tensor([0.0, 2.0]))
    >>> late = (torch.tensor([0.0, 4.0]), torch.tensor([0.3, 2.3]))
    >>> metrics.time_deviation(late, truth)
    tensor(0.3000)
    """
    gap = _gap(input, target, x_times, y_times, input_lengths, target_lengths, span, breakpoints, reduction)
    return reduced(gap.time_deviation(), reduction)


class WarpError(NamedTuple):
    """`time_error` and `time_deviation` of the same warps."""

    time_error: Tensor
    time_deviation: Tensor


def warp_error(
    input: Warp,
    target: Warp,
    *,
    x_times: Times = None,
    y_times: Times = None,
    input_lengths: Tensor | None = None,
    target_lengths: Tensor | None = None,
    span: tuple[float | Tensor, float | Tensor] | None = None,
    breakpoints: str = "merged",
    reduction: str = "mean",
) -> WarpError:
    r"""Both errors of an alignment, TimeErr and TimeDev, from one pass over its breakpoints.

    .. math:: \text{TimeErr} = \frac{1}{S} \int_0^S |\phi(s) - \phi^*(s)| \, ds, \qquad
              \text{TimeDev} = \Big(\frac{1}{S} \int_0^S (\phi(s) - \phi^*(s))^2 \, ds\Big)^{1/2}

    The warp of `DecDTW` goes in as ``(x_times, phi)``, in the unit of its time stamps; its first output trains the
    layer.

    Parameters
    ----------
    input, target, x_times, y_times, input_lengths, target_lengths, span, breakpoints, reduction
        As in `time_error`.

    Returns
    -------
    WarpError
        A named tuple ``(time_error, time_deviation)``, each as the function of that name gives it.

    Raises
    ------
    ValueError, TypeError
        As `time_error`.

    References
    ----------
    Xu, Garg, Milford and Gould, ICLR 2023, eq. 9.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import metrics
    >>> seconds = torch.tensor([0.0, 2.0, 4.0])
    >>> phi = torch.tensor([[0.0, 1.5, 2.0]], requires_grad=True)  # the truth is half as fast
    >>> error = metrics.warp_error((seconds, phi), (seconds, seconds / 2))
    >>> error.time_error
    tensor(0.2500, grad_fn=<MeanBackward0>)
    >>> error.time_error.backward()
    >>> phi.grad
    tensor([[0.2500, 0.5000, 0.2500]])
    """
    gap = _gap(input, target, x_times, y_times, input_lengths, target_lengths, span, breakpoints, reduction)
    return WarpError(reduced(gap.time_error(), reduction), reduced(gap.time_deviation(), reduction))


class _Gap(NamedTuple):
    """A piecewise linear difference of two warps: its values at both ends of intervals (B, I) of these widths."""

    left: Tensor
    right: Tensor
    width: Tensor
    duration: Tensor
    dtype: torch.dtype

    def time_error(self) -> Tensor:
        """Mean of its size (B,)."""
        return self._mean(_mean_size(self.left, self.right))

    def time_deviation(self) -> Tensor:
        """Root of the mean of its square (B,)."""
        return _root(self._mean((self.left.square() + self.left * self.right + self.right.square()) / 3))

    def _mean(self, of_interval: Tensor) -> Tensor:
        """Mean over the whole duration (B,) of what has this mean in each interval."""
        return ((of_interval * self.width).sum(1) / self.duration).to(self.dtype)


def _gap(
    input: Warp,
    target: Warp,
    x_times: Times,
    y_times: Times,
    input_lengths: Tensor | None,
    target_lengths: Tensor | None,
    span: tuple[float | Tensor, float | Tensor] | None,
    breakpoints: str,
    reduction: str,
) -> _Gap:
    _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
    _checks.choice(breakpoints, "breakpoints", ("merged", "target"))
    batch = _common_batch(_batch_of(input, "input"), _batch_of(target, "target"))
    times = _frame_times(x_times, "x_times", batch), _frame_times(y_times, "y_times", batch)
    predicted = _read_warp(input, "input", input_lengths, times, batch)
    true = _read_warp(target, "target", target_lengths, times, batch)
    start, end = _span(span, true, batch)
    if breakpoints == "target":
        predicted = PiecewiseLinear(true.times, predicted.at(true.times))
    grid = torch.cat((predicted.times, true.times, start[:, None], end[:, None]), 1)
    grid = grid.maximum(start[:, None]).minimum(end[:, None]).sort(1).values
    left, right = grid[:, :-1], grid[:, 1:]
    (first, last), (true_first, true_last) = predicted.over(left, right), true.over(left, right)
    dtype = _result_dtype(input, target, x_times, y_times)
    return _Gap(first - true_first, last - true_last, right - left, end - start, dtype)


def _batch_of(warp: object, name: str) -> int | None:
    """Number of items, None where one warp stands for all."""
    if isinstance(warp, ExpectedWarp):
        raise TypeError(f"{name} must be (times, values), got an ExpectedWarp: give (None, warp.mean)")
    if _is_function(warp):
        shapes = [part.shape for part in warp if part is not None]  # type: ignore[attr-defined]
        sizes = {shape[0] for shape in shapes if len(shape) == 2}
        if len(sizes) > 1 or any(len(shape) not in (1, 2) for shape in shapes):
            found = " and ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"{name} must be times (K,) or (B, K) and values (K,) or (B, K), got shapes {found}")
        return sizes.pop() if sizes else None
    if isinstance(warp, Tensor):
        return None if warp.dim() == 2 else warp.shape[0] if warp.dim() else None
    if isinstance(warp, (list, tuple)):
        return len(warp)
    raise TypeError(f"{name} must be a tuple (times, values) of tensors, or paths, got {type(warp).__name__}")


def _is_function(warp: object) -> bool:
    """Whether warp is (times, values), not paths."""
    if not isinstance(warp, tuple) or len(warp) != 2:
        return False
    times, values = warp
    return isinstance(values, Tensor) and values.is_floating_point() and (times is None or isinstance(times, Tensor))


def _common_batch(first: int | None, second: int | None) -> int:
    if first is not None and second is not None and first != second:
        raise ValueError(f"input and target must have the same batch size, got {first} and {second}")
    return next((size for size in (first, second) if size is not None), 1)


def _frame_times(times: Times, name: str, batch: int) -> Tensor | float:
    """(B, N) in float64, or the time from one frame to the next."""
    if times is None:
        return 1.0
    if isinstance(times, numbers.Real) and not isinstance(times, bool):
        if not 0 < times < float("inf"):
            raise ValueError(f"{name} must be positive and finite, or a tensor of times, got {times}")
        return float(times)
    checked = _checks.real(times, name)
    if checked.dim() not in (1, 2) or not checked.shape[-1] or (checked.dim() == 2 and checked.shape[0] != batch):
        raise ValueError(f"{name} must have shape (K,) or ({batch}, K) with K >= 1, got {tuple(checked.shape)}")
    return checked.double().expand(batch, -1)


def _read_warp(
    warp: Any, name: str, lengths: Tensor | None, frame_times: tuple[Tensor | float, Tensor | float], batch: int
) -> PiecewiseLinear:
    if _is_function(warp):
        result, lengths = _read_function(warp, name, lengths, frame_times[0], batch)
    else:
        cells, lengths = padded(warp, lengths, batch, name)
        cells = repeat_last(cells, lengths)
        columns = zip(cells.unbind(2), frame_times, ("x_times", "y_times"), strict=True)
        result = PiecewiseLinear(*(_times_at(index, times, name, which) for index, times, which in columns))
    if not torch.compiler.is_compiling():
        falls = ~(result.times.detach().diff(dim=1) >= 0)
        if falls.any():
            b, k = falls.nonzero()[0].tolist()
            before, after = result.times[b, k : k + 2].tolist()
            raise ValueError(f"{name} must have times that never fall, got {before} and then {after} in item {b}")
    return result


def _read_function(
    warp: tuple[Tensor | None, Tensor], name: str, lengths: Tensor | None, frames: Tensor | float, batch: int
) -> tuple[PiecewiseLinear, Tensor | None]:
    values = _checks.real(warp[1], f"{name}[1]").double()
    values = values.expand(batch, -1)
    if warp[0] is not None:
        times = _checks.real(warp[0], f"{name}[0]").double().expand(batch, -1)
    elif isinstance(frames, Tensor):
        times = frames
    else:
        times = (torch.arange(values.shape[1], dtype=torch.float64) * frames).expand(batch, -1)
    if times.shape != values.shape or not values.shape[1]:
        raise ValueError(
            f"{name} must have as many times as values, at least one, got {times.shape[1]} and {values.shape[1]}"
        )
    lengths = _checks.lengths(lengths, f"{name}_lengths", batch, values.shape[1])
    pair = (times, values) if lengths is None else (repeat_last(times, lengths), repeat_last(values, lengths))
    return PiecewiseLinear(*pair), lengths


def _times_at(index: Tensor, times: Tensor | float, name: str, which: str) -> Tensor:
    frames = times.shape[1] if isinstance(times, Tensor) else 2**53
    if not torch.compiler.is_compiling():
        outside = (index < 0) | (index >= frames)
        if outside.any():
            b, k = outside.nonzero()[0].tolist()
            bounds = f"[0, {frames}), the frames of {which}" if isinstance(times, Tensor) else ">= 0"
            raise ValueError(f"{name}[{b}] has frame {int(index[b, k])} in its cell {k}, expected {bounds}")
    return times.gather(1, index) if isinstance(times, Tensor) else index.double() * times


def _span(
    span: tuple[float | Tensor, float | Tensor] | None, true: PiecewiseLinear, batch: int
) -> tuple[Tensor, Tensor]:
    if span is None:
        start, end = true.times[:, 0], true.times[:, -1]
    else:
        if not isinstance(span, (tuple, list)) or len(span) != 2:
            raise TypeError(f"span must be a pair (start, end), got {span!r}")
        start, end = (_span_end(bound, batch) for bound in span)
    if not torch.compiler.is_compiling() and not (start < end).all():
        b = int((~(start < end)).nonzero()[0])
        which = "span" if span is not None else "target, whose breakpoints give the span,"
        raise ValueError(f"{which} must end after it starts, got {start[b].item()} to {end[b].item()} in item {b}")
    return start, end


def _span_end(bound: Any, batch: int) -> Tensor:
    if not isinstance(bound, Tensor):
        if isinstance(bound, bool) or not isinstance(bound, numbers.Real):
            raise TypeError(f"span must hold numbers or tensors ({batch},), got {type(bound).__name__}")
        return torch.full((batch,), float(bound), dtype=torch.float64)
    if bound.shape not in ((), (batch,)):
        raise ValueError(f"span must hold numbers or tensors ({batch},), got shape {tuple(bound.shape)}")
    return bound.double().expand(batch)


def _result_dtype(*values: object) -> torch.dtype:
    tensors = [v for value in values for v in (value if isinstance(value, (tuple, list)) else [value])]
    double = any(isinstance(v, Tensor) and v.dtype == torch.float64 for v in tensors)
    return torch.float64 if double else torch.float32


# ---------------------------------------------------------------- formulas


def _root(square: Tensor) -> Tensor:
    """Square root with gradient 0 at 0."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), square.detach())


def _mean_size(a: Tensor, b: Tensor) -> Tensor:
    """Mean of |f| where f runs linearly from a to b."""
    sizes = a.abs() + b.abs()
    crosses = a * b < 0
    # |a + b|, not |a| + |b|: the mean is smooth where one end is 0, as it is where warps are held at the same time
    return torch.where(crosses, (a.square() + b.square()) / (2 * torch.where(crosses, sizes, 1)), (a + b).abs() / 2)
