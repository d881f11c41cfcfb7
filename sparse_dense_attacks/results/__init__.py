"""What a run leaves on disk; works from files and arrays and imports no model library."""
from .dataset import Entry, Manifest, replacing_folder
from .provenance import describe, file_digest, versions
from .readme import readme
from .record import Record, file_name
from .run import Run
from .store import ResultStore

__all__ = ['Entry', 'Manifest', 'Record', 'ResultStore', 'Run', 'describe', 'file_digest',
           'file_name', 'readme', 'replacing_folder', 'versions']
