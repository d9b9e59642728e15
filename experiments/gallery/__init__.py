"""The pictures of docs/gallery.md: ``python -m experiments.gallery``. Synthetic series, seeded; under a minute."""
