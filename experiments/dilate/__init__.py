"""Forecasting several steps ahead: the DILATE paper's Table 1 (Le Guen and Thome, NeurIPS 2019), and other series.

`python -m experiments.dilate` trains an MLP and a GRU encoder and decoder with the mean squared error, soft-DTW and
DILATE, network by network; a run that was stopped goes on where it was. Tables, pictures and all numbers are in `--out`
then. Read the modules in this order:

- `settings`: what can be chosen, and the scales "small" and "paper"
- `data`: what is forecast
- `networks`, `training`, `evaluation`: from pairs of series to errors
- `paper`: the figures to compare with
- `tables`, `plots`: from numbers to tables and pictures

From the paper and its authors' program: the synthetic series, the split of heartbeats at 60 %, gamma, alpha, the
networks, Adam, the three measures and their factors. Chosen here: the patience of early stopping, which looks at the
loss that is trained with; one learning rate for all losses, tuned for none of them (at scale "small" ten times the
authors' 0.001, as it lasts 150 epochs and not 1000); 32 units of the small GRU; the sources besides the synthetic one
and ECG5000, and alpha for them.
"""
