"""CTC from logits beside torch's: time of the value and of a training step, instruction sets, memory.

- `suite`: which combinations are measured; `figures`: which figures are to be reached,
- `peers`: what is compared; `problems`: shapes, seeded inputs, float64 answers,
- `report` and `plots`: tables and pictures.

How the numbers are made, beyond what `experiments.bench` tells
---------------------------------------------------------------
Inputs. Logits (T, B, C) from a normal distribution in float32, labels from all classes but the blank, every item of
full length. All sides start from the logits: log-softmax is part of what is timed.

A value is computed under ``torch.no_grad()``; a gradient is that of the sum over the batch with respect to the logits,
value included. A state is one of the 2 S + 1 of an item at one frame: B T (2 S + 1) of them.

Correctness. The last item of the batch against torch's ``ctc_loss`` in float64 on the same float32 logits: the value
relative to the value, the gradient relative to its largest entry.

Instruction sets. A process for each, in which ours and torch take turns (torch always uses what it chooses itself).

Memory. A process for each peer and shape: workspace that is kept from one call to the next would hide in the second.
"""

from .plots import PICTURES
from .report import Report
from .suite import run, work

__all__ = ["PICTURES", "Report", "run", "work"]
