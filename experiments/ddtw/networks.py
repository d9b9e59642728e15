"""The two convolutional networks of the paper, Tables II and V.

Both see a harmonic constant-Q transform and slide one filter over its bins, so that all twelve pitch classes are found
by the same weights. Both can have fewer channels than the paper's: the small scale does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

N_BINS = 216
N_HARMONICS = 6
N_CLASSES = 12
BINS_PER_SEMITONE = 3

THEME_CHANNELS = (64, 32, 32, 32, 8)
"""Table II."""

CHORD_CHANNELS = (20, 20, 10, 1)
"""Table V."""


class ThemeNet(nn.Module):
    """Scores of twelve pitch classes and of the blank for every frame; 73,036 numbers, of which 72,970 are trained.

    Shapes: magnitudes (B, 6, N, 216) to (B, N, 13), the blank last. What comes out are scores before the softmax.
    Names and shapes of the parameters are those of the paper's authors, so their files load.

    Parameters
    ----------
    channels : five ints
        Of the five convolutions over time and frequency.
    """

    def __init__(self, channels: tuple[int, ...] = THEME_CHANNELS) -> None:
        super().__init__()
        first, second, third, fourth, fifth = channels
        self.conv1 = nn.Conv2d(N_HARMONICS, first, 3, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.conv3 = nn.Conv2d(second, third, 3, padding=1)
        self.conv4 = nn.Conv2d(third, fourth, 3, padding=1)
        self.conv5 = WideConv2d(fourth, fifth, (3, 42))
        self.conv6 = nn.Conv2d(fifth, 1, 1)
        self.pool1 = _fixed(torch.ones(BINS_PER_SEMITONE), stride=BINS_PER_SEMITONE)
        # Five octaves above each of the lowest twelve semitones: 0, 12, ..., 60.
        self.pool2 = _fixed((torch.arange(61) % 12 == 0).float())
        self.convEps = nn.Conv2d(1, 1, (1, N_BINS))
        # A pitch class starts with the sum of 18 bins of about 1/2 (three for each of six octaves), a blank with about
        # 0: e^-9 as likely. CTC then pulls it up so fast that the sigmoids are dead before it stops, and the output
        # stays the same in all frames for good. So a blank starts as likely as a pitch class.
        nn.init.constant_(self.convEps.bias, N_BINS / N_CLASSES / 2)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        # By the squared norm, as the authors do: so a quiet frame comes out louder than a loud one.
        hidden = features / features.square().sum(dim=3, keepdim=True).clamp(min=1e-10)
        # Channels beside each other make the small convolutions up to three times faster on a CPU.
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            hidden = F.leaky_relu(layer(hidden))
        salience = torch.sigmoid(self.conv6(hidden))
        chroma = self.pool2(self.pool1(salience))
        return torch.cat([chroma, self.convEps(salience)], dim=3).squeeze(1)


def _fixed(weights: Tensor, stride: int = 1) -> nn.Conv2d:
    """A sum along frequency with weights that are not trained."""
    layer = nn.Conv2d(1, 1, (1, len(weights)), stride=(1, stride)).requires_grad_(False)
    layer.weight.copy_(weights.view(1, 1, 1, -1))
    layer.bias.zero_()  # type: ignore[union-attr]
    return layer


class WideConv2d(nn.Conv2d):
    """A convolution with a long kernel along frequency and few output channels, "same" padding.

    Eight neighbouring bins of the output are computed as channels of one convolution with stride 8, whose kernel holds
    eight copies of the filter, each one bin further: y[o, 8 q + r] = sum_k w[o, k - r] x[8 q + k]. Eight output
    channels leave a vector unit idle most of the time, 64 do not; forward and backward take a third of the time.
    """

    BLOCK = 8

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        time, frequency = (size - 1 for size in self.kernel_size)
        rest = -x.shape[3] % self.BLOCK
        padded = F.pad(x, (frequency // 2, frequency - frequency // 2 + rest, time // 2, time - time // 2))
        copies = [F.pad(self.weight, (shift, self.BLOCK - 1 - shift)) for shift in range(self.BLOCK)]
        weight = torch.stack(copies, dim=1).flatten(0, 1)
        bias = None if self.bias is None else self.bias.repeat_interleave(self.BLOCK)
        blocks = F.conv2d(padded, weight, bias, stride=(1, self.BLOCK)).unflatten(1, (-1, self.BLOCK))
        return blocks.permute(0, 1, 3, 4, 2).flatten(3)[..., : x.shape[3]]


class ChordNet(nn.Module):
    """Probabilities of twelve pitch classes, and of the blank where there is one; 48,315 parameters, or 48,388.

    Shapes: log(1 + 10 magnitude) (B, 6, N + 74, 216) to (B, N, 12), or to (B, N, 13) with the blank first. The 37
    frames of context on either side are used up by the convolution over 75 frames.

    Parameters
    ----------
    blank : bool
        Adds an output for the blank: a sum over all semitones.
    channels : four ints
        Of the first four convolutions.
    """

    CONTEXT = 37

    def __init__(self, blank: bool, channels: tuple[int, ...] = CHORD_CHANNELS) -> None:
        super().__init__()
        first, second, third, fourth = channels
        n_semitones = N_BINS // BINS_PER_SEMITONE
        self.normalise = nn.LayerNorm([N_HARMONICS, N_BINS])
        self.filters = nn.Conv2d(N_HARMONICS, first, 15, padding=7)
        self.to_semitones = nn.Conv2d(first, second, 3, stride=(1, BINS_PER_SEMITONE), padding=(1, 0))
        self.over_time = nn.Conv2d(second, third, (2 * self.CONTEXT + 1, 1))
        self.mix = nn.Conv2d(third, fourth, 1)
        self.to_classes = nn.Conv2d(fourth, 1, (1, n_semitones - N_CLASSES + 1))
        self.to_blank = nn.Conv2d(fourth, 1, (1, n_semitones)) if blank else None
        self.activation = nn.LeakyReLU(0.3)
        self.drop = nn.Dropout(0.2)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.normalise(features.transpose(1, 2)).transpose(1, 2).contiguous()
        hidden = self.activation(self.filters(hidden)).contiguous(memory_format=torch.channels_last)
        hidden = self.drop(F.max_pool2d(hidden, (3, 1), stride=1, padding=(1, 0)))
        hidden = self.activation(self.to_semitones(hidden))
        hidden = self.drop(F.max_pool2d(hidden, (13, 1), stride=1, padding=(6, 0)))
        hidden = self.drop(self.activation(self.over_time(hidden)))
        hidden = self.drop(self.activation(self.mix(hidden)))
        scores = self.to_classes(hidden)
        if self.to_blank is not None:
            scores = torch.cat([self.to_blank(hidden), scores], dim=3)
        return torch.sigmoid(scores).squeeze(1)


def outputs(network: nn.Module, features: Tensor) -> Tensor:
    """What a network gives, on the device of its input, wherever the network is: losses are computed there."""
    parameter = next(network.parameters(), features)
    return network(features.to(parameter.device)).to(features.device)


def count(network: nn.Module) -> int:
    """All numbers of a network, fixed ones included."""
    return sum(parameter.numel() for parameter in network.parameters())


def load_theme_net(path: Path) -> ThemeNet:
    """A network of Table II from a file of the paper's authors, or of ours with that many channels."""
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    network = ThemeNet()
    network.load_state_dict(state)
    return network.eval()
