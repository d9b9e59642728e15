"""Slow, obviously right NumPy float64 versions of what torch_dalign computes, one module per algorithm; no torch."""
