"""The one exception that means "the user can fix this"."""


class InputError(ValueError):
    """Bad input: one line that says what was found, what was expected, and the fix.

    The command-line tools print it and exit with status 2; Python callers get an ordinary ``ValueError``.
    """
