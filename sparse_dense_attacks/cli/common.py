"""What the subcommands share: the way in and out, and arguments."""
import argparse
import contextlib
import errno
import os
import sys
import tempfile
import uuid
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from .. import compat, screen
from ..errors import InputError
from ..screen import say
from . import launch

if TYPE_CHECKING:
    from torch import nn

__all__ = ['CONFIG_ERRORS', 'building', 'check_device', 'check_ops', 'check_writable',
           'common_arguments', 'compile_model', 'main', 'one_line', 'say', 'writing_to']

# Failures of mmengine, mmcv and the model libraries that mean a wrong config, and no bug of theirs.
CONFIG_ERRORS = (KeyError, TypeError, AttributeError, ValueError, AssertionError, OSError,
                 ImportError, SyntaxError)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def main(run, argv: list[str] | None = None, kept: str = 'all finished images are safe') -> int:
    """Run a command and return its exit status.

    Bad input is one line on stderr and status 2; an interrupted run, status 130, says what it
    ``kept`` and how to go on. Unless ``-v`` is among the arguments, what libraries print goes to
    the log file only.
    """
    _share_processors()
    loud = {'-v', '--verbose', '-h', '--help'} & set(sys.argv[1:] if argv is None else argv)
    try:
        with contextlib.nullcontext() if loud else screen.quiet():
            run(argv)
    except InputError as error:
        say(f'error: {error}')
        return 2
    except UnpicklingError as error:
        from .checkpoints import refusal
        say(f'error: {refusal(error)}')
        return 2
    except ImportError as error:
        say(f'error: {one_line(error)}; sda doctor says what repairs it')
        return 2
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        place = error.filename or 'where results go'
        say(f'error: disk full ({place}); {kept}: free some space and add --resume')
        return 2
    except RuntimeError as error:
        if not launch.is_lost(error):
            raise
        say(f'error: another process of this run has ended before its time; {kept}: add --resume')
        return 2
    except KeyboardInterrupt:
        say(f'stopped; {kept}: add --resume to go on')
        return 130
    finally:
        launch.leave()
    return 0


def _share_processors() -> None:
    """Let threads that wait fall asleep soon, unless torch is loaded already or the user has chosen.

    By default they spin for milliseconds, and beside other jobs on the same processors everything
    takes six times as long. Never to spin costs a fifth of the speed of an idle machine; so much of
    it costs nothing there and helps as much beside others.
    """
    if not {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME'} & os.environ.keys():
        os.environ['GOMP_SPINCOUNT'] = '10000'


def common_arguments(command: str, description: str, config: str) -> argparse.ArgumentParser:
    """The arguments of every command that builds a Runner."""
    parser = argparse.ArgumentParser(f'sda {command}', description=description)
    parser.add_argument('config', help=f'{config}: a file, or a name such as '
                        'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py or '
                        'sparse_dense_attacks::spgd_faster_rcnn.py')
    parser.add_argument('--checkpoint', help='weights: a file, a URL, a zoo name such as '
                        "mmdet::faster-rcnn_r50_fpn_1x_coco, or 'none' for random weights; "
                        "default: the config's load_from")
    parser.add_argument('--work-dir', help="where results go; default: the config's, or "
                        'work_dirs/<name of the config>')
    parser.add_argument('--cfg-options', nargs='+', action=_KeyValues, metavar='KEY=VALUE',
                        help='for example attack.k=500')
    parser.add_argument('--resume', action='store_true', help='go on with the run in the work dir')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: cuda if there is one')
    parser.add_argument('--trust-weights', action='store_true', help='run the code that a file of '
                        'weights names; by default such files are refused')
    parser.add_argument('-v', '--verbose', action='store_true', help='print all that the libraries '
                        'log; it is in the log file in any case')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none',
                        help='several processes share the work: started by torchrun or srun')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


class _KeyValues(argparse.Action):
    """mmengine's DictAction, imported when it is needed, with one line for what it cannot split."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mmengine.config import DictAction
        try:
            split = DictAction(self.option_strings, self.dest, self.nargs)
            split(parser, namespace, values, option_string)
        except (ValueError, AssertionError) as error:
            raise InputError(f"--cfg-options {' '.join(values)}: expected KEY=VALUE, such as "
                             'attack.k=500, and closed brackets') from error


@contextlib.contextmanager
def writing_to(work_dir: str):
    """A write to a full disk names no file; let it name the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            error.filename = error.filename or work_dir
        raise


def check_writable(work_dir: str) -> None:
    """Create the folder of the results, and a file in it that is gone at once.

    Raises:
        InputError: either is impossible.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise
        place = f'{Path(work_dir).absolute()} ({error.strerror})'
        raise InputError(
            f'cannot write results to {place}: name a folder with --work-dir, or run sda '
            'in one you may write to'
        ) from error


@contextlib.contextmanager
def building(cfg, args: argparse.Namespace, unset: str = '', progress_lines: bool = False):
    """mmengine's Runner of a config; what fails within is one line that names the config.

    Args:
        cfg: the config; work dir and weights are in it.
        args: of the command line.
        unset: a hint to add where a file is missing.
        progress_lines: whether the Runner's own lines are its progress.
    """
    import torch
    from mmengine.runner import Runner
    # Some trained weights (CGNet's) have decayed to numbers so small that processors take twenty
    # times as long over them; they are taken for zero.
    torch.set_flush_denormal(True)
    # The log file has the environment, the config and the hooks, whatever is printed.
    if cfg.get('log_level', 'INFO') != 'DEBUG':
        cfg.log_level = 'INFO'
    if cfg.get('default_scope') != 'mmpretrain':  # its classifiers need none
        check_ops()
    check_writable(cfg.work_dir)
    # mmengine keeps scope, message hub and visualizer by a name that ends in the second of the
    # start: a second run in it would get those of the first, of another library even.
    name = cfg.get('experiment_name') or Path(cfg.filename).stem
    cfg.experiment_name = f'{name}_{uuid.uuid4().hex[:8]}'
    if cfg.get('visualizer'):  # the libraries' configs give all the same; unnamed: as the run
        cfg.visualizer.pop('name', None)
    try:
        runner = Runner.from_cfg(cfg)
        screen.attach(runner.logger, progress_lines=progress_lines)
        if args.device:
            runner.model.to(args.device)
        yield runner
    except InputError:
        raise
    except CONFIG_ERRORS as error:
        raise _unbuilt(args.config, error, unset) from error


def _unbuilt(config: str, error: Exception, unset: str = '') -> InputError:
    """What to say when the Runner of a config cannot be built.

    Args:
        config: what the user calls it.
        error: what was raised.
        unset: a hint to add where a file is missing.
    """
    text = f'cannot build the run of {config}: {type(error).__name__}: {one_line(error)}'
    if isinstance(error, FileNotFoundError):
        text += unset
    if isinstance(error, OSError) and error.errno in _FORBIDDEN:
        text += '; run sda in a folder you may write to'  # drawn or fetched data sets lie below it
    return InputError(text)


def check_device(device: str | None) -> None:
    import torch
    if device == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: torch sees no GPU; use --device cpu, or run sda doctor')


def compile_model(model: 'nn.Module') -> None:
    """Let torch compile what of a model takes the most time, in place.

    That is the backbone, or the whole of a model that has none: what comes after it depends on what
    it finds in each image.

    Raises:
        InputError: torch's compiler does not work here.
    """
    import torch
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except Exception as error:  # the compiler's parts raise whatever they like
        raise InputError(f"--compile: torch's compiler does not work here ({one_line(error)}); it "
                         'needs a C++ compiler, or leave the option out') from error
    dict(model.named_children()).get('backbone', model).compile()


def check_ops() -> None:
    """One call of an mmcv op: a build made for another torch imports, and fails only here."""
    import torch
    try:
        from mmcv.ops import nms
        nms(torch.tensor([[0., 0., 1., 1.]]), torch.tensor([1.]), 0.5)
    except (ImportError, RuntimeError) as error:
        without = f'do without the compiled ones: export {compat.SWITCH}=0; or '
        way_out = without if compat.compiled_file() else ''
        raise InputError(f'mmcv ops do not work ({one_line(error)}); {way_out}run: sda '
                         'doctor') from error


def one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
