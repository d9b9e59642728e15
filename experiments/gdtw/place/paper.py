"""Tables 2, 5 and 6 of the paper: percentages of test sequences within 2, 3, 5 and 10 m.

Xu, Garg, Milford and Gould, "Deep Declarative Dynamic Time Warping for End-to-End Learning of Alignment Paths", ICLR
2023. Oxford RobotCar, VGG-16 with NetVLAD.
"""

from __future__ import annotations

SOURCE = "Xu et al., ICLR 2023"
CONDITIONS = ("overcast", "sunny", "snow")

Row = tuple[tuple[float, ...], ...]

MAXIMUM: dict[str, Row] = {
    "base, DTW": ((0.7, 12.3, 44.3, 73.8), (0.5, 8.7, 40.2, 62.2), (1.6, 11.1, 44.3, 62.3)),
    "base, GDTW": ((10.2, 31.7, 65.6, 90.3), (9.0, 33.2, 75.1, 99.3), (6.2, 25.7, 73.2, 100.0)),
    "OTAM, DTW": ((0.7, 12.3, 44.3, 73.8), (0.5, 8.7, 40.2, 62.2), (1.6, 11.1, 44.3, 62.3)),
    "along truth, DTW": ((0.7, 12.3, 44.3, 73.8), (0.5, 8.7, 40.2, 62.2), (1.6, 11.1, 44.3, 62.3)),
    "DILATE, DTW": ((0.7, 14.5, 54.5, 80.0), (1.5, 11.9, 40.9, 69.7), (1.3, 12.2, 44.6, 68.7)),
    "DecDTW, GDTW": ((25.4, 45.0, 68.3, 90.1), (22.8, 50.4, 84.3, 98.3), (13.5, 44.8, 88.0, 100.0)),
    "base, single": ((0.0, 11.6, 47.9, 77.0), (0.0, 7.5, 40.4, 81.1), (1.6, 10.0, 50.1, 87.1)),
    "DILATE, single": ((0.2, 11.1, 58.4, 84.7), (0.2, 17.2, 61.7, 93.0), (1.6, 13.7, 66.3, 96.2)),
    "DecDTW, single": ((0.2, 14.5, 50.1, 65.6), (0.2, 9.9, 35.8, 56.7), (0.9, 11.1, 57.7, 85.8)),
}
"""By the largest error of a sequence: Table 5, of which the first six rows are Table 2 (one row there for OTAM and the
cost along the true path, neither of which got better than the base)."""

MEAN: dict[str, Row] = {
    "base, DTW": ((16.9, 48.9, 70.0, 94.7), (16.2, 42.9, 62.0, 91.8), (16.2, 42.9, 62.0, 91.8)),
    "base, GDTW": ((44.8, 70.2, 90.1, 98.1), (47.0, 85.2, 99.5, 99.8), (43.5, 79.2, 100.0, 100.0)),
    "OTAM, DTW": ((16.9, 48.9, 70.0, 94.7), (46.2, 42.9, 62.0, 91.8), (16.2, 42.9, 62.0, 91.8)),
    "along truth, DTW": ((16.9, 48.9, 70.0, 94.7), (46.2, 42.9, 62.0, 91.8), (16.2, 42.9, 62.0, 91.8)),
    "DILATE, DTW": ((22.5, 57.9, 77.0, 96.1), (19.1, 43.1, 69.5, 93.2), (15.1, 40.4, 67.0, 96.5)),
    "DecDTW, GDTW": ((52.1, 80.2, 91.8, 97.8), (65.9, 90.8, 98.8, 99.8), (56.5, 93.4, 100.0, 100.0)),
    "base, single": ((18.6, 55.7, 80.1, 91.5), (16.9, 50.8, 85.4, 96.8), (17.0, 58.5, 90.9, 98.4)),
    "DILATE, single": ((26.9, 69.7, 90.1, 93.7), (32.9, 69.0, 94.2, 99.8), (22.8, 68.5, 97.3, 99.1)),
    "DecDTW, single": ((22.5, 55.9, 72.4, 85.7), (26.2, 59.8, 72.6, 85.7), (19.3, 61.4, 86.0, 92.7)),
}
"""By the mean error of a sequence: Table 6, as printed."""
