"""Programs in processes that start at once: forked from a server that has imported torch and other packages of third parties.

Neither mmengine and the model libraries nor our package are among them: a program imports them itself, in its own order, and
finds nothing that an earlier one left in them. Where the start of the interpreter is the point (packages that are absent, the
settings of OpenMP, what an import brings along), `subprocess` is right.
"""
import functools
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import types
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
# Eight tenths of the time that mmengine, the model libraries and our package take to be imported.
THIRD_PARTY = ['torch.distributed.optim', 'torchvision', 'scipy.stats', 'matplotlib.pyplot', 'mpl_toolkits.axes_grid1', 'cv2',
               'imgaug.augmenters', 'imagecorruptions', 'shapely.geometry', 'pycocotools.cocoeval', 'ftfy', 'rich.progress',
               'tifffile', 'modelindex.load_model_index', 'terminaltables', 'prettytable']


def start(arguments, out: Path, cwd=ROOT, environment=None, flush_denormal=False) -> ForkServerProcess:
    """Start a program as ``python *arguments`` would: with ``-c CODE``, ``-m MODULE`` or a script first.

    Args:
        arguments: of the interpreter.
        out: a file for all that is printed.
        cwd: the folder to run in.
        environment: all variables of the process; default: those of this one and ``PYTHONPATH`` with the root of the checkout.
        flush_denormal: whether it takes tiny numbers for zero from its start.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(THIRD_PARTY)
    if environment is None:
        environment = os.environ | dict(PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    words = [str(word) for word in arguments]
    process = context.Process(target=_interpret, args=(words, out, cwd, dict(environment), _import_path(), flush_denormal))
    process.start()
    return process


def run(arguments, out: Path, status=0, **options) -> str:
    """What a program prints that is started as :func:`start` does; it has to end with ``status``."""
    process = start(arguments, out, **options)
    process.join(timeout=500)
    process.kill()  # if it is not done
    process.join()
    printed = out.read_text()
    assert process.exitcode == status, f'status {process.exitcode}: {printed[-3000:]}'
    return printed


@functools.cache
def _import_path() -> list[str]:
    """Where an interpreter looks for modules by itself, without variables and its own folder."""
    code = 'import json, sys; print(json.dumps(sys.path[1:]))'
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def _interpret(arguments, out, cwd, environment, import_path, flush_denormal) -> None:
    with out.open('wb') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'tests']:
        del sys.modules[name]
    torch.set_flush_denormal(flush_denormal)
    added = [folder for folder in environment.get('PYTHONPATH', '').split(os.pathsep) if folder]
    what, *rest = arguments
    if what == '-c':
        sys.path[:] = ['', *added, *import_path]
        sys.argv = ['-c', *rest[1:]]
        main = sys.modules['__main__'] = types.ModuleType('__main__')
        exec(compile(rest[0], '<string>', 'exec'), vars(main))
    elif what == '-m':
        sys.path[:] = [os.getcwd(), *added, *import_path]
        sys.argv = rest
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        sys.path[:] = [str(Path(what).resolve().parent), *added, *import_path]
        sys.argv = arguments
        runpy.run_path(what, run_name='__main__')
