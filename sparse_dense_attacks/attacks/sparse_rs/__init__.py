"""Sparse-RS (Croce, Andriushchenko, Singh, Flammarion & Hein, arXiv 2006.12834): random search without gradients.

``sparse_rs.py`` is the search; ``groups.py``, ``patch.py`` and ``frame.py`` say what a candidate looks like and how it is
changed; ``schedule.py`` by how much; ``paint.py`` has squares and colours.
"""
from .sparse_rs import SparseRS

__all__ = ['SparseRS']
