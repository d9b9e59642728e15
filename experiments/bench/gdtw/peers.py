"""The GDTW implementations that are compared, behind one face."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..packages import OwnPackage, Package
from . import plain
from .problems import REG_WEIGHT, Floats, Pair

KERNEL, LAYER = "kernel", "layer"
QUALITIES = ("fast", "default", "thorough")


class Peer(Package):
    """One implementation of the optimal warp.

    Attributes
    ----------
    settings : tuple of str
        Trades of time for quality that it is measured with.
    order : int
        Time grows about as the length to this power; where runs are too long is predicted from shorter ones.
    """

    settings: ClassVar[tuple[str, ...]] = ("",)
    order: ClassVar[int] = 2

    def call(self, given: tuple[Tensor, Tensor], setting: str) -> Callable[[], Any]:
        """Return the call that is timed, for float32 signals (1, N, D)."""
        raise NotImplementedError

    def warp(self, outcome: Any) -> Floats:
        """Return the warp (N,) of what such a call gave."""
        return np.asarray(outcome, dtype=np.float64)


class Dalign(OwnPackage, Peer):
    """Our own package: the layer, or the kernel's op alone."""

    settings = QUALITIES

    def call(self, given: tuple[Tensor, Tensor], setting: str) -> Callable[[], Any]:
        return self.forward(given, setting, KERNEL)  # its warp is not rounded to float32

    def warp(self, outcome: Any) -> Floats:
        return np.asarray(outcome[0][0])

    def inference(self, given: tuple[Tensor, Tensor], quality: str) -> Callable[[], Any]:
        """Return the call of the layer without gradients."""
        layer = self.dalign.DecDTW(REG_WEIGHT, quality=quality)
        return lambda: layer(*given)

    def forward(self, given: tuple[Tensor, Tensor], quality: str, through: str) -> Callable[[], Any]:
        """Return the forward call, through the layer (which remembers what backward needs) or of the op alone."""
        if through == KERNEL:
            problem = self._problem(given, quality)
            return lambda: self._ops.gdtw(*problem)
        layer, leaves = self._layer(quality), _leaves(given)
        return lambda: layer(*leaves)

    def backward(self, given: tuple[Tensor, Tensor], quality: str, through: str) -> Callable[[], Any]:
        """Return the call that gives the derivatives in x, y and lambda."""
        layer, leaves = self._layer(quality), _leaves(given)
        phi = layer(*leaves)
        by_phi = torch.linspace(-1, 1, phi.numel(), dtype=phi.dtype).view_as(phi)
        if through == LAYER:
            wanted = (*leaves, layer.reg_weight)
            return lambda: torch.autograd.grad(phi, wanted, by_phi, retain_graph=True)
        problem = self._problem(given, quality)
        phi, objective, status, _, _, state = self._ops.gdtw(*problem)
        by_phi, by_objective = by_phi.double(), torch.zeros_like(objective)
        need = [1, 1, 0, 0, 1, 0, 0, 0, 0, 0]  # of x, y, two kinds of times, lambda, nominal slope, four bounds
        rest = (phi, objective, status, state, by_phi, by_objective, need)
        return lambda: self._ops.gdtw_backward(*problem, *rest)

    def _layer(self, quality: str) -> Any:
        return self.dalign.DecDTW(torch.nn.Parameter(torch.tensor(REG_WEIGHT)), quality=quality)

    def _problem(self, given: tuple[Tensor, Tensor], quality: str) -> list[Any]:
        """The arguments of the op, as the layer makes them."""
        from torch_dalign.gdtw import _Inputs

        made = self._layer(quality)._problem(_Inputs.checked(*given, None, None, None, None))
        return [part.detach() if isinstance(part, Tensor) else part for part in made]

    @property
    def _ops(self) -> Any:
        return torch.ops.dalign


def _leaves(given: tuple[Tensor, Tensor]) -> list[Tensor]:
    return [side.clone().requires_grad_() for side in given]


class Gdtw(Peer):
    """The package gdtw (C++ and NumPy), whose x is our y; its cumulative regulariser is switched off."""

    name = "gdtw"
    distribution = "gdtw"
    computes = "float64"
    settings = ("", "fine")  # as it comes; as many times as it allows, ten iterations
    order = 3

    def load(self) -> None:
        import gdtw

        self._solver = gdtw.GDTW

    def call(self, given: tuple[Tensor, Tensor], setting: str) -> Callable[[], Any]:
        pair = Pair.of(given)
        options: dict[str, Any] = {"lambda_cum": 0.0, "lambda_inst": REG_WEIGHT}
        if setting == "fine":
            options |= {"M": len(pair.x) - 1, "epsilon_abs": 0.0, "epsilon_rel": 0.0}
        signals = {"x": pair.y, "y": pair.x, "t": pair.times}
        return lambda: self._solver().set_params({**signals, **options}).run().tau


class Slsqp(Peer):
    """SciPy's SLSQP from the straight line, with the gradient; a local optimum."""

    name = "SciPy SLSQP"
    distribution = "scipy"
    computes = "float64"
    order = 4  # each iteration costs N^3, and there are more of them

    def load(self) -> None:
        from scipy import optimize

        self._optimize = optimize

    def call(self, given: tuple[Tensor, Tensor], setting: str) -> Callable[[], Any]:
        pair = Pair.of(given)
        return lambda: self._solve(pair)

    def _solve(self, pair: Pair) -> Floats:
        edges = np.diff(np.eye(len(pair.x)), axis=0)
        never_falls = self._optimize.LinearConstraint(edges, 0, np.inf)
        bounds = [(0.0, 0.0), *[(0.0, 1.0)] * (len(pair.x) - 2), (1.0, 1.0)]
        found = self._optimize.minimize(
            lambda phi: pair.objective(np.clip(phi, 0, 1)),
            pair.times,
            jac=lambda phi: pair.gradient(np.clip(phi, 0, 1)),
            method="SLSQP",
            bounds=bounds,
            constraints=[never_falls],
            options={"ftol": 1e-12, "maxiter": 300},
        )
        return np.maximum.accumulate(np.clip(found.x, 0, 1))  # its constraints hold to 1e-8 or so


class Numpy(Peer):
    """Dynamic programming as the paper describes it, in NumPy."""

    name = "NumPy lattice"
    distribution = "numpy"
    computes = "float64"
    order = 3

    def call(self, given: tuple[Tensor, Tensor], setting: str) -> Callable[[], Any]:
        pair = Pair.of(given)
        return lambda: plain.solve(pair)


ALL: Sequence[type[Peer]] = (Dalign, Gdtw, Slsqp, Numpy)
