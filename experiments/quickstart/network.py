"""A small convolutional network from constant-Q features to the probabilities of the pitch classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_BINS = 216
"""Six octaves of 36 bins: three per semitone."""

N_SEMITONES = 72

N_CLASSES = 12


class PitchClassNet(nn.Module):
    """Probabilities of the 12 pitch classes at every frame; 2,423 parameters.

    Shapes: (B, N, 216) to (B, N, 12). The stride in frequency leaves one row per semitone. The last layer slides one
    61-semitone filter to 12 positions, so each class looks at its own five octaves through the same weights.

    Parameters
    ----------
    has_blank : bool, default False
        Add the blank of CTC as the first of 13 outputs, by 73 more parameters (as in the dDTW paper's Table V).
    single_label : bool, default False
        The outputs exclude each other: softmax in place of a sigmoid each.
    """

    def __init__(self, has_blank: bool = False, single_label: bool = False) -> None:
        super().__init__()
        self.has_blank, self.single_label = has_blank, single_label
        self.normalise = nn.LayerNorm(N_BINS)
        self.to_semitones = nn.Conv2d(1, 8, (5, 5), stride=(1, 3), padding=(2, 1))
        self.refine = nn.Conv2d(8, 8, (3, 3), padding=1)
        self.overtones = nn.Conv2d(8, 8, (1, 13), padding=(0, 6))
        self.context = nn.Conv2d(8, 4, (9, 1), padding=(4, 0))
        self.mix = nn.Conv2d(4, 1, 1)
        self.to_classes = nn.Conv2d(1, 1, (1, 61))
        self.activation = nn.LeakyReLU(0.2)
        self.to_blank = nn.Linear(N_SEMITONES, 1) if has_blank else None  # last, so that the others start as ever

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.normalise(features).unsqueeze(1)
        hidden = self.activation(self.to_semitones(hidden))
        hidden = hidden + self.activation(self.refine(hidden))
        hidden = self.activation(self.overtones(hidden))
        hidden = self.activation(self.context(hidden))
        hidden = self.activation(self.mix(hidden))
        logits = self.to_classes(hidden).squeeze(1)
        if self.to_blank is not None:
            logits = torch.cat((self.to_blank(hidden.squeeze(1)), logits), 2)
        return logits.softmax(2) if self.single_label else torch.sigmoid(logits)

    def without_blank(self, probabilities: Tensor) -> Tensor:
        """Probabilities (..., 12) of the pitch classes: without the blank, and given that it is none."""
        if not self.has_blank:
            return probabilities
        classes = probabilities[..., 1:]  # of sets of pitch classes they are given this already
        return classes / classes.sum(-1, keepdim=True).clamp(min=1e-12) if self.single_label else classes
