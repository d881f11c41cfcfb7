"""Tables of a report, as markdown."""
from collections.abc import Iterable

__all__ = ['markdown_table']


def markdown_table(head: Iterable, rows: Iterable[Iterable]) -> str:
    r"""A table with a line for the head, one of dashes, and one for each row.

    Args:
        head: names of the columns.
        rows: cells, as many as there are columns; anything with a ``str``. A ``|`` within is escaped.

    Example:
        >>> print(markdown_table(['attack', 'broken'], [['SparsePGD', 0.97], ['a|b', '-']]), end='')
        | attack | broken |
        | --- | --- |
        | SparsePGD | 0.97 |
        | a\|b | - |
    """
    head = list(head)
    return ''.join(_line(cells) for cells in (head, ['---'] * len(head), *rows))


def _line(cells: Iterable) -> str:
    escaped = (str(cell).replace('|', r'\|') for cell in cells)
    return f'| {" | ".join(escaped)} |\n'
