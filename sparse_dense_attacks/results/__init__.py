"""What a run leaves on disk; works from files and arrays and imports no model library."""
from .provenance import describe, file_digest, versions
from .record import Record, file_name
from .run import Run
from .store import ResultStore

__all__ = ['Record', 'ResultStore', 'Run', 'describe', 'file_digest', 'file_name', 'versions']
