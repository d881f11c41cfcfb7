"""The embedded demo: synthetic scenes and the small models trained on them, so that everything runs on a fresh clone."""
