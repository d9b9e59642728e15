r"""Named settings of the general lattice: the rows of Table I of the dDTW paper, and what its tutorial recommends.

========================= ================= ============================================================================
name                      columns           steps, with the weights of a step into a label / into a blank
========================= ================= ============================================================================
"CTC-A"                   blanks and labels (1, 0): 1 / 1, (1, 1): 1 / 1, (1, 2): 1 / inf; this is CTC
"CTC-B"                   blanks and labels (1, 0): 1 / 2, (1, 1): 1 / 2, (1, 2): 1 / inf
"CTC-C"                   blanks and labels (1, 0): 1 / inf, (1, 1): 1 / inf, (1, 2): 1 / inf
"SDTW-D"                  labels            (1, 0), (1, 1), both with weight 1: every frame of x advances
"SDTW-E"                  labels            (1, 0), (0, 1), (1, 1), all with weight 1: soft-DTW
"EM"                      stretched labels  the steps of "SDTW-E" with weights 1, 1, 1.5 and hardmin, on targets
                                            repeated uniformly to the length of x, as for the E step of EM
"1-1-2"                   labels            the steps of "SDTW-E", (1, 1) with weight 2: no diagonals for their own sake
"2-1-softDTW"             labels            (1, 1), (2, 1), (1, 2): neither side stands still, frames may be skipped
"subsequence-softDTW"     labels            the steps of "SDTW-E", start and end anywhere in y
========================= ================= ============================================================================

The suffix "-W" sets the weight of (1, 0) into a label, which repeats it, to 0.1, and ``w_h`` to any number: a low
weight keeps an alignment from collapsing to few targets. In all "CTC" settings the step (1, 2) skips a blank between
different labels alone, (1, 1) into the blank between equal labels, which must be passed, has weight 1, and paths
start in the first two columns and end in the last two.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from ._modules import SmoothedLoss
from .cost import pairwise
from .ctc import set_log_probs
from .ddtw import THREE_STEPS, Step, _Problem, _problem

__all__ = ["DDTWPreset", "GammaAnnealing", "ddtw", "names"]

INF = math.inf
NORMALIZATIONS = (None, "paper", "N", "M", "NM")


class _Setting(NamedTuple):
    """One row of the table; the weights of a step into a label, and into a blank (None: there are none)."""

    steps: tuple[Step, ...]
    label: tuple[float, ...]
    blank: tuple[float, ...] | None = None
    smoothing: str = "softmin"
    sides: tuple[int, int] = (1, 1)
    stretches: bool = False


_CTC_STEPS = ((1, 0), (1, 1), (1, 2))
_SETTINGS = {
    "CTC-A": _Setting(_CTC_STEPS, (1, 1, 1), (1, 1, INF), sides=(1, 2)),
    "CTC-B": _Setting(_CTC_STEPS, (1, 1, 1), (2, 2, INF), sides=(1, 2)),
    "CTC-C": _Setting(_CTC_STEPS, (1, 1, 1), (INF, INF, INF), sides=(1, 2)),
    "SDTW-D": _Setting(((1, 0), (1, 1)), (1, 1)),
    "SDTW-E": _Setting(THREE_STEPS, (1, 1, 1)),
    "EM": _Setting(THREE_STEPS, (1, 1, 1.5), smoothing="hardmin", stretches=True),
    "1-1-2": _Setting(THREE_STEPS, (1, 1, 2)),
    "2-1-softDTW": _Setting(((1, 1), (2, 1), (1, 2)), (1, 1, 1)),
    "subsequence-softDTW": _Setting(THREE_STEPS, (1, 1, 1), sides=(1, 2**31)),
}
_W = "-W"


def names() -> list[str]:
    """All names that `ddtw` knows; "-W" may follow each that has the step (1, 0)."""
    return [*_SETTINGS, *(name + _W for name, setting in _SETTINGS.items() if (1, 0) in setting.steps)]


def ddtw(
    name: str,
    *,
    gamma: float | Tensor = 1.0,
    w_h: float | None = None,
    normalize: str | None = None,
    blank: int = 0,
    metric: str | None = None,
    reduction: str = "mean",
) -> DDTWPreset:
    """A setting of the general lattice by its name, as a loss module.

    Parameters
    ----------
    name : str
        A name of the table above, with or without "-W".
    gamma : float, Tensor or nn.Parameter, default 1.0
        Smoothing > 0, as in `DDTW`.
    w_h : float, optional
        Weight >= 0 of the step (1, 0) into a label. Default: 1, or 0.1 with "-W".
    normalize : str, optional
        Divides each item's value by: "N" its frames, "M" its lattice's columns (2 L + 1 for L labels with blanks), "NM"
        both, "paper" (M - 1) / 2 as in the dDTW paper's experiments (M = 1 counts as 2). Default: nothing.
    blank : int, default 0
        Class of the blank among single labels. Among multiple labels it is always column 0 of x.
    metric : str, optional
        Cost of a frame against a target, a metric of `pairwise`. Default: "nll" for class indices, else "bce" for the
        settings of the paper, "sqeuclidean" for the tutorial's three. With blanks only the default.
    reduction : str, default "mean"
        "mean" or "sum" over the batch, or "none".

    Returns
    -------
    DDTWPreset
        Called as ``loss(x, targets, x_lengths=None, y_lengths=None)``.

    Raises
    ------
    ValueError
        For an unknown name or options out of range.

    References
    ----------
    Zeitler and Müller, "A Unified Perspective on CTC and Soft-DTW Using Differentiable DTW", TASLPRO 2026, Table I and
    Section VII-A. Zeitler, Krause and Müller, "Soft dynamic time warping with variable step weights", ICASSP 2024.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> log_probs = torch.randn(2, 30, 5).log_softmax(2)
    >>> targets = torch.tensor([[1, 2, 2, 4], [3, 1, 2, 0]])
    >>> loss = dalign.presets.ddtw("CTC-A")
    >>> ctc = torch.nn.CTCLoss(reduction="none")
    >>> lengths = torch.tensor([4, 3])
    >>> ours = dalign.presets.ddtw("CTC-A", reduction="none")(log_probs, targets, y_lengths=lengths)
    >>> torch.allclose(ours, ctc(log_probs.transpose(0, 1), targets, torch.tensor([30, 30]), lengths))
    True
    """
    return DDTWPreset(name, gamma=gamma, w_h=w_h, normalize=normalize, blank=blank, metric=metric, reduction=reduction)


class DDTWPreset(SmoothedLoss):
    """A named setting of the general lattice; made by `ddtw`, which documents the options.

    Notes
    -----
    * Single labels: x (B, N, C) log-probabilities, targets (B, M) class indices; the cost is -x of the class.
    * Multiple labels: targets (B, M, D) multi-hot, x probabilities: (B, N, D), or (B, N, 1 + D) with the blank's first
      for settings with blanks. There p(blank) = x_0, and p(labels) = (1 - x_0) prod_d x_d^y_d (1 - x_d)^(1 - y_d).
      Labels are equal when they are in all D. Logarithms are clamped at -100.
    * Other metrics: x (B, N, D), targets (B, M, D).
    * x_lengths, y_lengths (B,) integers in [1, N] and [1, M] count frames and targets.

    Differentiable in x (and gamma), twice where the minimum is soft.
    """

    def __init__(
        self,
        name: str,
        *,
        gamma: float | Tensor = 1.0,
        w_h: float | None = None,
        normalize: str | None = None,
        blank: int = 0,
        metric: str | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(gamma, reduction)
        _checks.choice(name, "name", names())
        _checks.choice(normalize, "normalize", NORMALIZATIONS)
        if metric is not None:
            _checks.choice(metric, "metric", _checks.METRICS)
        if w_h is not None:
            _check_weight(w_h)
        _check_blank(blank)
        self.name, self.w_h, self.normalize, self.blank, self.metric = name, w_h, normalize, blank, metric
        self._setting = _SETTINGS[name.removesuffix(_W)]
        if w_h is not None and (1, 0) not in self._setting.steps:
            raise ValueError(f"w_h is the weight of the step (1, 0), which {name!r} has not")
        if metric is not None and self._setting.blank is not None:
            raise ValueError(f"metric must be left out for {name!r}: blanks have a cost of their own")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps (x, y) of the lattice."""
        return self._setting.steps

    @property
    def has_blank(self) -> bool:
        """Whether the columns are blanks and labels in turn."""
        return self._setting.blank is not None

    @property
    def label_weights(self) -> tuple[float, ...]:
        """Weight of each step into a label."""
        weight = self.w_h if self.w_h is not None else 0.1 if self.name.endswith(_W) else None
        pairs = zip(self.steps, self._setting.label, strict=True)
        return tuple(weight if step == (1, 0) and weight is not None else usual for step, usual in pairs)

    def forward(
        self, x: Tensor, targets: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None
    ) -> Tensor:
        """The loss."""
        problem = self._problem(x, targets, x_lengths, y_lengths)
        value = problem.value()
        if self.normalize is not None:
            value = value / self._size(problem).to(value.dtype)
        return self._reduce(value)

    def alignment(
        self, x: Tensor, targets: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None
    ) -> Tensor:
        """H = d value / d cost (B, N, columns): M targets, or the 2 M + 1 blanks and labels in turn."""
        return self._problem(x, targets, x_lengths, y_lengths).alignment()

    def best_path(
        self, x: Tensor, targets: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None
    ) -> list[Tensor]:
        """Best path of each item, (L, 2) cells (frame, column), (0, 2) where there is none."""
        return self._problem(x, targets, x_lengths, y_lengths).best_path()

    def step_weights(self, targets: Tensor, y_lengths: Tensor | None = None) -> Tensor:
        """Weights (B, columns, S) of the steps into each column, in float64; columns as in `alignment`.

        What targets hold beyond y_lengths (B,) repeats no label.
        """
        label = torch.tensor(self.label_weights, dtype=torch.float64)
        if self._setting.blank is None:
            return label.expand(targets.shape[0], targets.shape[1], -1)
        batch, count = targets.shape[:2]
        weights = torch.tensor(self._setting.blank, dtype=torch.float64).repeat(batch, 2 * count + 1, 1)
        weights[:, 1::2] = label
        repeats = _repeats(targets, y_lengths)
        weights[:, 3::2, 2] = weights[:, 3::2, 2].masked_fill(repeats, INF)
        weights[:, 2:-1:2, 1] = weights[:, 2:-1:2, 1].masked_fill(repeats, 1)
        return weights

    def extra_repr(self) -> str:
        """Name, and what differs from the defaults."""
        parts = [repr(self.name), self._gamma_repr()]
        defaults = (("w_h", None), ("normalize", None), ("blank", 0), ("metric", None), ("reduction", "mean"))
        parts += [f"{key}={getattr(self, key)!r}" for key, default in defaults if getattr(self, key) != default]
        return ", ".join(parts)

    def _problem(self, x: Tensor, targets: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None) -> _Problem:
        x, targets = _checked(x, targets, self.has_blank)
        frames = _checks.lengths(x_lengths, "x_lengths", x.shape[0], x.shape[1])
        count = _checks.lengths(_checks.apart(y_lengths, x_lengths), "y_lengths", x.shape[0], targets.shape[1])
        targets = _without_padding(targets, count)
        if targets.dim() == 2:
            _checks.label_values(targets, x.shape[2], None, "targets")
            if self.has_blank and self.blank >= x.shape[2]:
                raise ValueError(f"blank = {self.blank} is not a class of x, expected [0, {x.shape[2]})")
        if self._setting.stretches:
            targets, count = _stretched(targets, count, frames, x.shape[1]), frames
        cost, columns = self._costs(x, targets), count
        if self.has_blank and count is not None:
            columns = 2 * count + 1
        weights = self.step_weights(targets, count)[:, None] if self.has_blank else self.label_weights
        along_x, along_y = self._setting.sides
        ends = (along_x, min(along_y, cost.shape[2]))
        return _problem(
            cost,
            None,
            "precomputed",
            self.gamma,
            self.steps,
            None if self._is_unit(weights) else weights,
            ends,
            ends,
            self._setting.smoothing,
            frames,
            columns,
        )

    @staticmethod
    def _is_unit(weights: Sequence[float] | Tensor) -> bool:
        return not isinstance(weights, Tensor) and all(weight == 1 for weight in weights)

    def _costs(self, x: Tensor, targets: Tensor) -> Tensor:
        """C (B, N, columns)."""
        if not self.has_blank:
            return pairwise(x, targets if targets.dim() == 2 else targets.to(x.dtype), self._metric(targets))
        if targets.dim() == 2:
            return pairwise(x, _with_blanks(targets, self.blank), "nll")
        each = torch.arange(1, targets.shape[1] + 1).expand(
            targets.shape[:2]
        )  # a class for each target, 0 for the blank
        return pairwise(set_log_probs(x, targets.to(x.dtype)), _with_blanks(each, 0), "nll")

    def _metric(self, targets: Tensor) -> str:
        if self.metric is not None:
            return self.metric
        if targets.dim() == 2:
            return "nll"
        return "sqeuclidean" if self.name.removesuffix(_W) in ("1-1-2", "2-1-softDTW", "subsequence-softDTW") else "bce"

    def _size(self, problem: _Problem) -> Tensor:
        """What each item's value is divided by."""
        shape, options = problem.lattice.cost.shape, problem.options
        frames = torch.full((shape[0],), shape[1]) if options.x_lengths is None else options.x_lengths
        columns = torch.full((shape[0],), shape[2]) if options.y_lengths is None else options.y_lengths
        if self.normalize == "paper":
            return (columns - 1).clamp(min=1) / 2
        return {"N": frames, "M": columns, "NM": frames * columns}[str(self.normalize)].double()


# ---------------------------------------------------------------- targets


def _check_weight(w_h: object) -> None:
    if not isinstance(w_h, numbers.Real):
        raise TypeError(f"w_h must be a number >= 0, got {w_h!r}")
    if not _checks.as_float(w_h) >= 0:
        raise ValueError(f"w_h must be a number >= 0, got {w_h}")


def _check_blank(blank: object) -> None:
    if isinstance(blank, bool) or not isinstance(blank, numbers.Integral):
        raise TypeError(f"blank must be a class index, got {blank!r}")
    if int(blank) < 0:
        raise ValueError(f"blank must be a class index >= 0, got {blank}")


def _checked(x: object, targets: object, has_blank: bool) -> tuple[Tensor, Tensor]:
    features, labels = _checks.real(x, "x"), _checks.tensor(targets, "targets")
    _checks.dimensions(features, "x", "BND")
    if labels.dim() not in (2, 3) or 0 in labels.shape[1:]:
        raise ValueError(
            f"targets must be class indices (B, M) or vectors (B, M, D) with M, D >= 1, got shape {tuple(labels.shape)}"
        )
    if labels.dim() == 2 and (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
        raise TypeError(f"targets of shape (B, M) must be integer class indices, got {labels.dtype}")
    if labels.shape[0] != features.shape[0]:
        raise ValueError(
            f"x and targets must have the same batch size, got shapes {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    width = features.shape[2] - has_blank
    if labels.dim() == 3 and labels.shape[2] != width:
        why = " (x also holds the blank, first)" if has_blank else ""
        raise ValueError(f"targets must have shape (B, M, D) with D = {width}{why}, got {tuple(labels.shape)}")
    return features, labels.to(torch.int64) if labels.dim() == 2 else labels


def _without_padding(targets: Tensor, count: Tensor | None) -> Tensor:
    """Zeros beyond the lengths, where targets may hold anything."""
    if count is None:
        return targets
    beyond = _checks.padding(targets.shape[1], count)
    return targets.masked_fill(beyond if targets.dim() == 2 else beyond[..., None], 0)


def _with_blanks(labels: Tensor, blank: int) -> Tensor:
    """(B, 2 M + 1): blank, label, blank, ..., label, blank."""
    extended = labels.new_full((labels.shape[0], 2 * labels.shape[1] + 1), blank)
    extended[:, 1::2] = labels
    return extended


def _repeats(targets: Tensor, count: Tensor | None) -> Tensor:
    """(B, M - 1): whether a target equals the one before it."""
    same = targets[:, 1:] == targets[:, :-1]
    repeats = same if targets.dim() == 2 else same.all(2)
    return repeats if count is None else repeats & ~_checks.padding(targets.shape[1], count)[:, 1:]


def _stretched(targets: Tensor, count: Tensor | None, frames: Tensor | None, longest: int) -> Tensor:
    """Targets repeated uniformly to the length of x: frame n has target floor(n M / N)."""
    m = torch.tensor(targets.shape[1]) if count is None else count[:, None]
    n = torch.tensor(longest) if frames is None else frames[:, None]
    at = (torch.arange(longest) * m // n).clamp(max=targets.shape[1] - 1).expand(targets.shape[0], -1)
    return targets.gather(1, at if targets.dim() == 2 else at[..., None].expand(-1, -1, targets.shape[2]))


# ---------------------------------------------------------------- annealing


class GammaAnnealing:
    """Lowers a loss's gamma from epoch to epoch, geometrically: smooth losses early, sharp alignments late.

    Parameters
    ----------
    loss : nn.Module
        With an attribute gamma: `SoftDTW`, `DDTW`, a preset.
    first, last : float
        Gamma > 0 before the first step, and after the last.
    steps : int
        Number of calls of `step` on the way, at least 1; later calls leave gamma at `last`.

    Examples
    --------
    >>> import torch_dalign as dalign
    >>> loss = dalign.SoftDTW()
    >>> schedule = dalign.presets.GammaAnnealing(loss, first=10.0, last=0.1, steps=2)
    >>> for epoch in range(3):
    ...     print(round(float(loss.gamma), 3))
    ...     schedule.step()
    10.0
    1.0
    0.1
    """

    def __init__(self, loss: Any, first: float, last: float, steps: int) -> None:
        for name, value in (("first", first), ("last", last)):
            if not 0 < value < INF:
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.loss, self.first, self.last, self.steps = loss, first, last, steps
        self.done = 0
        self.loss.gamma = first

    def step(self) -> None:
        """The next gamma."""
        self.done = min(self.done + 1, self.steps)
        self.loss.gamma = self.first * (self.last / self.first) ** (self.done / self.steps)

    def state_dict(self) -> dict[str, int]:
        """Steps done so far."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where another one stopped."""
        self.done = state["done"] - 1
        self.step()
