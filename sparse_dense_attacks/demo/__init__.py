"""The embedded demo: synthetic scenes and the small model trained on them, so that everything runs on a fresh clone."""
