r"""Labels from CTC log-probabilities: the best path, and prefix beam search with an n-gram or any other scorer.

A path has one class in each frame. Without repetitions, then without blanks, it is a labelling :math:`\ell`, whose
probability :math:`p(\ell)` is the sum over all its paths: what `CTCLoss` makes large.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import _checks
from ._ops import ops

Scorer = Callable[[tuple[int, ...], int], float]


class GreedyHypothesis(NamedTuple):
    """Labelling of the most probable path.

    Attributes
    ----------
    labels : Tensor
        (L,) int64.
    score : float
        Log-probability of the path.
    spans : Tensor
        (L, 2) int64: the frames [first, end) in which a label is the most probable class.
    """

    labels: Tensor
    score: float
    spans: Tensor


class BeamHypothesis(NamedTuple):
    r"""A labelling that a beam search has found.

    Attributes
    ----------
    labels : Tensor
        (L,) int64.
    score : float
        What hypotheses are ranked by: log_prob + scorer_weight * (the scorer's sum) + length_bonus * L.
    log_prob : float
        :math:`\log p(\ell)` over the paths that the beam has kept: a lower bound, exact for a beam that is wide enough.
    """

    labels: Tensor
    score: float
    log_prob: float


# ---------------------------------------------------------------- decoders


def ctc_greedy_decode(
    log_probs: Tensor, input_lengths: Tensor | Sequence[int] | int | None = None, *, blank: int = 0
) -> Any:
    r"""Labelling of the most probable path of each item.

    .. math:: \hat\pi_t = \arg\max_c y_{t,c}, \qquad \text{score} = \sum_t y_{t,\hat\pi_t}

    of log_probs y, with repetitions, then blanks taken out. Of equal classes in a frame the first counts.

    Parameters
    ----------
    log_probs : Tensor
        (T, B, C) or (T, C) logarithms of probabilities, as for `torch.nn.CTCLoss`; float32 or float64 (float16 and
        bfloat16 are computed in float32). C >= 1; T may be 0.
    input_lengths : Tensor or sequence of ints or int, optional
        (B,) integers in [0, T] (for (T, C) also one integer): item b uses its first input_lengths[b] frames. Default:
        T.
    blank : int, default 0
        Index of the blank in [0, C).

    Returns
    -------
    list of GreedyHypothesis
        One for each item; for (T, C) a `GreedyHypothesis` itself. No frames: no labels, score 0. A frame in which each
        class has log-probability -inf: no labels, score -inf. A NaN or +inf among an item's frames: no labels, score
        NaN. Not differentiable.

    Raises
    ------
    ValueError
        For shapes, lengths or a blank out of range.
    TypeError
        For other dtypes.

    References
    ----------
    Graves, Fernandez, Gomez and Schmidhuber, "Connectionist Temporal Classification", ICML 2006, section 3.2.

    Examples
    --------
    >>> import torch, torch_dalign as dalign
    >>> probabilities = torch.tensor([[0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2], [0.2, 0.1, 0.7]])
    >>> found = dalign.ctc_greedy_decode(probabilities.log())
    >>> found.labels, found.spans.tolist()
    (tensor([1, 2]), [[0, 2], [3, 4]])
    """
    problem = _problem(log_probs, input_lengths, blank)
    labels, spans, lengths, scores = ops.ctc_greedy_decode(*problem.arguments)
    found = [
        GreedyHypothesis(labels[b, :length].clone(), score, spans[b, :length].clone())
        for b, (length, score) in enumerate(zip(lengths.tolist(), scores.tolist(), strict=True))
    ]
    return found if problem.batched else found[0]


def ctc_beam_decode(
    log_probs: Tensor,
    input_lengths: Tensor | Sequence[int] | int | None = None,
    *,
    blank: int = 0,
    beam_width: int = 100,
    top_k: int = 1,
    scorer: NGram | Scorer | None = None,
    scorer_weight: float = 1.0,
    length_bonus: float = 0.0,
    token_threshold: float = math.inf,
) -> Any:
    r"""The best labellings of each item by prefix beam search.

    .. math::
        \text{score}(\ell) = \log p(\ell)
            + \alpha \Big(\sum_k \log s(\ell_k \mid \ell_1 \dots \ell_{k-1}) + \log s(\text{end} \mid \ell)\Big)
            + \beta |\ell|

    with a scorer s, :math:`\alpha` = scorer_weight, :math:`\beta` = length_bonus. After each frame the beam_width
    prefixes of the largest scores (without the end) are kept, each once, with the probabilities of all paths to it that
    came through kept prefixes. With a beam as wide as there are labellings the result is exact.

    Parameters
    ----------
    log_probs, input_lengths, blank
        As in `ctc_greedy_decode`.
    beam_width : int, default 100
        Prefixes that are kept, at least 1.
    top_k : int, default 1
        Hypotheses that are given back, at least 1.
    scorer : NGram or callable, optional
        An `NGram` is evaluated in C. A callable gets a prefix and the label after it, ``scorer(prefix, label)`` with a
        tuple of ints and an int, and returns a log-probability <= 0 (-inf rules the label out); it may have a method
        ``end(prefix)`` for the end. It is called once for each prefix and label that could be kept, item by item.
    scorer_weight : float, default 1
        :math:`\alpha \ge 0`; with 0 the scorer is not used.
    length_bonus : float, default 0
        :math:`\beta`, per label: makes up for a scorer, which prefers short labellings.
    token_threshold : float, default inf
        A class whose log-probability is less than the frame's largest minus this number extends no prefix in this
        frame. Finite values (10 is usual) are faster and no longer exact.

    Returns
    -------
    list of lists of BeamHypothesis
        For each item at most top_k hypotheses, the best first, at least one; for (T, C) the item's list itself. Equal
        scores are ranked by the order in the frame before, a prefix before its extensions, then by label. No frames:
        the empty labelling alone, with log_prob 0. No labelling of positive probability: no labels, score -inf. A NaN
        or +inf among an item's frames: no labels, score NaN. Not differentiable.

    Raises
    ------
    ValueError
        For shapes, lengths or options out of range, or an answer of the scorer that is no log-probability.
    TypeError
        For other types.

    Notes
    -----
    Prefixes and their probabilities are computed in float64, items in parallel, with the same result for any number of
    threads. The time grows with T * beam_width * log(beam_width) and T * C; a callable is called from Python, which
    costs more than all the rest.

    References
    ----------
    Graves, "Supervised Sequence Labelling with Recurrent Neural Networks", 2012, section 7.5. Hannun, Maas, Jurafsky
    and Ng, "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014.

    Examples
    --------
    The best path is blank in both frames (.5 * .6 = .30), but three paths give one label 1 (.12 + .24 + .15 = .51):

    >>> import torch, torch_dalign as dalign
    >>> log_probs = torch.tensor([[0.5, 0.4, 0.1], [0.6, 0.3, 0.1]]).log()
    >>> best, second = dalign.ctc_beam_decode(log_probs, top_k=2)
    >>> best.labels, round(best.score, 4), second.labels, round(second.score, 4)
    (tensor([1]), -0.6733, tensor([], dtype=torch.int64), -1.204)

    A scorer for which there is no 1:

    >>> def scorer(prefix, label):
    ...     return float("-inf") if label == 1 else -1.0
    >>> dalign.ctc_beam_decode(log_probs, scorer=scorer)[0].labels
    tensor([], dtype=torch.int64)
    """
    problem = _problem(log_probs, input_lengths, blank)
    width = _count(beam_width, "beam_width")
    top = min(_count(top_k, "top_k"), width)
    weight = _number(scorer_weight, "scorer_weight", 0.0)
    bonus = _number(length_bonus, "length_bonus", -math.inf)
    threshold = _threshold(token_threshold)
    _check_scorer(scorer, problem.log_probs.shape[2])
    options = width, top, threshold, weight, bonus
    if scorer is None or weight == 0 or isinstance(scorer, NGram):
        model = scorer if isinstance(scorer, NGram) and weight > 0 else None
        arrays, contexts = ([], 0) if model is None else (model.arrays, model.contexts)
        results = _hypotheses(*ops.ctc_beam_decode(*problem.arguments, *options, arrays, contexts))
    else:
        asked = _Asked(scorer)
        results = [_search(problem.item(b), options, asked) for b in range(problem.log_probs.shape[1])]
    return results if problem.batched else results[0]


def _hypotheses(
    labels: Tensor, lengths: Tensor, log_probs: Tensor, scores: Tensor, found: Tensor
) -> list[list[BeamHypothesis]]:
    """Lists of what the op gives padded."""
    return [
        [
            BeamHypothesis(labels[b, k, :length].clone(), score, log_prob)
            for k, (length, score, log_prob) in enumerate(zip(*rows, strict=True))
            if k < count
        ]
        for b, (count, *rows) in enumerate(
            zip(found.tolist(), lengths.tolist(), scores.tolist(), log_probs.tolist(), strict=True)
        )
    ]


# ---------------------------------------------------------------- callable scorers


class _Asked:
    """A callable scorer that is asked once for each prefix and label; the label None is the end."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.end: Callable[[tuple[int, ...]], float] | None = getattr(scorer, "end", None)
        self.known: dict[tuple[tuple[int, ...], int | None], float] = {}

    def __call__(self, prefix: tuple[int, ...], label: int | None) -> float:
        key = prefix, label
        if key not in self.known:
            self.known[key] = self._ask(prefix, label)
        return self.known[key]

    def _ask(self, prefix: tuple[int, ...], label: int | None) -> float:
        if label is None:
            answer = 0.0 if self.end is None else float(self.end(prefix))
        else:
            answer = float(self.scorer(prefix, label))
        if not answer <= 0:
            what = f"scorer.end({prefix})" if label is None else f"scorer({prefix}, {label})"
            raise ValueError(f"{what} must be a log-probability <= 0, got {answer}")
        return answer


def _search(problem: _Problem, options: tuple[int, int, float, float, float], scorer: _Asked) -> list[BeamHypothesis]:
    """One item: the search in C stops and asks, frame by frame, what it does not know yet."""
    classes = problem.log_probs.shape[2]
    state, *results = ops.ctc_beam_open(*problem.arguments, *options)
    answers = torch.empty(0, dtype=torch.float64)
    while True:
        rows, labels, padded, lengths = ops.ctc_beam_step(*problem.arguments, *options, state, *results, answers)
        if not len(rows):
            return _hypotheses(*results)[0]
        prefixes = [tuple(row[:length]) for row, length in zip(padded.tolist(), lengths.tolist(), strict=True)]
        pairs = zip(rows.tolist(), labels.tolist(), strict=True)
        found = [scorer(prefixes[row], label if label < classes else None) for row, label in pairs]
        answers = torch.tensor(found, dtype=torch.float64)


# ---------------------------------------------------------------- n-gram models


class NGram:
    r"""An n-gram model of label sequences, with interpolated Witten-Bell smoothing.

    .. math::
        p(c \mid h) = \frac{\#(h c) + \tau(h)\, p(c \mid h')}{\#(h) + \tau(h)}, \qquad p(c \mid \cdot) = 1 / C

    where :math:`\#` counts in the training sequences, :math:`\tau(h)` is the number of different symbols seen after h,
    and h' is h without its oldest label. Histories have at most order - 1 symbols; a start symbol stands before
    each sequence, and the end of a sequence is a symbol that is predicted too.

    Parameters
    ----------
    classes : int
        C, the size of the network's last dimension, the blank among them: each of the other labels and the end have
        1 / C before anything was seen.
    order : int, default 5
        Length of the longest n-gram, at least 1.

    Attributes
    ----------
    arrays : list of Tensor
        The model as C reads it (see dalign_ngram in csrc/dalign.h): a trie of the n-grams seen, level by level.
    contexts : int
        Number of nodes that serve as history.

    References
    ----------
    Witten and Bell, "The Zero-Frequency Problem", 1991; in the interpolated form of Chen and Goodman, "An Empirical
    Study of Smoothing Techniques for Language Modeling", 1998.

    Examples
    --------
    >>> import torch_dalign as dalign
    >>> model = dalign.NGram(classes=4, order=2).fit([[1, 2, 1, 2], [1, 2, 3]])
    >>> after_one = [model((1,), label) for label in (1, 2, 3)]
    >>> after_one.index(max(after_one))
    1
    """

    def __init__(self, classes: int, order: int = 5) -> None:
        self.classes = _count(classes, "classes")
        self.order = _count(order, "order")
        self._set(_count_ngrams([], self.classes, self.order))

    def __repr__(self) -> str:
        return f"NGram(classes={self.classes}, order={self.order}, nodes={len(self.arrays[1])})"

    def fit(self, sequences: Iterable[Tensor | Sequence[int]]) -> NGram:
        """Count the n-grams of these sequences; what was counted before is forgotten.

        Parameters
        ----------
        sequences : iterable of Tensor or sequence of ints
            Each (L,) labels in [0, classes).

        Returns
        -------
        NGram
            Itself.
        """
        rows = [_label_row(row, f"sequences[{k}]", self.classes) for k, row in enumerate(sequences)]
        self._set(_count_ngrams(rows, self.classes, self.order))
        return self

    def __call__(self, prefix: Sequence[int], label: int) -> float:
        """Log-probability of a label after a prefix, which is the beginning of a sequence."""
        return float(self.log_probs([*prefix, label])[-2])

    def end(self, prefix: Sequence[int]) -> float:
        """Log-probability that a sequence ends after this prefix."""
        return float(self.log_probs(prefix)[-1])

    def log_probs(self, sequence: Tensor | Sequence[int]) -> Tensor:
        """Log-probability of each label after those before it, and of the end.

        Parameters
        ----------
        sequence : Tensor or sequence of ints
            (L,) labels in [0, classes).

        Returns
        -------
        Tensor
            (L + 1,) float64; the sum is the log-probability of the whole sequence.
        """
        row = torch.from_numpy(_label_row(sequence, "sequence", self.classes))
        return ops.ngram_log_probs(row, self.arrays, self.classes, self.contexts)

    def state_dict(self) -> dict[str, Any]:
        """Everything, in tensors and numbers: for torch.save, and torch.load with weights_only=True."""
        numbers_ = {"classes": self.classes, "order": self.order, "contexts": self.contexts}
        return {**numbers_, **dict(zip(_ARRAYS, self.arrays, strict=True))}

    def load_state_dict(self, state: dict[str, Any]) -> NGram:
        """Become the model that a state_dict was taken from.

        Raises
        ------
        ValueError
            If something is missing, or the arrays are no n-gram model.
        """
        missing = sorted({"classes", "order", "contexts", *_ARRAYS} - set(state))
        if missing:
            raise ValueError(f"state must have the keys of NGram.state_dict(), {', '.join(missing)} missing")
        arrays = [state[name].clone() for name in _ARRAYS]
        classes, contexts = int(state["classes"]), int(state["contexts"])
        try:
            ops.ngram_log_probs(torch.empty(0, dtype=torch.int64), arrays, classes, contexts)
        except RuntimeError as error:
            raise ValueError(f"state is no n-gram model: {error}") from error
        self.classes, self.order, self.contexts, self.arrays = classes, int(state["order"]), contexts, arrays
        return self

    def _set(self, counted: tuple[list[Tensor], int]) -> None:
        self.arrays, self.contexts = counted


_ARRAYS = ("first", "label", "suffix", "share", "backoff")


def _label_row(row: object, name: str, classes: int) -> np.ndarray:
    """Labels (L,) as int64."""
    values = row.detach().cpu().numpy() if isinstance(row, Tensor) else np.asarray(row)
    if values.size == 0:
        values = values.astype(np.int64)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise TypeError(f"{name} must be a row of integer labels, got {values.dtype} of shape {values.shape}")
    wrong = values[(values < 0) | (values >= classes)]
    if wrong.size:
        raise ValueError(f"{name} must hold labels in [0, {classes}), got {wrong[0]}")
    return values.astype(np.int64)


def _count_ngrams(rows: list[np.ndarray], classes: int, order: int) -> tuple[list[Tensor], int]:
    """The trie of all n-grams of the sequences between their start and end symbols, and the number of its contexts."""
    end, start = classes, classes + 1
    text = np.concatenate([np.concatenate([[start], row, [end]]) for row in rows] or [np.zeros(0, np.int64)])
    begins = text == start
    place = np.arange(len(text)) - np.maximum.accumulate(np.where(begins, np.arange(len(text)), 0))  # in its sequence
    # of_level[k][i]: the node of the n-gram of k symbols that ends at i
    shorter, above = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64)
    levels = [(np.full(1, -1), np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))]
    first_node, contexts = 1, 1
    for size in range(1, order + 1):
        whole = place >= size - 1
        history = np.concatenate([[0], above[:-1]]) if size > 1 else np.zeros(len(text), np.int64)
        keys, seen, which, counts = np.unique(
            (history * (classes + 2) + text)[whole], return_index=True, return_inverse=True, return_counts=True
        )
        below = np.full(len(text), -1)
        below[whole] = first_node + which
        parent, label = np.divmod(keys, classes + 2)
        levels.append((parent, label, above[whole][seen] if size > 1 else shorter[whole][seen], counts))
        contexts = first_node
        first_node += len(keys)
        above = below
    parent, label, suffix, counts = (np.concatenate(column) for column in zip(*levels, strict=True))
    return _probabilities(parent, label, suffix, np.where(label == start, 0, counts), first_node), contexts


def _probabilities(
    parent: np.ndarray, label: np.ndarray, suffix: np.ndarray, counts: np.ndarray, nodes: int
) -> list[Tensor]:
    """share and backoff by Witten and Bell, with the links as the C library reads them."""
    total, different = np.zeros(nodes), np.zeros(nodes)
    np.add.at(total, parent[1:], counts[1:])
    np.add.at(different, parent[1:], counts[1:] > 0)
    mass = np.maximum(total + different, 1)
    share = np.concatenate([[0.0], counts[1:] / mass[parent[1:]]])
    backoff = np.where(total > 0, different / mass, 1.0)
    first = 1 + np.concatenate([[0], np.cumsum(np.bincount(parent[1:], minlength=nodes))])
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in (first, label, suffix, share, backoff)]


# ---------------------------------------------------------------- checks


class _Problem(NamedTuple):
    """Checked log-probabilities (T, B, C), lengths (B,) or None, the blank, and whether there was a batch."""

    log_probs: Tensor
    input_lengths: Tensor | None
    blank: int
    batched: bool

    @property
    def arguments(self) -> tuple[Tensor, Tensor | None, int]:
        """What every op takes first."""
        return self.log_probs, self.input_lengths, self.blank

    def item(self, b: int) -> _Problem:
        """One item as a batch of its own."""
        lengths = None if self.input_lengths is None else self.input_lengths[b : b + 1]
        return self._replace(log_probs=self.log_probs[:, b : b + 1].contiguous(), input_lengths=lengths)


def _problem(log_probs: object, input_lengths: object, blank: object) -> _Problem:
    checked = _checks.real(log_probs, "log_probs").detach()
    if checked.dim() not in (2, 3) or checked.shape[-1] == 0:
        raise ValueError(f"log_probs must have shape (T, B, C) or (T, C) with C >= 1, got {tuple(checked.shape)}")
    batched = checked.dim() == 3
    if not batched:
        checked = checked[:, None]
    frames, batch, classes = checked.shape
    if isinstance(blank, bool) or not isinstance(blank, numbers.Integral):
        raise TypeError(f"blank must be an int, got {type(blank).__name__}")
    if not 0 <= int(blank) < classes:
        raise ValueError(f"blank must be in [0, {classes}), got {blank}")
    return _Problem(checked, _input_lengths(input_lengths, batch, frames, batched), int(blank), batched)


def _input_lengths(value: object, batch: int, frames: int, batched: bool) -> Tensor | None:
    """Lengths (B,) in [0, T] as int64 on the CPU, or None."""
    if value is None:
        return None
    try:
        lengths = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"input_lengths must be integers, got {value!r}") from error
    if lengths.numel() and (lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool):
        raise TypeError(f"input_lengths must be integers, got {lengths.dtype}")
    if not batched and lengths.dim() == 0:
        lengths = lengths[None]
    if tuple(lengths.shape) != (batch,):
        raise ValueError(f"input_lengths must have shape ({batch},), one per item, got {tuple(lengths.shape)}")
    lengths = lengths.to("cpu", torch.int64)
    wrong = (lengths < 0) | (lengths > frames)
    if wrong.any():
        b = int(wrong.nonzero()[0])
        raise ValueError(f"input_lengths[{b}] = {int(lengths[b])} is outside [0, {frames}]")
    return lengths


def _count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if not 1 <= int(value) < 2**31:
        raise ValueError(f"{name} must be at least 1 and less than 2**31, got {value}")
    return int(value)


def _real(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return _checks.as_float(value)


def _number(value: object, name: str, low: float) -> float:
    number = _real(value, name)
    if not (math.isfinite(number) and number >= low):
        raise ValueError(f"{name} must be finite{' and >= 0' if low == 0 else ''}, got {value}")
    return number


def _threshold(value: object) -> float:
    number = _real(value, "token_threshold")
    if not number >= 0:
        raise ValueError(f"token_threshold must be >= 0, got {value}")
    return number


def _check_scorer(scorer: object, classes: int) -> None:
    if isinstance(scorer, NGram):
        if scorer.classes != classes:
            raise ValueError(f"scorer is a model of {scorer.classes} classes, log_probs has {classes}")
    elif scorer is not None and not callable(scorer):
        raise TypeError(f"scorer must be an NGram or a callable (prefix, label), got {type(scorer).__name__}")
