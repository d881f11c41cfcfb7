"""What a run leaves on disk; works from files and arrays and imports no model library."""
from .provenance import describe, file_digest, versions
from .record import Record
from .run import Run
from .store import ResultStore, file_name

__all__ = ['Record', 'ResultStore', 'Run', 'describe', 'file_digest', 'file_name', 'versions']
