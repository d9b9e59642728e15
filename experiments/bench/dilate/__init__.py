"""DILATE beside its authors' code and plain PyTorch: time, memory and growth of a forecasting loss.

- `suite`: which combinations are measured; `figures`: which figures are to be reached,
- `peers`: what is compared; `problems`: shapes, seeded inputs, float64 answers,
- `report` and `plots`: tables and pictures.

How the numbers are made, beyond what `experiments.bench` tells
---------------------------------------------------------------
The loss has alpha .5, gamma .01, the penalty (i - j)^2 and squared distances: the authors' settings. Forecast and
target (B, N, D) are uniform on [0, 1]. A value is computed under ``torch.no_grad()``; a gradient is that of the batch's
mean with respect to the forecast, value included: the target has none, as in training.

The authors' code is that of Le Guen and Thome's repository (github.com/vincent-leguen/DILATE), which is in no package
registry. It is measured when ``--dilate-repo`` names a checkout. It computes on the CPU by Numba, one item after the
other, for series of one dimension. Its gradient is too large by a factor B, which its error shows.

Plain PyTorch is the anti-diagonal recursion of this folder; autograd differentiates it once for the alignment and once
more for the gradient.

Correctness. The last item against plain PyTorch in float64 on the same float32 inputs, up to N = 1024: the value
relative to the value, the gradient relative to its largest entry.

Growth. One item, ever longer. Memory. A process for each peer and shape; "bytes per cell" are those beyond the inputs,
the value and the gradient, over B N M: a float for each cell would be 4.
"""

from .plots import PICTURES
from .report import Report
from .suite import run, work

__all__ = ["PICTURES", "Report", "run", "work"]
