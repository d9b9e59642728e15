"""The DTW implementations that are compared, behind one face.

A peer offers some of four calls, on inputs in the layout that it asks for: the value or the path of one pair, or of a
batch of pairs, from features or from a cost matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..packages import OwnPackage, Package


class Peer(Package):
    """One implementation.

    Attributes
    ----------
    metric : str
        Cost of two frames: "sqeuclidean" or "euclidean".
    takes_batches : bool
        True when one call takes several pairs.
    max_threads : int or None
        For single pairs and batches; matrices of all pairs are measured with as many threads as asked for.
    """

    metric = "sqeuclidean"
    takes_batches = False
    max_threads: int | None = 1

    def offers(self, task: str, source: str, batch: int) -> bool:
        """Tell whether there is a call for the task ("value" or "path") from "features" or "cost"."""
        name = f"{task}_from_{source}"
        return getattr(type(self), name) is not getattr(Peer, name) and (batch == 1 or self.takes_batches)

    def arrange(self, source: str, given: Sequence[Tensor]) -> Sequence[Any]:
        """Bring float32 features (B, N, D) and (B, M, D), or a cost (B, N, M), into this peer's layout."""
        return [part[0].numpy() for part in given]

    def value_from_features(self, x: Any, y: Any) -> Any:
        """Return the value: a number, or (B,)."""
        raise NotImplementedError

    def value_from_cost(self, cost: Any) -> Any:
        """Return the value: a number, or (B,)."""
        raise NotImplementedError

    def path_from_features(self, x: Any, y: Any) -> Any:
        """Return the cells of the path, an (L, 2) array or the like; of a batch a list of them."""
        raise NotImplementedError

    def path_from_cost(self, cost: Any) -> Any:
        """Return the cells of the path, an (L, 2) array or the like; of a batch a list of them."""
        raise NotImplementedError

    def all_pairs(self, series: Any, band: int | None, threads: int) -> Any:
        """Return the values of all pairs of univariate series: (n, n), at least above the diagonal."""
        raise NotImplementedError

    def arrange_series(self, series: Tensor) -> Any:
        """Bring float32 series (n, N) into the layout of `all_pairs`."""
        return series.double().numpy()


class Dalign(OwnPackage, Peer):
    """Our own package."""

    takes_batches = True
    max_threads = None

    def arrange(self, source: str, given: Sequence[Tensor]) -> Sequence[Any]:
        return given

    def value_from_features(self, x: Any, y: Any) -> Any:
        return self.dalign.dtw(x, y)

    def value_from_cost(self, cost: Any) -> Any:
        return self.dalign.functional.dtw(cost)

    def path_from_features(self, x: Any, y: Any) -> Any:
        return self.dalign.dtw_path(x, y)

    def path_from_cost(self, cost: Any) -> Any:
        return self.dalign.dtw_path(cost, metric="precomputed")

    def all_pairs(self, series: Any, band: int | None, threads: int) -> Any:
        return self.dalign.cdist_dtw(series, band=band)

    def arrange_series(self, series: Tensor) -> Any:
        return series


class Dtaidistance(Peer):
    """dtaidistance (C): float64 arrays; one call for D = 1, another for more features."""

    name = "dtaidistance"
    distribution = "dtaidistance"
    computes = "float64"

    def load(self) -> None:
        from dtaidistance import dtw, dtw_cc, dtw_ndim
        from threadpoolctl import threadpool_limits

        self._limits = threadpool_limits
        self._one, self._several = dtw, dtw_ndim
        self._library = dtw_cc  # without its C library there is nothing to compare with
        self._has_openmp = dtw.dtw_cc_omp is not None and dtw.dtw_cc_omp.is_openmp_supported()

    def arrange(self, source: str, given: Sequence[Tensor]) -> Sequence[Any]:
        parts = [part[0].double().numpy() for part in given]
        return [np.ascontiguousarray(part[:, 0]) for part in parts] if parts[0].shape[1] == 1 else parts

    def value_from_features(self, x: Any, y: Any) -> Any:
        return (self._one if x.ndim == 1 else self._several).distance_fast(x, y) ** 2

    def path_from_features(self, x: Any, y: Any) -> Any:
        return (self._one if x.ndim == 1 else self._several).warping_path(x, y, use_c=True)

    def all_pairs(self, series: Any, band: int | None, threads: int) -> Any:
        if threads > 1 and not self._has_openmp:
            raise RuntimeError("this dtaidistance was built without OpenMP")
        window = None if band is None else band + 1  # shifts smaller than the window
        with self._limits(threads, "openmp"):
            return self._one.distance_matrix_fast(series, window=window, parallel=threads > 1) ** 2


class Tslearn(Peer):
    """tslearn (Numba)."""

    name = "tslearn"
    distribution = "tslearn"
    computes = "float64"

    def load(self) -> None:
        from tslearn import metrics

        self._metrics = metrics

    def value_from_features(self, x: Any, y: Any) -> Any:
        return self._metrics.dtw(x, y) ** 2

    def value_from_cost(self, cost: Any) -> Any:
        return self._metrics.dtw_path_from_metric(cost, metric="precomputed")[1]

    def path_from_features(self, x: Any, y: Any) -> Any:
        return self._metrics.dtw_path(x, y)[0]

    def path_from_cost(self, cost: Any) -> Any:
        return self._metrics.dtw_path_from_metric(cost, metric="precomputed")[0]

    def all_pairs(self, series: Any, band: int | None, threads: int) -> Any:
        constraint = {} if band is None else {"global_constraint": "sakoe_chiba", "sakoe_chiba_radius": band}
        return self._metrics.cdist_dtw(series, n_jobs=threads, **constraint) ** 2


class Aeon(Peer):
    """aeon (Numba): features x frames."""

    name = "aeon"
    distribution = "aeon"
    computes = "float32 costs, float64 sums"

    def load(self) -> None:
        from aeon import distances

        self._distances = distances

    def arrange(self, source: str, given: Sequence[Tensor]) -> Sequence[Any]:
        return [np.ascontiguousarray(part[0].numpy().T) for part in given]

    def value_from_features(self, x: Any, y: Any) -> Any:
        return self._distances.dtw_distance(x, y)

    def path_from_features(self, x: Any, y: Any) -> Any:
        return self._distances.dtw_alignment_path(x, y)[0]

    def all_pairs(self, series: Any, band: int | None, threads: int) -> Any:
        window = None if band is None else band / series.shape[1]
        return self._distances.dtw_pairwise_distance(series, window=window, n_jobs=threads)


class Librosa(Peer):
    """librosa (Numba; SciPy for the costs): features x frames."""

    name = "librosa"
    distribution = "librosa"
    computes = "float64"

    def load(self) -> None:
        from librosa import sequence

        self._dtw = sequence.dtw

    def arrange(self, source: str, given: Sequence[Tensor]) -> Sequence[Any]:
        return [part[0].numpy().T if source == "features" else part[0].numpy() for part in given]

    def value_from_features(self, x: Any, y: Any) -> Any:
        return self._dtw(x, y, metric="sqeuclidean", backtrack=False)[-1, -1]

    def value_from_cost(self, cost: Any) -> Any:
        return self._dtw(C=cost, backtrack=False)[-1, -1]

    def path_from_features(self, x: Any, y: Any) -> Any:
        return self._dtw(x, y, metric="sqeuclidean")[1][::-1]

    def path_from_cost(self, cost: Any) -> Any:
        return self._dtw(C=cost)[1][::-1]


class Linmdtw(Peer):
    """linmdtw (Cython), its version with a full matrix, which is faster than the one in linear memory."""

    name = "linmdtw"
    distribution = "linmdtw"
    computes = "float32, Euclidean costs"
    metric = "euclidean"

    def load(self) -> None:
        import linmdtw

        self._module = linmdtw

    def value_from_features(self, x: Any, y: Any) -> Any:
        return self._module.dtw_brute(x, y)["cost"]

    def path_from_features(self, x: Any, y: Any) -> Any:
        return self._module.dtw_brute_backtrace(x, y)[1]


class Torchdtw(Peer):
    """torchdtw (a C++ extension, for Python 3.12 and later)."""

    name = "torchdtw"
    distribution = "torchdtw"
    takes_batches = True
    max_threads = None

    def load(self) -> None:
        import torchdtw

        self._module = torchdtw

    def arrange(self, source: str, given: Sequence[Tensor]) -> Sequence[Any]:
        return given

    def offers(self, task: str, source: str, batch: int) -> bool:
        return super().offers(task, source, batch) and not (task == "path" and batch > 1)

    def value_from_cost(self, cost: Any) -> Any:
        if len(cost) == 1:
            return self._module.dtw(cost[0])
        lengths = torch.full((len(cost),), cost.shape[1]), torch.tensor([cost.shape[2]])
        return self._module.dtw_batch(cost[:, None], *lengths, symmetric=False)[:, 0]

    def path_from_cost(self, cost: Any) -> Any:
        return self._module.dtw_path(cost[0])


ALL: tuple[type[Peer], ...] = (Dalign, Dtaidistance, Tslearn, Aeon, Librosa, Linmdtw, Torchdtw)
