"""The demo, the papers' tables and the benchmarks; from a checkout, run `python -m experiments.<name>`."""
