"""Runs that compute in 16 bits, that are compiled, and that find too little memory."""
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmpretrain', reason='the runs attack an mmpretrain classifier', exc_type=ImportError)

from sparse_dense_attacks.cli import attack as cli_attack  # noqa: E402
from sparse_dense_attacks.cli import common  # noqa: E402
from sparse_dense_attacks.cli.attack import prepare  # noqa: E402
from sparse_dense_attacks.cli.measures import measure  # noqa: E402
from sparse_dense_attacks.errors import InputError  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]


def arguments(work_dir, *extra, batch_size=4):
    options = ['attack.steps=3', f'test_dataloader.batch_size={batch_size}', 'test_dataloader.num_workers=0', 'pictures=0']
    return [str(ROOT / 'configs/spgd_resnet18.py'), '--work-dir', str(work_dir), '--limit', '4', '--device', 'cpu', *extra,
            '--cfg-options', *options]


def records(work_dir) -> dict:
    lines = map(json.loads, (Path(work_dir) / 'records.jsonl').read_text().splitlines())
    return {line['key']: {name: value for name, value in line.items() if name != 'seconds'} for line in lines}


def test_an_image_for_which_16_bits_are_too_few_is_attacked_in_full_precision(tmp_path, capsys):
    prepare(arguments(tmp_path / 'full', batch_size=1)).test()
    runner, seen = prepare(arguments(tmp_path / 'half', '--amp', 'bf16')), []

    def spoil(module, given, found):  # the first of the three images that the model has right
        half = torch.is_autocast_enabled('cpu')
        seen.append((len(found[-1]), half, found[-1].dtype))
        spoilt = half and len(found[-1]) == 3
        return tuple(one * one.new_tensor([torch.inf, 1, 1])[:, None, None, None] for one in found) if spoilt else found

    runner.model.backbone.register_forward_hook(spoil)
    with common.screen.quiet():
        runner.test()
    full, half = records(tmp_path / 'full'), records(tmp_path / 'half')
    first, *others = full
    assert half[first] == full[first] and not half[first]['note'], 'alone, and in 32 bits'
    assert any(half[key] != full[key] for key in others)
    assert {dtype for _, autocast, dtype in seen if autocast} == {torch.bfloat16}
    assert {dtype for _, autocast, dtype in seen if not autocast} == {torch.float32}
    assert '1 of 4 images are too much for bf16, so they are attacked again in full precision' in capsys.readouterr().err
    assert json.loads((tmp_path / 'half/run.json').read_text())['identity']['amp'] == 'bf16'
    assert 'amp' not in json.loads((tmp_path / 'full/run.json').read_text())['identity']
    measure(tmp_path / 'half', ['acp'], 'cpu')
    assert all('acp' in line['measures'] for line in records(tmp_path / 'half').values())
    with pytest.raises(InputError, match='another amp'):
        prepare(arguments(tmp_path / 'half', '--resume')).test()


def test_a_model_of_which_a_part_knows_no_16_bits_is_one_line(tmp_path):
    runner = prepare(arguments(tmp_path, '--amp', 'bf16'))

    def refuse(module, given):
        if torch.is_autocast_enabled('cpu'):
            raise NotImplementedError('"roi_align_forward_kernel" not implemented for \'BFloat16\'')

    runner.model.head.register_forward_pre_hook(refuse)
    with pytest.raises(InputError, match="--amp bf16: a part of this model cannot compute in it .*BFloat16.*try the other one"):
        runner.test()


def test_half_precision_is_for_gpus(tmp_path, capsys):
    assert cli_attack.main(arguments(tmp_path, '--amp', 'fp16')) == 2
    assert 'error: --amp fp16 is for GPUs, and this run has none: use --amp bf16' in capsys.readouterr().err


@pytest.mark.parametrize(('most', 'said'), [(2, r'too small for 4 images at once, 2 fit: add --cfg-options '
                                                r'test_dataloader.batch_size=2 and --resume'),
                                            (1, 'at once, 1 fit: '), (0, 'too small for a single image: use a smaller model')])
def test_too_little_memory_is_one_line_with_what_fits(most, said, tmp_path):
    runner = prepare(arguments(tmp_path / 'run'))
    forward = runner.model.backbone.forward

    def limited(x):
        if len(x) > most and torch.is_grad_enabled():
            raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB')
        return forward(x)

    runner.model.backbone.forward = limited
    with pytest.raises(InputError, match=said):
        runner.test()
    if most == 2:
        runner = prepare(arguments(tmp_path / 'run', '--resume', batch_size=2))
        runner.test()
        assert len(records(tmp_path / 'run')) == 4


class Whole(torch.nn.Module):
    def compile(self):
        self.compiled = True


def test_the_backbone_is_compiled_where_there_is_one(monkeypatch):
    tried = []
    monkeypatch.setattr(torch, 'compile', lambda function: tried.append(function) or function)
    plain, parts = Whole(), Whole()
    parts.backbone, parts.head = Whole(), Whole()
    common.compile_model(plain)
    common.compile_model(parts)
    assert plain.compiled and parts.backbone.compiled and 'compiled' not in vars(parts) and len(tried) == 2

    def fails(function):
        raise RuntimeError('InvalidCxxCompiler:\nNo working C++ compiler found')

    monkeypatch.setattr(torch, 'compile', fails)
    with pytest.raises(InputError, match=r"--compile: torch's compiler does not work here \(No working C\+\+ compiler found\)"):
        common.compile_model(plain)
