"""Run notebooks cell by cell, in a folder of their own, and store what they print and draw.

    python tools/notebooks.py docs/notebooks/*.ipynb            # after a change of a cell
    python tools/notebooks.py --check docs/notebooks/*.ipynb    # run only; what the tests do

Needs nothing but what the cells need: a cell's last expression is shown if it is a picture or text.
"""
import argparse
import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

from PIL import Image


def run(cells: list[dict], folder: str) -> None:
    """Run the code cells, one namespace for all, and put into each its number and its outputs, the folder's name left out."""
    namespace: dict = {'__name__': '__main__'}
    code = [cell for cell in cells if cell['cell_type'] == 'code']
    for number, cell in enumerate(code, 1):
        tree = ast.parse(''.join(cell['source']))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f'cell {number}', 'exec'), namespace)
            value = last and eval(compile(ast.Expression(last.value), f'cell {number}', 'eval'), namespace)
        cell['execution_count'], cell['outputs'] = number, outputs(
            printed.getvalue().replace(f'{folder}{os.sep}', ''), value, number)


def outputs(printed: str, value, number: int) -> list[dict]:
    found = []
    if printed:
        found.append(dict(output_type='stream', name='stdout', text=printed.splitlines(keepends=True)))
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.convert('RGB').quantize(128, dither=Image.Dither.NONE).save(buffer, 'png', optimize=True)
        shown = {'image/png': base64.b64encode(buffer.getvalue()).decode(), 'text/plain': [f'a picture of {value.size}']}
    elif value is not None:
        shown = {'text/plain': repr(value).splitlines(keepends=True)}
    else:
        return found
    return [*found, dict(output_type='execute_result', execution_count=number, metadata={}, data=shown)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('notebooks', nargs='+', type=Path)
    parser.add_argument('--check', action='store_true', help='store nothing')
    args = parser.parse_args(argv)
    for path in args.notebooks:
        path = path.resolve()
        notebook = json.loads(path.read_text())
        with tempfile.TemporaryDirectory() as folder:
            here = Path.cwd()
            os.chdir(folder)
            try:
                run(notebook['cells'], folder)
            finally:
                os.chdir(here)
        if not args.check:
            path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + '\n')


if __name__ == '__main__':
    main()
