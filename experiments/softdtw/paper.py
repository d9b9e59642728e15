"""Tables 1 to 3 of Cuturi and Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017.

The paper used 79 sets of the UCR archive; most percentages of its table 2 are fractions of 57 (random start) and 58
(Euclidean start), so probably k-means ran on fewer. Columns here: random start, Euclidean start.
"""

from __future__ import annotations

N_SETS = 79

SOURCE = "Cuturi and Blondel, ICML 2017, on 79 sets of the UCR archive"

Columns = tuple[float, float]

BARYCENTERS: dict[str, dict[float, Columns]] = {
    "dba": {1.0: (40.51, 3.80), 0.1: (93.67, 46.83), 0.01: (100.0, 79.75), 0.001: (97.47, 89.87)},
    "subgradient": {1.0: (96.20, 35.44), 0.1: (97.47, 72.15), 0.01: (97.47, 92.41), 0.001: (97.47, 97.47)},
}
"""Table 1: percentage of sets on which soft-DTW with that gamma reaches a lower DTW loss than the method."""

KMEANS: dict[str, dict[float, Columns]] = {
    "dba": {1.0: (15.78, 29.31), 0.1: (24.56, 24.13), 0.01: (59.64, 55.17), 0.001: (77.19, 68.97)},
    "subgradient": {1.0: (42.10, 46.44), 0.1: (57.89, 50.0), 0.01: (76.43, 65.52), 0.001: (96.49, 84.48)},
}
"""Table 2: the same for k-means."""

RANKS: dict[str, dict[float | None, Columns]] = {
    "dtw": {None: (3.46, 4.21), 1.0: (3.55, 3.96), 0.1: (3.33, 3.42), 0.01: (2.79, 2.12), 0.001: (1.87, 1.29)},
    "euclidean": {None: (1.05, 1.70), 1.0: (2.41, 2.99), 0.1: (3.42, 3.38), 0.01: (4.13, 3.64), 0.001: (3.99, 3.29)},
}
"""Table 3: average rank of the training losses (None: Euclidean, else gamma) by the loss that judges."""

ACCURACIES: dict[str, tuple[float, float, float]] = {
    "Beef": (0.667, 0.633, 0.633),
    "Coffee": (1.0, 1.0, 1.0),
    "ECG200": (0.880, 0.770, 0.820),
    "FaceFour": (0.784, 0.830, 0.830),
    "GunPoint": (0.913, 0.907, 0.940),
    "Lightning7": (0.575, 0.726, 0.740),
    "OliveOil": (0.867, 0.833, 0.833),
}
"""Known accuracies of 1-NN on the archive's test sets: Euclidean, DTW, DTW with a window of a tenth of the length."""
