"""The shipped command ``sda``: one file for each subcommand, with a function ``main(argv) -> exit status``.

Files of subcommands import what takes seconds (torch, mmengine) inside functions, so that help comes at once, and so that
``sda doctor`` runs where these are broken.
"""
import importlib
import sys
from collections.abc import Sequence

from .. import __version__

__all__ = ['COMMANDS', 'main']

COMMANDS = {
    'attack': 'attack the test set of a config, evaluate it before and after',
    'train': 'train the model of a config, for example adversarially',
    'report': 'put finished runs side by side',
    'doctor': 'is this environment able to run the attacks, and if not, what repairs it',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sda``; the exit status is 0 when done, 2 after bad input (one line on stderr), 130 when interrupted."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in COMMANDS:
        return importlib.import_module(f'{__name__}.{name}').main(rest)
    if name == '--version':
        print(f'sda {__version__}')
        return 0
    if name in ('-h', '--help'):
        lines = ''.join(f'  {command:8} {text}\n' for command, text in COMMANDS.items())
        print(f'usage: sda COMMAND ...\n\n{lines}\nsda COMMAND --help lists the options; sda --version')
        return 0
    from ..registry import nearest
    print(f"error: sda has no command '{name}': {nearest(name, COMMANDS)}", file=sys.stderr)
    return 2
