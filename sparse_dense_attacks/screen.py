"""What the commands print: their own lines as plain text, and nothing of the libraries below them.

Paths, names and messages of users are never taken for rich's markup, and print on any terminal.
"""
import contextlib
import io
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

__all__ = ['add_row', 'attach', 'first', 'printable', 'progress', 'quiet', 'say', 'share', 'shared', 'show']

_PACKAGE = str(Path(__file__).parent)


_ways: list[Callable[[str], bool]] = []  # of finding out whether others print, too


def share(is_first: Callable[[str], bool] | None) -> None:
    """Print of lines that several processes :func:`say` the first only.

    Args:
        is_first: whether nobody has said a line before; None to print all again.
    """
    _ways[:] = [] if is_first is None else [is_first]


def shared() -> bool:
    """Whether others print, too."""
    return bool(_ways)


def say(line: str) -> None:
    """Print a line on stderr; yellow where it warns."""
    if not all(is_first(line) for is_first in _ways):
        return
    style = 'yellow' if line.startswith('warning: ') else ''
    _print(Console(stderr=True, highlight=False, soft_wrap=True), Text(line, style))


def show(content: Table | str, width: int = 0) -> None:
    """Print a result on stdout, also while that is :func:`quiet`; at least ``width`` wide."""
    screen = sys.stdout.screen if isinstance(sys.stdout, _Swallowed) else None
    console = Console(file=screen, highlight=False)
    console.width = max(console.width, width)
    if isinstance(content, Table):
        console.print(content)
    else:
        _print(console, Text(content))


def add_row(table: Table, *cells: object) -> None:
    """Add cells of any text to a table; they wrap, and are never cut."""
    encoding = Console().encoding
    table.add_row(*(Text(printable(cell, encoding), overflow='fold') for cell in cells))


def printable(value: object, encoding: str = 'utf-8') -> str:
    r"""Text that can be encoded: what cannot, such as odd bytes of a file's name, stands as
    ``\udcff``.
    """
    return str(value).encode(encoding, 'backslashreplace').decode(encoding)


def _print(console: Console, text: Text) -> None:
    plain = Text(printable(text.plain, console.encoding), text.style)
    console.print(plain, markup=False, soft_wrap=True)


def first(lines: Sequence[str], most: int = 5) -> list[str]:
    """The first lines of many, and how many more there are."""
    more = [f'and {len(lines) - most} more'] if len(lines) > most else []
    return [*lines[:most], *more]


class _Swallowed(io.TextIOBase):
    """In the place of stdout: lines go to the log file, as soon as there is one."""

    def __init__(self, screen: TextIO):
        super().__init__()
        self.screen = screen
        self.logger: logging.Logger | None = None
        self.rest = ''

    def write(self, text: str) -> int:
        *lines, self.rest = (self.rest + text).split('\n')
        if self.logger is not None:
            for line in filter(str.strip, lines):
                self.logger.info(printable(line))
        return len(text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what libraries print and warn of to the log; our own lines and warnings are printed."""
    swallowed = _Swallowed(sys.stdout)

    def warned(message, category, filename, lineno, file=None, line=None):
        if filename.startswith(_PACKAGE):
            say(f'warning: {message}')
        else:
            swallowed.write(f'{category.__name__}: {message}\n')

    with contextlib.redirect_stdout(swallowed), warnings.catch_warnings():
        warnings.showwarning = warned
        yield


def attach(logger: logging.Logger, progress_lines: bool = False) -> None:
    """Let a Runner's logger write to its file, and print only what matters, while :func:`quiet`.

    Args:
        logger: of mmengine.
        progress_lines: also print what mmengine's hooks log: losses and saved checkpoints.
    """
    swallowed = sys.stdout
    if not isinstance(swallowed, _Swallowed):
        return
    swallowed.logger = logger
    for handler in list(logger.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is swallowed:
            logger.removeHandler(handler)
    logger.handlers = [one for one in logger.handlers if not isinstance(one, _OurLines)]
    logger.addHandler(_OurLines(progress_lines))


class _OurLines(logging.Handler):
    """Prints our own warnings, and errors of anybody."""

    def __init__(self, progress_lines: bool):
        super().__init__(logging.INFO)
        self.progress_lines = progress_lines

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.pathname.startswith(_PACKAGE)
        if record.levelno >= (logging.WARNING if ours else logging.ERROR):
            say(f'{record.levelname.lower()}: {record.getMessage()}')
        elif self.progress_lines and Path(record.pathname).parent.name == 'hooks':
            say(record.getMessage())


@contextlib.contextmanager
def progress(total: float, shown: bool = True,
             what: str = 'attack') -> Iterator[Callable[[int], None]]:
    """Count images: a bar on a terminal, otherwise a line after the first batch and every minute.

    Args:
        total: how many images there are.
        shown: False for processes that do not print.
        what: is done to them.

    Yields:
        A function to call with the number of images that have just been finished.
    """
    console = Console(stderr=True)
    if not shown:
        yield lambda images: None
    elif console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn('images'),
                   TimeElapsedColumn(), TextColumn('left'),
                   TimeRemainingColumn(elapsed_when_finished=False))
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda images: bar.advance(task, images)
    else:
        lines = _Lines(math.ceil(total), what=what)
        yield lines.advance
        lines.finish()


class _Lines:
    """Progress as lines, for logs of batch systems and pipes."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic, pause: float = 60,
                 what: str = 'attack'):
        self.total, self.done, self.what = total, 0, what
        self.clock, self.pause = clock, pause
        self.start = clock()
        self.printed_at: float | None = None
        self.printed = 0

    def advance(self, images: int) -> None:
        self.done += images
        now = self.clock()
        if self.printed_at is None or now - self.printed_at >= self.pause:
            self.printed_at = now
            self._print(now - self.start)

    def finish(self) -> None:
        if self.printed < self.done:
            self._print(self.clock() - self.start)

    def _print(self, passed: float) -> None:
        self.printed = self.done
        text = f'{self.what}: {self.done} of {self.total} images in {_span(passed)}'
        left = self.total - self.done
        say(f'{text}, about {_span(passed / self.done * left)} left' if left > 0 and self.done else text)


def _span(seconds: float) -> str:
    """``95`` -> ``1 min 35 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours} h {minutes} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'
