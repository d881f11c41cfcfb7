"""One run at a time in a work dir."""
import errno
import os
import socket
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

from ..errors import InputError

__all__ = ['Lock']

_HELD = (errno.EWOULDBLOCK, errno.EACCES)


class Lock:
    """Holds ``lock`` in a folder; the kernel lets go of it when the process ends, however it ends.

    Raises:
        InputError: another process holds it; the line names that.
    """

    def __init__(self, folder: Path):
        self.path = folder / 'lock'
        self._file: BinaryIO | None = self._acquire() if fcntl else None

    def _acquire(self) -> BinaryIO:
        while True:
            file = self.path.open('a+b')
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = self._holder()
                file.close()
                if error.errno in _HELD:
                    raise InputError(f'{self.path.parent} is in use by {holder}: wait for its end, '
                                     'or name another folder with --work-dir') from error
                raise InputError(f'{self.path} cannot be locked ({error.strerror}): name a folder '
                                 'on another file system with --work-dir') from error
            if self._is_still(file):
                file.truncate(0)
                file.write(f'process {os.getpid()} on {socket.gethostname()}'.encode())
                file.flush()
                return file
            file.close()  # its holder has removed it meanwhile

    def _holder(self) -> str:
        try:
            return self.path.read_text() or 'another process'
        except OSError:  # just removed
            return 'another process'

    def _is_still(self, file: BinaryIO) -> bool:
        """Whether the open file is the one that has the name now."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go, and leave no file."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
