"""Slow, obviously right NumPy float64 versions of what torch_dalign computes. One module per algorithm; torch is not used."""
