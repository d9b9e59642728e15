r"""Connectionist temporal classification: a drop-in for torch's CTC loss, its multi-label form, and forced alignment.

The S labels of a target with a blank before, between and behind them are 2 S + 1 states. A path takes a state at each
frame: the one before again, the next one, or the one after next where that skips a blank between two different labels.
The loss is

.. math:: -\log \sum_{\pi} \prod_t p(t, \text{class of } \pi_t)

over all paths :math:`\pi` that begin in one of the first two states and end in one of the last two (Graves et al., ICML
2006).
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _checks
from ._ctc_functions import CTCAlignmentFunction, CTCFunction, Targets
from ._ops import ops
from .cost import CostFunction

Lengths = Tensor | Sequence[int]


# ---------------------------------------------------------------- the loss


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    from_logits: bool = False,
) -> Tensor:
    r"""CTC loss, a drop-in for ``torch.nn.functional.ctc_loss``.

    .. math:: -\log \sum_{\pi} \prod_t p(t, \text{class of } \pi_t)

    over all ways :math:`\pi` to read the target with a blank before, between and behind its labels, one state a frame.

    Parameters
    ----------
    log_probs : Tensor
        (T, B, C) or (T, C) logarithms of class probabilities, float32 or float64; float16 and bfloat16 are computed in
        float32. A view of (B, T, C) is not copied. -inf blocks a class.
    targets : Tensor
        Integers: (B, S), of which the first target_lengths[b] of a row are looked at; or all targets one behind the
        other (sum of target_lengths,); or (S,) for log_probs (T, C). A label may be the blank's class, and is then a
        label like any other.
    input_lengths, target_lengths : Tensor or sequence of int
        (B,) integers, in [0, T] and [0, S]; () or (1,) for log_probs (T, C). What lies behind them is never read, its
        gradient is 0.
    blank : int, default 0
        Class of the blank.
    reduction : str, default "mean"
        "mean" divides each loss by its target length (at least 1) and takes the mean over the batch; "sum"; "none".
    zero_infinity : bool, default False
        Losses of items without a path (too few frames for their labels) count 0 in place of +inf.
    from_logits : bool, default False
        ``log_probs`` holds logits, and log-softmax is part of the loss: faster, and with less memory, than calling it
        first. Nothing as large as the logits is made but their gradient.

    Returns
    -------
    Tensor
        A scalar, or (B,) with reduction "none" (() for log_probs (T, C)), float64 for float64 input, else float32. +inf
        with gradient 0 where there is no path; NaN where an item has a NaN in a class it uses. Twice differentiable
        (the second time in eager mode only).

    Raises
    ------
    ValueError
        For shapes, lengths, labels or options out of range.
    TypeError
        For other dtypes.

    Notes
    -----
    Values, and gradients with respect to logits, are those of torch. The gradient with respect to log_probs is the true
    derivative, minus the probability of each class among the paths; torch returns softmax minus that, which is right
    only behind a log-softmax. Both are the same after ``log_softmax``.

    The gradient is computed together with the value: evaluate under ``torch.no_grad()``. Results do not depend on the
    number of threads.

    References
    ----------
    Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification: Labelling Unsegmented Sequence
    Data with Recurrent Neural Networks", ICML 2006.

    Examples
    --------
    >>> import torch
    >>> from torch_dalign import functional
    >>> log_probs = torch.full((3, 1, 4), 0.25).log()  # 3 frames, 4 equally probable classes
    >>> functional.ctc_loss(log_probs, torch.tensor([[1, 2]]), [3], [2], reduction="sum")  # -log(5 / 64): 5 paths
    tensor(2.5494)
    """
    problem = _problem(log_probs, targets, input_lengths, target_lengths, blank)
    return problem.loss(reduction, zero_infinity, from_logits)


class CTCLoss(nn.Module):
    r"""CTC loss, a drop-in for ``torch.nn.CTCLoss``.

    .. math:: -\log \sum_{\pi} \prod_t p(t, \text{class of } \pi_t)

    over all ways :math:`\pi` to read the target with a blank before, between and behind its labels, one state a frame.

    Parameters
    ----------
    blank : int, default 0
        Class of the blank.
    reduction : str, default "mean"
        "mean" divides each loss by its target length (at least 1) and takes the mean over the batch; "sum"; "none".
    zero_infinity : bool, default False
        Losses of items without a path count 0 in place of +inf. Their gradients are 0 in any case.
    from_logits : bool, default False
        Take logits in place of log-probabilities; log-softmax is then part of the loss.

    Notes
    -----
    Call: ``loss(log_probs, targets, input_lengths, target_lengths)``, with the shapes, types, errors and derivatives of
    `functional.ctc_loss`.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> logits = torch.randn(50, 4, 20, requires_grad=True)
    >>> targets = torch.randint(1, 20, (4, 10))
    >>> loss = dalign.CTCLoss()
    >>> loss(logits.log_softmax(2), targets, (50, 40, 50, 30), (10, 8, 10, 7)).backward()
    >>> logits.grad.shape
    torch.Size([50, 4, 20])
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False, *, from_logits: bool = False
    ) -> None:
        super().__init__()
        _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
        if isinstance(blank, bool) or not isinstance(blank, numbers.Integral):
            raise TypeError(f"blank must be an integer, got {type(blank).__name__}")
        self.blank: int = int(blank)
        self.reduction: str = reduction
        self.zero_infinity: bool = bool(zero_infinity)
        self.from_logits: bool = bool(from_logits)

    def forward(self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths) -> Tensor:
        """The loss."""
        problem = _problem(log_probs, targets, input_lengths, target_lengths, self.blank)
        return problem.loss(self.reduction, self.zero_infinity, self.from_logits)

    def alignment(self, log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths) -> Tensor:
        r"""Probability of each state at each frame among all paths, itself differentiable.

        .. math:: H_{t,s} = \frac{\partial\, \text{loss}}{\partial (-\log p(t, \text{class of } s))}

        The states are blank, first label, blank, ..., last label, blank: column 2 k + 1 is label k. Every frame's row
        adds up to 1. Logits and log-probabilities give the same.

        Parameters
        ----------
        log_probs, targets, input_lengths, target_lengths
            As in `functional.ctc_loss`.

        Returns
        -------
        Tensor
            (B, T, 2 S + 1), where S is the width of targets, or the largest of target_lengths for concatenated targets;
            (T, 2 S + 1) for log_probs (T, C). 0 behind the lengths, and for an item without a path.

        Examples
        --------
        >>> import torch, torch_dalign as dalign
        >>> log_probs = torch.full((3, 1, 4), 0.25).log()
        >>> dalign.CTCLoss().alignment(log_probs, torch.tensor([[1, 2]]), [3], [2])
        tensor([[[0.2000, 0.8000, 0.0000, 0.0000, 0.0000],
                 [0.0000, 0.4000, 0.2000, 0.4000, 0.0000],
                 [0.0000, 0.0000, 0.0000, 0.8000, 0.2000]]])
        """
        return _problem(log_probs, targets, input_lengths, target_lengths, self.blank).alignment()

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        defaults = {"blank": 0, "reduction": "mean", "zero_infinity": False, "from_logits": False}
        return ", ".join(f"{k}={getattr(self, k)!r}" for k, v in defaults.items() if getattr(self, k) != v)


# ---------------------------------------------------------------- multi-label CTC


class MCTCLoss(nn.Module):
    r"""Multi-label CTC loss: a target is a sequence of sets of labels.

    .. math::
        p(t, \text{blank}) = x_{t,0}, \qquad
        p(t, y) = (1 - x_{t,0}) \prod_{d=1}^{D} x_{t,d}^{y_d} (1 - x_{t,d})^{1 - y_d}

    and with these probabilities the loss is that of CTC: -log of the sum over all ways to read the sets with a blank
    before, between and behind them, one state a frame. Between two equal sets there must be a blank. Logarithms are
    clamped at -100, as those of ``torch.nn.BCELoss``.

    Parameters
    ----------
    reduction : str, default "mean"
        "mean" divides each loss by its number of sets (at least 1) and takes the mean over the batch; "sum"; "none".
    zero_infinity : bool, default False
        Losses of items without a path (too few frames for their sets) count 0 in place of +inf. Their gradients are 0
        in any case.

    Notes
    -----
    Call: ``loss(x, y, x_lengths=None, y_lengths=None)``.

    * x (B, N, 1 + D) probabilities, the activity of the blank first; float32 or float64, float16 and bfloat16 are
      computed in float32.
    * y (B, M, D), 0 or 1, of any type; no gradient is computed for it. M may be 0.
    * x_lengths, y_lengths (B,) integers in [0, N] and [0, M]; what lies behind is never read, its gradient is 0.
    * Output: a scalar, or (B,) with reduction "none"; differentiable twice (the second time in eager mode only). A NaN
      gives NaN for its item.
    * A lattice of N (M + 1) numbers an item is stored.

    Raises
    ------
    ValueError
        For shapes or lengths out of range.
    TypeError
        For other dtypes.

    References
    ----------
    Wigington, Price and Cohen, "Multi-label Connectionist Temporal Classification", ICDAR 2019. Zeitler and Müller, "A
    Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", 2026.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> x = torch.rand(2, 30, 1 + 12, requires_grad=True)
    >>> chords = torch.rand(2, 5, 12) < 0.3
    >>> dalign.MCTCLoss()(x, chords, y_lengths=torch.tensor([5, 3])).backward()
    >>> x.grad.shape
    torch.Size([2, 30, 13])
    """

    def __init__(self, reduction: str = "mean", zero_infinity: bool = False) -> None:
        super().__init__()
        _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
        self.reduction: str = reduction
        self.zero_infinity: bool = bool(zero_infinity)

    def forward(
        self, x: Tensor, y: Tensor, x_lengths: Lengths | None = None, y_lengths: Lengths | None = None
    ) -> Tensor:
        """The loss."""
        return _multi_label_problem(x, y, x_lengths, y_lengths).loss(self.reduction, self.zero_infinity, False)

    def alignment(
        self, x: Tensor, y: Tensor, x_lengths: Lengths | None = None, y_lengths: Lengths | None = None
    ) -> Tensor:
        """Probability of each state at each frame (B, N, 2 M + 1), as `CTCLoss.alignment`; itself differentiable."""
        return _multi_label_problem(x, y, x_lengths, y_lengths).alignment()

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        defaults = {"reduction": "mean", "zero_infinity": False}
        return ", ".join(f"{k}={getattr(self, k)!r}" for k, v in defaults.items() if getattr(self, k) != v)


# ---------------------------------------------------------------- forced alignment


class CTCAlignment(NamedTuple):
    """Most probable paths of a batch, see `ctc_align`. Without the first dimension for log_probs (T, C).

    Attributes
    ----------
    labels : Tensor
        (B, T) int64, the class of each frame: one of the target's, or the blank. -1 behind the input's length.
    states : Tensor
        (B, T) int64, the state of each frame: 2 k + 1 is label k of the target, 2 k the blank before it. -1 behind the
        input's length.
    spans : Tensor
        (B, S, 2) int64, frames [start, end) of each label. -1 behind the target's length.
    scores : Tensor
        (B, S) mean log-probability of each label over its frames: its exponential is the geometric mean of the
        probabilities. 0 behind the target's length.
    value : Tensor
        (B,) minus the log-probability of the path, never below the CTC loss.
    """

    labels: Tensor
    states: Tensor
    spans: Tensor
    scores: Tensor
    value: Tensor


@torch.no_grad()
def ctc_align(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    *,
    from_logits: bool = False,
) -> CTCAlignment:
    r"""Forced alignment: when each label of a target is said, by the most probable path.

    .. math:: \hat\pi = \arg\max_{\pi} \prod_t p(t, \text{class of } \pi_t)

    over the paths of the CTC loss. Of equally probable ones the path that, going back from the end, stays longer in a
    state, and ends in the last label.

    Parameters
    ----------
    log_probs, targets, input_lengths, target_lengths, blank, from_logits
        As in `functional.ctc_loss`.

    Returns
    -------
    CTCAlignment
        Labels and states by frame, frame spans and scores by label, and minus the log-probability of the path. An item
        without a path has -1 in labels, states and spans, scores -inf and value +inf; one with a NaN has scores and
        value NaN. Nothing of it is differentiable: see `CTCLoss.alignment` for a soft one that is.

    Raises
    ------
    ValueError, TypeError
        As `functional.ctc_loss`.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> p = torch.tensor([[0.1, 0.9, 0.0], [0.1, 0.8, 0.1], [0.7, 0.1, 0.2], [0.1, 0.1, 0.8]])
    >>> path = dalign.ctc_align(p.log(), torch.tensor([1, 2]), [4], [2])
    >>> path.labels
    tensor([1, 1, 0, 2])
    >>> path.spans
    tensor([[0, 2],
            [3, 4]])
    >>> path.scores.exp()
    tensor([0.8485, 0.8000])
    """
    problem = _problem(log_probs, targets, input_lengths, target_lengths, blank)
    return problem.path(from_logits)


# ---------------------------------------------------------------- a checked problem


class _Problem(NamedTuple):
    """A checked batch."""

    log_probs: Tensor  # (B, T, C), any strides
    targets: Targets
    is_batched: bool

    def loss(self, reduction: str, zero_infinity: bool, from_logits: bool) -> Tensor:
        _checks.choice(reduction, "reduction", _checks.REDUCTIONS)
        weights = self._weights() if reduction == "mean" else None
        need = torch.is_grad_enabled() and self.log_probs.requires_grad
        *tensors, blank = self.targets
        values = CTCFunction.apply(
            self.log_probs, *tensors, weights, blank, bool(from_logits), bool(zero_infinity), need
        )[0]
        if reduction == "none":
            return values if self.is_batched else values.squeeze(0)
        return values.sum() if weights is None else (values * weights).sum()

    def alignment(self) -> Tensor:
        *tensors, blank = self.targets
        found = CTCAlignmentFunction.apply(self.log_probs, *tensors, blank, 2 * self._longest() + 1)
        return found if self.is_batched else found.squeeze(0)

    def path(self, from_logits: bool) -> CTCAlignment:
        log_probs = self.log_probs.log_softmax(2) if from_logits else self.log_probs
        value, states, spans, scores = ops.ctc_align(log_probs, *self.targets, self._longest())
        kind = self.log_probs.dtype
        found = CTCAlignment(self._labels_of(states), states, spans, scores.to(kind), value.to(kind))
        return found if self.is_batched else CTCAlignment(*(part.squeeze(0) for part in found))

    def _weights(self) -> Tensor:
        """Of the values in their mean: each is divided by its target's length."""
        lengths = self.targets.target_lengths.clamp(min=1).to(self.log_probs.dtype)
        return 1 / (lengths * max(self.log_probs.shape[0], 1))

    def _longest(self) -> int:
        labels, _, target_lengths, _ = self.targets
        if labels.dim() == 2:
            return labels.shape[1]
        return int(target_lengths.max()) if len(target_lengths) else 0

    def _labels_of(self, states: Tensor) -> Tensor:
        """Classes of states (B, T)."""
        labels, _, lengths, blank = self.targets
        begin = torch.arange(len(labels)) * labels.shape[1] if labels.dim() == 2 else lengths.cumsum(0) - lengths
        is_label = states % 2 == 1  # -1 % 2 is 1 too
        at = (begin[:, None] + states // 2).where(is_label & (states >= 0), 0)
        classes = labels.flatten()[at] if labels.numel() else at
        return classes.where(is_label, blank).where(states >= 0, -1)


def _problem(
    log_probs: Tensor, targets: Tensor, input_lengths: Lengths, target_lengths: Lengths, blank: int
) -> _Problem:
    checked, is_batched = _log_probs(log_probs)
    batch, frames, classes = checked.shape
    _blank(blank, classes)
    labels = _labels(targets, batch, is_batched)
    inputs = _lengths(input_lengths, "input_lengths", batch, frames, is_batched)
    widest = labels.shape[-1]
    lengths = _lengths(target_lengths, "target_lengths", batch, widest, is_batched)
    if not torch.compiler.is_compiling() and not checked.is_meta:
        _label_values(labels, lengths, classes)
    return _Problem(checked, Targets(labels, inputs, lengths, int(blank)), is_batched)


def _log_probs(value: object) -> tuple[Tensor, bool]:
    """(B, T, C), and whether there was a batch dimension."""
    checked = _checks.real(value, "log_probs")
    if checked.dim() not in (2, 3) or checked.shape[-1] == 0:
        raise ValueError(f"log_probs must have shape (T, B, C) or (T, C) with C >= 1, got {tuple(checked.shape)}")
    if checked.dim() == 2:
        return checked.unsqueeze(0), False
    return checked.transpose(0, 1), True


def _blank(value: Any, classes: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (numbers.Integral, torch.SymInt)):
        raise TypeError(f"blank must be an integer, got {type(value).__name__}")
    if not 0 <= int(value) < classes:
        raise ValueError(f"blank = {value} is not a class of log_probs, expected [0, {classes})")


def _labels(value: object, batch: int, is_batched: bool) -> Tensor:
    """Targets as int64 on the CPU: (B, S), or (sum of target_lengths,)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"targets must be a tensor, got {type(value).__name__}")
    if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
        raise TypeError(f"targets must hold integer class indices, got {value.dtype}")
    if value.dim() not in (1, 2) or (value.dim() == 2 and value.shape[0] != batch):
        expected = f"({batch}, S) or (sum of target_lengths,)" if is_batched else "(S,)"
        raise ValueError(f"targets must have shape {expected}, got {tuple(value.shape)}")
    return value.to("cpu", torch.int64)


def _lengths(value: object, name: str, batch: int, longest: int, is_batched: bool = True) -> Tensor:
    """Lengths (B,) in [0, longest] as int64 on the CPU."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name} must hold integers, got {value.dtype}")
        checked = value.to("cpu", torch.int64)
    elif isinstance(value, (list, tuple)) and all(isinstance(number, numbers.Integral) for number in value):
        checked = torch.tensor(value, dtype=torch.int64)
    else:
        raise TypeError(f"{name} must be an integer tensor or a sequence of integers, got {type(value).__name__}")
    if not is_batched and checked.dim() == 0:
        checked = checked.unsqueeze(0)
    if checked.dim() != 1 or checked.shape[0] != batch:
        raise ValueError(f"{name} must have shape ({batch},), one length per batch item, got {tuple(checked.shape)}")
    if batch and not torch.compiler.is_compiling() and not checked.is_meta:
        low, high = (int(bound) for bound in checked.aminmax())
        if low < 0 or high > longest:
            b, wrong = next((b, v) for b, v in enumerate(checked.tolist()) if not 0 <= v <= longest)
            raise ValueError(f"{name}[{b}] = {wrong} is outside [0, {longest}]")
    return checked


def _label_values(labels: Tensor, lengths: Tensor, classes: int) -> None:
    """ValueError for concatenated targets of another size, and for a label outside [0, classes) that is looked at."""
    if labels.is_meta or lengths.is_meta:
        return
    if labels.dim() == 1 and labels.shape[0] != int(lengths.sum()):
        raise ValueError(
            f"targets must have shape (B, S), or (sum of target_lengths,) = ({int(lengths.sum())},) when concatenated, "
            f"got {tuple(labels.shape)}"
        )
    low, high = labels.aminmax() if labels.numel() else (0, 0)
    if low >= 0 and high < classes:
        return
    wrong = (labels < 0) | (labels >= classes)
    if labels.dim() == 2:
        wrong &= ~_checks.padding(labels.shape[1], lengths)
    if wrong.any():
        at = wrong.nonzero()[0].tolist()
        raise ValueError(f"targets{at} = {int(labels[tuple(at)])} is not a class of log_probs, expected [0, {classes})")


# ---------------------------------------------------------------- label sets as classes of their own


def _multi_label_problem(x: Tensor, y: Tensor, x_lengths: Lengths | None, y_lengths: Lengths | None) -> _Problem:
    """Class 0 is the blank, class m + 1 the set m of the item's target; a set equal to the one before has its class."""
    frames, sets = _checks.real(x, "x"), _checks.tensor(y, "y")
    if frames.dim() != 3 or frames.shape[2] < 2:
        raise ValueError(f"x must have shape (B, N, 1 + D) with D >= 1, got {tuple(frames.shape)}")
    batch, longest, width = frames.shape
    if sets.dim() != 3 or sets.shape[0] != batch or sets.shape[2] != width - 1:
        raise ValueError(
            f"y must have shape ({batch}, M, {width - 1}) to fit x of shape {tuple(frames.shape)}, got "
            f"{tuple(sets.shape)}"
        )
    if sets.is_complex():
        raise TypeError(f"y must hold 0 and 1, got {sets.dtype}")
    inputs = _all_or(x_lengths, "x_lengths", batch, longest)
    lengths = _all_or(y_lengths, "y_lengths", batch, sets.shape[1])
    sets = sets.detach().to(frames.dtype).masked_fill(_checks.padding(sets.shape[1], lengths).unsqueeze(2), 0)
    frames = frames.masked_fill(_checks.padding(longest, inputs).unsqueeze(2), 0)
    return _Problem(set_log_probs(frames, sets), Targets(_set_classes(sets), inputs, lengths, 0), True)


def _all_or(value: Lengths | None, name: str, batch: int, longest: int) -> Tensor:
    return torch.full((batch,), longest) if value is None else _lengths(value, name, batch, longest)


def set_log_probs(x: Tensor, y: Tensor) -> Tensor:
    """(B, N, 1 + M): cross entropies of the blank's activity with 1, and of all activities with (0, set)."""
    blank = CostFunction.apply(x[:, :, :1], x.new_ones((x.shape[0], 1, 1)), "bce")
    if y.shape[1] == 0:
        return -blank
    sets = CostFunction.apply(x, torch.cat((y.new_zeros((*y.shape[:2], 1)), y), 2), "bce")
    return -torch.cat((blank, sets), 2)


def _set_classes(y: Tensor) -> Tensor:
    """(B, M): m + 1 where a set m begins a run of equal ones, and within the run the same."""
    number = torch.arange(1, y.shape[1] + 1).expand(y.shape[:2])
    if y.shape[1] < 2:
        return number.contiguous()
    begins = torch.cat((torch.ones_like(number[:, :1], dtype=torch.bool), (y.diff(dim=1) != 0).any(2)), 1)
    return number.where(begins, 0).cummax(1).values
