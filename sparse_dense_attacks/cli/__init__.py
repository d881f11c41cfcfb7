"""The shipped command ``sda``: a file per subcommand, with a function ``main(argv) -> status``.

These files import what takes seconds (torch, mmengine) inside functions, so that help comes at once
and ``sda doctor`` runs where that is broken.
"""
import importlib
import sys
from collections.abc import Sequence

__all__ = ['COMMANDS', 'main']

COMMANDS = {
    'attack': 'attack the test set of a config, evaluate it before and after',
    'train': 'train the model of a config, for example adversarially',
    'verify': 'check an adversarial data set: files, changed pixels, metrics',
    'transfer': 'show what breaks one model to others, beside four controls',
    'sweep': 'attack with a table of other settings on the same images',
    'defend': 'what a defence is worth: undefended, static, and attacked through it',
    'fit': 'learn a patch, a frame or pixels for many images, and judge it on others',
    'report': 'put finished runs side by side',
    'doctor': 'is this environment able to run the attacks, and if not, what repairs it',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sda``; exit status: 0 done, 2 bad input (one line on stderr), 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv) or ['--help']
    name, rest = words[0], words[1:]
    if name in COMMANDS:
        return importlib.import_module(f'{__name__}.{name}').main(rest)
    if name == '--version':
        print(importlib.import_module(f'{__name__}.version').describe())
        return 0
    if name in ('-h', '--help'):
        lines = ''.join(f'  {command:8} {text}\n' for command, text in COMMANDS.items())
        print(f'usage: sda COMMAND ...\n\n{lines}\n'
              'Options: sda COMMAND --help; version: sda --version')
        return 0
    from ..registry import nearest
    print(f"error: sda has no command '{name}': {nearest(name, COMMANDS)}", file=sys.stderr)
    return 2
