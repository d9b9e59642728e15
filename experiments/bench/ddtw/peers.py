"""What is compared, behind one face: a peer solves the problems that it offers, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from .. import antidiagonal
from ..packages import OwnPackage, Package
from ..softdtw import peers as softdtw
from ..softdtw.peers import Outcome, differentiate
from . import problems
from .plain import by_autograd
from .problems import CTC, DDTW, DDTW_CTC, LOSSES, SOFT_DTW, Case, Inputs
from .settings import SDTW_E, SETTINGS

PLAIN = "plain PyTorch"
AUTOGRAD = "plain PyTorch, autograd"
ANTI_DIAGONALS = "plain PyTorch, autograd, anti-diagonals"
TORCH_CTC = "torch ctc_loss"


class Peer(Package):
    """One implementation."""

    def offers(self, task: str) -> bool:
        """Tell whether it has this loss, or the lattice of this setting."""
        raise NotImplementedError

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        """Return the call that is timed."""
        raise NotImplementedError


class Dalign(OwnPackage, Peer):
    """Our own package."""

    def offers(self, task: str) -> bool:
        return True

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        loss = self._lattice(case, given) if case.task in SETTINGS else self._loss(case, given)
        return lambda: differentiate(loss, (given.x,), backward=True)

    def _lattice(self, case: Case, given: Inputs) -> Callable[[Tensor], Tensor]:
        setting, ddtw = SETTINGS[case.task], self.dalign.functional.ddtw
        weights = setting.weights(given.targets)
        ends = (1, setting.sides)
        options = {"steps": setting.steps, "smoothing": setting.smoothing, "start": ends, "end": ends}
        return lambda cost: ddtw(cost, step_weights=None if weights is None else weights[:, None], **options)

    def _loss(self, case: Case, given: Inputs) -> Callable[[Tensor], Tensor]:
        if case.task == CTC:
            ours = self.dalign.CTCLoss(reduction="none", from_logits=True)
            return lambda logits: ours(logits.transpose(0, 1), given.targets, *_lengths(case))
        if case.task == DDTW_CTC:
            ours = self.dalign.presets.ddtw("CTC-A", reduction="none")
            return lambda logits: ours(logits.log_softmax(2), given.targets)
        if case.task == DDTW:
            ours = self.dalign.presets.ddtw("SDTW-E", reduction="none")
        else:
            ours = self.dalign.SoftDTW(reduction="none")
        return lambda x: ours(x, given.targets)


class PlainTorch(Peer):
    """The waves of this folder, with a backward pass written by hand."""

    name = PLAIN

    def offers(self, task: str) -> bool:
        return True

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        return lambda: problems.plain_outcome(case, given)


class Autograd(Peer):
    """Row by row with autograd."""

    name = AUTOGRAD

    def offers(self, task: str) -> bool:
        return task in SETTINGS and by_autograd(SETTINGS[task]) is not None

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        setting = SETTINGS[case.task]
        weights, value = setting.weights(given.targets), by_autograd(setting)
        assert value is not None
        return lambda: differentiate(lambda cost: value(cost, weights), (given.x,), backward=True)


class AntiDiagonals(Peer):
    """Soft-DTW's lattice with autograd, which has fewer operations along anti-diagonals than in rows."""

    name = ANTI_DIAGONALS

    def offers(self, task: str) -> bool:
        return task == SDTW_E.name

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        return lambda: differentiate(lambda cost: antidiagonal.soft_dtw(cost, 1.0), (given.x,), backward=True)


class TorchCTC(Peer):
    """PyTorch's own CTC loss."""

    name = TORCH_CTC
    distribution = "torch"

    def offers(self, task: str) -> bool:
        return task == CTC

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        def loss(logits: Tensor) -> Tensor:
            log_probs = logits.log_softmax(2).transpose(0, 1)
            return ctc_loss(log_probs, given.targets, *_lengths(case), reduction="none")

        return lambda: differentiate(loss, (given.x,), backward=True)


class Pysdtw(Peer):
    """pysdtw on the CPU (Numba): a successor of the package that the paper's table measures."""

    name = "pysdtw"
    distribution = "pysdtw"
    computes = "float64, rounded to float32"

    def load(self) -> None:
        self._peer = softdtw.Pysdtw()
        self._peer.load()

    def offers(self, task: str) -> bool:
        return task == SOFT_DTW

    def call(self, case: Case, given: Inputs) -> Callable[[], Outcome]:
        return lambda: self._of_x(self._peer.from_features(given.x, given.targets, 1.0, backward=True))

    @staticmethod
    def _of_x(outcome: Outcome) -> Outcome:
        return Outcome(outcome.value, outcome.gradients[:1])


def _lengths(case: Case) -> tuple[Tensor, Tensor]:
    return torch.full((case.batch,), case.length), torch.full((case.batch,), case.columns)


ALL: tuple[type[Peer], ...] = (Dalign, PlainTorch, Autograd, AntiDiagonals, TorchCTC, Pysdtw)
assert set(LOSSES).isdisjoint(SETTINGS)
