"""What a run leaves on disk; works from files and arrays and imports no model library."""
from .dataset import Entry, Manifest, replacing_folder
from .pairs import Pair, PairSet, pairs_of_folders, pairs_of_run
from .provenance import describe, file_digest, literal, model_of, versions
from .readme import readme
from .record import Record, file_name
from .run import Run
from .store import ResultStore

__all__ = ['Entry', 'Manifest', 'Pair', 'PairSet', 'Record', 'ResultStore', 'Run', 'describe',
           'file_digest', 'file_name', 'literal', 'model_of', 'pairs_of_folders', 'pairs_of_run', 'readme',
           'replacing_folder', 'versions']
