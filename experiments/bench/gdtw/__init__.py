"""GDTW and its layer, DecDTW, beside other solvers of the same problem, beside DTW, and beside soft-DTW and DILATE.

- `suite`: which combinations are measured; `figures`: which figures are to be reached,
- `peers`: other solvers; `plain`: dynamic programming in NumPy, as the DecDTW paper describes it,
- `problems`: seeded signals, and the objective by which all warps are judged,
- `report` and `plots`: tables and pictures.

How the numbers are made, beyond what `experiments.bench` tells
---------------------------------------------------------------
Signals. x and y are the same sum of waves along a smooth random warp each, with noise of their own; every feature runs
from -1 to 1. N = M, uniform times on [0, 1], fixed ends, squares for L and R, lambda 0.1.

Short calls. Ours are repeated until about 2 ms have passed, and a measurement is the mean of these: a single call of
0.1 ms would tell of cold caches alone.

calls. "kernel" is the op alone, whose arguments are ready: a check of shapes, then C. "layer" is `DecDTW` with a
learned lambda and features that require a gradient: it checks, remembers and converts. Backward is the derivative in x,
y and lambda for a given one in the warp.

batch. One batch of 64 pairs on each number of threads, by the kernel.

solvers. One pair. Each solver's warp is judged by one function in float64: its objective F, and by what share that
lies above the lowest F of all solvers. The package gdtw runs as it comes, and with as many lattice times as it allows
and all its ten iterations ("fine"); its scaling of signals changes nothing here. SLSQP starts at the straight line and
has the gradient. Ours is the kernel alone. "NumPy lattice" is the paper's scheme: max(50, N) times per knot, three
refinements, eta 0.125.

growth. The paper's Figure 5: warps by GDTW (the layer) and paths by DTW of the same pair, without gradients.

training. The paper's Figure 7: a loss and its gradients in x and y, of one pair. DecDTW's loss is the warp's mean
distance from a true one, soft-DTW's and DILATE's (alpha 0.5) are their values; gamma 1.
"""

from .plots import PICTURES
from .report import Report
from .suite import run, work

__all__ = ["PICTURES", "Report", "run", "work"]
