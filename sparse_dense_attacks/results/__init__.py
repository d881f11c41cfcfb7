"""What a run leaves on disk; works from files and arrays and imports no model library."""
from .pairs import Pair, PairSet, pairs_of_folders, pairs_of_run
from .provenance import describe, file_digest, versions
from .record import Record, file_name
from .run import Run
from .store import ResultStore

__all__ = ['Pair', 'PairSet', 'Record', 'ResultStore', 'Run', 'describe', 'file_digest', 'file_name',
           'pairs_of_folders', 'pairs_of_run', 'versions']
