"""Hard DTW beside its peers: values, best paths, all pairs, averages, and long pairs.

- `suite`: which combinations are measured; `figures`: which figures are to be reached,
- `peers`: the packages; `problems`: shapes, seeded inputs, float64 answers,
- `pairs`: matrices of distances; `averages`: barycenters and k-means at equal objective,
- `report` and `plots`: tables and pictures.

How the numbers are made, beyond what `experiments.bench` tells
---------------------------------------------------------------
Inputs. Features uniform on [0, 1] in float32. Each peer gets them in the layout that it documents; the conversion (to
float64 for dtaidistance, to features x frames for librosa and aeon, ...) is not timed. Costs are squared Euclidean
distances, but linmdtw knows Euclidean ones alone. dtaidistance and tslearn return the root of the sum; it is squared.

Which call. Where a package has several for the same result, the fastest at N = M = 1024 (dtaidistance: `distance_fast`
and `warping_path` with use_c, in `dtw` for D = 1, in `dtw_ndim` else; linmdtw: `dtw_brute`; tslearn's values from costs
come from `dtw_path_from_metric`, its one call that takes them).

Correctness. A value against a float64 run of the plain PyTorch recursion on the same float32 numbers. A path must be
one (begin, end, steps), and its costs are summed in float64 and compared with the same value. Of a matrix of all pairs
the first row is compared.

Averages. Both sides get the same series and the same start: the mean of the series; for k-means a series of each shape.
tslearn computes in float64; ours in float32 and, on one thread, in float64 too, since rounding that breaks a tie of
paths can lead DTW to another optimum: the faster one that reaches the objective counts. tslearn runs once, with the
iterations that the table names. Its result and ours are judged by one function: the sum over all series of the
(soft-)DTW to the (nearest) center, by the plain version in float64. Our time is that of a `fit` that stops after the
first iteration whose objective is not above tslearn's (by more than a millionth of it); a second row tells where our
own stopping rule ends.

Memory. As in `experiments.bench`, for a value or a path beyond its inputs and results; each in a process of its own,
since workspace that is kept from one call to the next would hide in the second.
"""

from .plots import PICTURES
from .report import Report
from .suite import run, work

__all__ = ["PICTURES", "Report", "run", "work"]
