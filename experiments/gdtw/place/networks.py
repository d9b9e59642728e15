"""From frames to descriptors of unit length: a small CNN or VGG-16, and NetVLAD behind it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG16_PLAN = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""Channels of the convolutions, 0 for pooling; the last pooling is left out, as before NetVLAD it is usual."""
VGG16_CONV5 = 24
"""The index in `features` from which it is tuned on sequences."""
COLOURS = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
"""Of ImageNet's colours."""


class SmallCNN(nn.Module):
    """Five convolutions; frames (B, 3, H, W) to (B, C, H / 8, W / 8).

    Parameters
    ----------
    channels : three ints
        Of the first, of the two middle and of the last two convolutions.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        first, middle, last = channels
        self.lower = nn.Sequential(_block(3, first, 2), _block(first, middle, 2), _block(middle, middle, 1))
        self.upper = nn.Sequential(_block(middle, last, 2), nn.Conv2d(last, last, 3, padding=1))
        self.channels = last


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class VGG16(nn.Module):
    """The convolutions of VGG-16 (configuration D), up to the last one; (B, 3, H, W) to (B, 512, H / 16, W / 16).

    Its state_dict has the names that torchvision's has: "features.0.weight" to "features.28.bias".
    """

    def __init__(self) -> None:
        super().__init__()
        layers, inputs = list[nn.Module](), 3
        for outputs in VGG16_PLAN:
            if outputs:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.channels = inputs

    @property
    def lower(self) -> nn.Sequential:
        """Up to the pooling before conv5."""
        return nn.Sequential(*list(self.features)[:VGG16_CONV5])

    @property
    def upper(self) -> nn.Sequential:
        """conv5."""
        return nn.Sequential(*list(self.features)[VGG16_CONV5:])


def load_vgg16(path: Path) -> VGG16:
    """VGG-16 with weights from a file of torchvision (vgg16-*.pth); its classifier is not used."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    network = VGG16()
    network.load_state_dict({name: values for name, values in state.items() if name.startswith("features.")})
    return network


class NetVLAD(nn.Module):
    r"""Sums of residuals to learned cluster centres, (B, C, H, W) to (B, K C), of unit length.

    .. math:: V_k = \sum_p a_{pk} (x_p - c_k), \qquad a_p = \mathrm{softmax}_k (w_k^\top x_p + b_k)

    with local descriptors x of unit length; each :math:`V_k` is divided by its norm, then all of V by its own.

    Parameters
    ----------
    channels, clusters : int
        C and K.

    References
    ----------
    Arandjelovic, Gronat, Torii, Pajdla and Sivic, "NetVLAD: CNN architecture for weakly supervised place recognition",
    CVPR 2016.
    """

    def __init__(self, channels: int, clusters: int = 64) -> None:
        super().__init__()
        self.assign = nn.Conv2d(channels, clusters, 1)
        self.centres = nn.Parameter(torch.empty(clusters, channels))
        nn.init.uniform_(self.centres)

    def forward(self, maps: Tensor) -> Tensor:
        local = F.normalize(maps, dim=1)
        share = self.assign(local).flatten(2).softmax(dim=1)
        sums = share @ local.flatten(2).transpose(1, 2)
        residuals = sums - share.sum(dim=2, keepdim=True) * self.centres
        return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)

    @torch.no_grad()
    def start_from(self, maps: Tensor, seed: int) -> None:
        """Centres by k-means of local descriptors (B, C, H, W).

        The assignment follows them so softly that the nearest centre is a hundred times as likely as the next one on
        average, as the authors' code has it.
        """
        from sklearn.cluster import KMeans

        local = F.normalize(maps, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        found = KMeans(len(self.centres), n_init=1, random_state=seed).fit(local.double().numpy())
        centres = torch.from_numpy(found.cluster_centers_).float()
        nearest = (local @ F.normalize(centres, dim=1).T).topk(2, dim=1).values
        sharpness = 4.605 / float((nearest[:, 0] - nearest[:, 1]).mean().clamp(min=1e-4))  # log 100
        self.centres.copy_(centres)
        self.assign.weight.copy_(sharpness * F.normalize(centres, dim=1)[:, :, None, None])
        self.assign.bias.zero_()  # type: ignore[union-attr]


class Encoder(nn.Module):
    """Descriptors of frames, (..., 3, H, W) uint8 to (..., K C) float32.

    In `tuning` everything below the trunk's `upper` part stays as it is, and so do the statistics of normalisation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, trunk: SmallCNN | VGG16, clusters: int = 64) -> None:
        super().__init__()
        self.trunk, self.pool = trunk, NetVLAD(trunk.channels, clusters)
        for name, values in COLOURS.items():
            self.register_buffer(name, 255 * torch.tensor(values).view(3, 1, 1), persistent=False)
        self.tuning = False

    def maps(self, frames: Tensor) -> Tensor:
        """What NetVLAD sees, (B, C, h, w)."""
        colours = (frames.float() - self.mean) / self.deviation
        # Channels beside each other make the small convolutions faster on a CPU.
        colours = colours.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.tuning):
            lower = self.trunk.lower(colours)
        return self.trunk.upper(lower)

    def forward(self, frames: Tensor) -> Tensor:
        shape = frames.shape[:-3]
        return self.pool(self.maps(frames.flatten(0, -4))).unflatten(0, shape)

    def tuned(self) -> list[nn.Parameter]:
        """What is trained on sequences: the last convolutions and NetVLAD."""
        return [*self.trunk.upper.parameters(), *self.pool.parameters()]

    def train(self, mode: bool = True) -> Encoder:
        """Batch statistics are used, and learned, in contrastive training alone."""
        super().train(mode and not self.tuning)
        return self


def count(network: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in network.parameters())
