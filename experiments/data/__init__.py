"""Data of the experiments: a module per kind, which caches what is costly and knows the exact ground truth."""
