"""The general lattice (dDTW) and CTC beside their peers: Table VI of the dDTW paper, and the lattice alone.

- `suite`: which combinations are measured; `figures`: which figures are to be reached,
- `settings`: steps, weights and operators; `problems`: shapes, seeded inputs, float64 answers,
- `peers`: what is compared; `plain`: the lattice in plain PyTorch,
- `report` and `plots`: tables and pictures; the paper's own figures in `paper`.

How the numbers are made, beyond what `experiments.bench` tells
---------------------------------------------------------------
All times are forward and backward together.

Table VI (Zeitler and Müller, TASLPRO 2026, Section VII-D). B = 16, D = 12, x uniform on [0, 1], y in {0, 1} with equal
probability, gradient of x; CTC from logits of 13 classes, log-softmax included, gradient of the logits. Soft-DTW has
squared distances as in the paper's first package, dDTW binary cross-entropy (eq. 31), or with CTC-A's setting the costs
of CTC. Medians of 20 runs where these take less than half a minute; the paper has means of 20 after 10. Neighbouring
labels of CTC differ, since else no path is left for N = M. The paper's figures are those of its authors, made on a GPU
(NVIDIA RTX A5500): they stand beside ours for the sake of the shape of the growth, they are no comparison.

The lattice alone. Costs uniform on [0, 3] are given, gradient of the costs. Columns of CTC's settings are blanks and
labels in turn, 2 L + 1, with L = M / 2 labels out of 12, in which some follow themselves.

CTC. From logits, log-softmax included on both sides; ours fuses it.

Plain PyTorch is `plain`: a row at a time where every step advances x, else an anti-diagonal, vectorised over batch and
labels, without any copy of the costs to reorder rows. Its backward pass is written by hand. "Autograd" is the recursion
as most would write it, row by row, a chain of logaddexp and, for steps inside a row, logcumsumexp, whose derivative
autograd finds; "anti-diagonals" the same for soft-DTW's steps in the other order. The paper's own toolbox is no
peer: on a CPU it is a Python loop over cells, which took 293,000 ns each, forward and backward, when it was tried.
"""

from .plots import PICTURES
from .report import Report
from .suite import run, work

__all__ = ["PICTURES", "Report", "run", "work"]
