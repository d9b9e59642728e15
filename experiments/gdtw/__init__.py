"""The two applications of DecDTW (Xu, Garg, Milford and Gould, ICLR 2023): features learned through optimal warps.

Each task is a package of its own with the same command line around it:

    python -m experiments.gdtw TASK --help

A run that was stopped goes on where it was. Tables, pictures and all numbers are in `--out` then.
"""
