"""Tables 1, 3 and 4 of the paper, TimeErr and TimeDev in ms.

Xu, Garg, Milford and Gould, "Deep Declarative Dynamic Time Warping for End-to-End Learning of Alignment Paths", ICLR
2023: 193 piano performances (MAESTRO) of 64 preludes and fugues (KernScores) of the Well-Tempered Clavier.
"""

from __future__ import annotations

SOURCE = "Xu et al., ICLR 2023"

Cell = tuple[float, float]

DTW: dict[str, dict[str, Cell]] = {
    "cqt": {
        "base": (35, 90),
        "soft-dtw": (49, 130),
        "along-gt": (49, 130),
        "dilate": (29, 45),
        "decdtw": (100, 210),
    },
    "chroma": {
        "base": (50, 115),
        "soft-dtw": (59, 142),
        "along-gt": (59, 142),
        "dilate": (28, 41),
        "decdtw": (45, 117),
    },
    "melspec": {
        "base": (122, 235),
        "soft-dtw": (55, 153),
        "along-gt": (52, 145),
        "dilate": (26, 40),
        "decdtw": (31, 76),
    },
}
"""Table 3: features of each method, aligned by DTW."""

GDTW: dict[str, dict[str, Cell]] = {
    "cqt": {"base": (19, 30), "soft-dtw": (22, 33), "along-gt": (22, 33), "dilate": (43, 69), "decdtw": (17, 27)},
    "chroma": {"base": (24, 39), "soft-dtw": (34, 51), "along-gt": (34, 51), "dilate": (70, 112), "decdtw": (19, 31)},
    "melspec": {
        "base": (56, 81),
        "soft-dtw": (155, 219),
        "along-gt": (147, 211),
        "dilate": (43, 68),
        "decdtw": (16, 27),
    },
}
"""Table 4: features of each method, aligned by GDTW."""

TABLE_1 = (
    ("Base (D)", "base", "dtw"),
    ("Base (G)", "base", "gdtw"),
    ("Soft-DTW", "soft-dtw", "dtw"),
    ("Along GT", "along-gt", "dtw"),
    ("DILATE", "dilate", "dtw"),
    ("DecDTW", "decdtw", "gdtw"),
)
"""Table 1 repeats cells of the other two: column, features of that method, aligned by that."""
