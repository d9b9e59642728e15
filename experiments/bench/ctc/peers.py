"""What is compared: ours from logits, ours behind log_softmax as a drop-in, and torch's ctc_loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from ..packages import OURS, OwnPackage, Package
from .problems import Inputs

DROP_IN = f"{OURS}, log_softmax apart"
TORCH = "torch ctc_loss"


class Peer(Package):
    """One implementation."""

    def loss(self, logits: Tensor, given: Inputs) -> Tensor:
        """Return the values (B,)."""
        raise NotImplementedError


class Dalign(OwnPackage, Peer):
    """Our own package, log-softmax fused."""

    def loss(self, logits: Tensor, given: Inputs) -> Tensor:
        return self.dalign.functional.ctc_loss(logits, *given[1:], reduction="none", from_logits=True)


class DropIn(OwnPackage, Peer):
    """Our own package with nothing changed but the import."""

    name = DROP_IN

    def loss(self, logits: Tensor, given: Inputs) -> Tensor:
        return self.dalign.functional.ctc_loss(logits.log_softmax(2), *given[1:], reduction="none")


class Torch(Peer):
    """torch's own."""

    name = TORCH
    distribution = "torch"

    def loss(self, logits: Tensor, given: Inputs) -> Tensor:
        return ctc_loss(logits.log_softmax(2), *given[1:], reduction="none")


ALL: tuple[type[Peer], ...] = (Dalign, DropIn, Torch)


def call(peer: Peer, task: str, given: Inputs) -> Callable[[], tuple[Tensor, ...]]:
    """Return the call that is timed: it gives values, and for the task "gradient" the gradient of their sum."""
    if task == "value":
        return torch.no_grad()(lambda: (peer.loss(given.logits, given),))

    def gradient() -> tuple[Tensor, ...]:
        logits = given.logits.detach().requires_grad_()
        values = peer.loss(logits, given)
        return values.detach(), *torch.autograd.grad(values.sum(), logits)

    return gradient
