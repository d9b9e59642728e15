"""From probabilities to label sequences. A network without a blank gets one that is never likely."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

import torch_dalign as dalign
from experiments.data.themes import REST
from experiments.ddtw.metrics import Floats

BEAM_WIDTH = 10
"""As in the paper's code."""


def greedy(predictions: Sequence[Floats], blank: bool) -> list[list[int]]:
    """The most likely class of each frame, without repetitions, then without blanks.

    Parameters
    ----------
    predictions : sequence of (N, 13) or (N, 12) floats
        Log-probabilities, the blank last.
    blank : bool
        Tell whether there is one.
    """
    found = dalign.ctc_greedy_decode(*_padded(predictions, blank), blank=REST)
    return [hypothesis.labels.tolist() for hypothesis in found]


def beam(predictions: Sequence[Floats], blank: bool) -> list[list[int]]:
    """The most likely label sequence by prefix beam search, all paths of a sequence taken together."""
    found = dalign.ctc_beam_decode(*_padded(predictions, blank), blank=REST, beam_width=BEAM_WIDTH)
    return [hypotheses[0].labels.tolist() for hypotheses in found]


def _padded(predictions: Sequence[Floats], blank: bool) -> tuple[torch.Tensor, torch.Tensor]:
    never = np.full((1, 0 if blank else 1), -np.inf)
    tensors = [torch.as_tensor(np.hstack([one, never.repeat(len(one), axis=0)])).double() for one in predictions]
    return pad_sequence(tensors), torch.tensor([len(tensor) for tensor in tensors])
