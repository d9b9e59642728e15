"""Benchmarks: torch-dalign beside its peers, measured together in one run.

``python -m experiments.bench softdtw`` writes ``softdtw.json`` (every number), ``softdtw.md`` (tables) and PNG plots
into ``experiments/bench/results``; ``dtw`` does the same for hard DTW and for averages, ``ddtw`` for the general
lattice and CTC, ``ctc`` for CTC, ``dilate`` for DILATE, ``gdtw`` for GDTW and DecDTW. Each suite is a package, which
tells what is its own; what they share:

- ``harness``: timing, memory and the rule by which a combination is skipped; knows no algorithm,
- ``worker``: the same in a process of its own, for peak memory and for another instruction set,
- ``session``: one run: options, loaded peers, families of measurements, the clock,
- ``packages``: loading peers, their versions, numbers of threads,
- ``inputs``: seeded features; ``antidiagonal``: the plain PyTorch version that checks all peers in float64,
- ``report`` and ``plots``: JSON, markdown, figures to reach, parts of pictures.

How the numbers are made
------------------------
Time. All peers run in one process and take turns, so a machine that slows down slows all of them. A forward time is
the value alone (``torch.no_grad()``); a forward+backward time is the value and the gradients of all inputs. The first
run of a combination is thrown away when it is short. Shown are medians; the JSON also has minimum, maximum and the
number of runs. A cell is one pair of frames: B N M of them.

Memory. A process of its own per peer; the inputs are made, freed memory is given back to the system (``malloc_trim``),
the kernel's high-water mark of resident memory is reset (``/proc/self/clear_refs``), forward and backward run once, and
the high-water mark beyond the start, less the bytes of value and gradients, is the extra memory.

Skipping. A combination predicted to need more than the limits (8 GiB with inputs and gradients, 60 s) is skipped and
marked. The prediction is a smaller run of the same peer, source and D, in proportion to the cells.

Correctness. The last item of each batch is compared with a float64 run of the plain PyTorch version on the same float32
inputs: value relative to the value, gradient relative to its largest entry.

Inputs. Features uniform on [0, 1], seeded by (seed, N, D); "cost" means a given cost matrix, made from the features
outside the measured time.
"""
