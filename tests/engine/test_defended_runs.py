"""Runs with defences on the embedded demo: what is judged is the defended stock model, by every road."""
import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip('mmdet', reason='the runs attack an mmdet detector', exc_type=ImportError)

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from sparse_dense_attacks import Artefact, InputError  # noqa: E402
from sparse_dense_attacks.cli import defend, main  # noqa: E402
from sparse_dense_attacks.cli.attack import attack_from_command_line, opened, prepare  # noqa: E402
from sparse_dense_attacks.cli.configs import read_config  # noqa: E402
from sparse_dense_attacks.patches import Fixed  # noqa: E402

pytestmark = pytest.mark.openmmlab

ROOT = Path(__file__).parents[2]
COARSE = "dict(type='JPEG', quality=8)"
MAP = 'coco/bbox_mAP_50'


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def config(folder, more, base='spgd_yolox'):
    path = folder / 'config.py'
    path.write_text(f"""
_base_ = {str(ROOT / 'configs' / f'{base}.py')!r}
test_dataloader = dict(num_workers=0, batch_size=2)
attack = dict(steps=3)
pictures = 0
{more}
""")
    return str(path)


def run(path, work_dir, *extra):
    return attack_from_command_line([path, '--work-dir', str(work_dir), '--device', 'cpu', '--limit', '3', *extra])


@pytest.fixture(scope='module')
def first_three(tmp_path_factory):
    """What makes a stock test run see, and score, the three images that ours are cut to."""
    prepare([str(ROOT / 'configs/spgd_yolox.py'), '--work-dir', str(tmp_path_factory.mktemp('drawn')), '--device', 'cpu'])
    content = json.loads((ROOT / 'data/demo_scenes/annotations/instances_val.json').read_text())
    kept = [image['id'] for image in content['images'][:3]]
    content['images'] = content['images'][:3]
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] in kept]
    file = tmp_path_factory.mktemp('three') / 'instances.json'
    file.write_text(json.dumps(content))
    return dict(test_evaluator=dict(ann_file=str(file)), test_dataloader=dict(dataset=dict(indices=3)))


def identity(work_dir):
    return json.loads((work_dir / 'run.json').read_text())['identity']


def stock(path, work_dir, hook, cut):
    """Metrics of an ordinary test run with a hook."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(cut, work_dir=str(work_dir), custom_hooks=[hook], test_cfg=dict(), log_level='ERROR'))
    return Runner.from_cfg(cfg).test()


def test_the_defended_model_is_judged_whichever_way_it_is_run(tmp_path, first_three):
    """In our loop, under a stock test loop with the hook, and where the victim's options name it."""
    path = config(tmp_path, f'defence = {COARSE}')
    metrics = run(path, tmp_path / 'run')
    assert metrics['attack/images_right'] > 0 and identity(tmp_path / 'run')['defence']['quality'] == 8
    hook = dict(type='DefenceHook', defence=dict(type='JPEG', quality=8))
    plain = config(tmp_path, '')
    defended = stock(plain, tmp_path / 'a', hook, first_three)
    bare = stock(plain, tmp_path / 'b', dict(type='RuntimeInfoHook'), first_three)
    assert metrics[f'clean/{MAP}'] == defended[MAP] != bare[MAP]
    spgd = dict(type='SparsePGD', k=0.01, steps=3, early_stop=False)
    through = dict(type='AttackHook', attack=spgd, goal='vanish', victim=dict(defence=dict(type='JPEG', quality=8)))
    attacked = stock(plain, tmp_path / 'c', through, first_three)
    assert attacked[MAP] == metrics[f'adv/{MAP}']
    path = config(tmp_path, f'victim = dict(defence={COARSE})')
    assert run(path, tmp_path / 'named')[f'adv/{MAP}'] == metrics[f'adv/{MAP}']
    assert identity(tmp_path / 'named') == identity(tmp_path / 'run')
    path = config(tmp_path, f"custom_hooks = [dict(type='DefenceHook', defence={COARSE})]")
    assert run(path, tmp_path / 'hooked')[f'adv/{MAP}'] == metrics[f'adv/{MAP}']


@pytest.mark.parametrize('space', ['input', 'original'])
def test_files_behind_a_defence_leave_a_data_set_that_has_it(tmp_path, space):
    letterbox = 'spgd_yolox_original'
    path = config(tmp_path, f"defence = dict(type='JPEG', quality=12, space='{space}')", letterbox)
    metrics = run(path, tmp_path / 'run')
    assert metrics['attack/geometry_disagreements'] == 0
    written = (tmp_path / 'run/dataset/config.py').read_text()
    assert ('DefenceHook' in written) == (space == 'input') and ("'Defend'" in written) == (space == 'original')
    assert "'sparse_dense_attacks'" in written.partition('custom_imports')[2].partition(')')[0]
    assert main(['verify', str(tmp_path / 'run/dataset'), '--device', 'cpu']) == 0


def test_the_attack_looks_at_what_the_stock_pipeline_makes_of_a_defended_file(tmp_path):
    path = config(tmp_path, "defence = dict(type='RandomResizePad', least=0.8, draws=2, space='original')",
                  'spgd_yolox_original')
    attacker, batches = opened([path, '--work-dir', str(tmp_path / 'run'), '--device', 'cpu', '--limit', '3'])
    with attacker.victim.session(), torch.no_grad():
        task = attacker.open(batches[0])
        assert task.objective.passes == 2
        shown = attacker.files.shown(batches[0]['data_samples'], task.opened.pixels)
        for one, loaded in zip(shown, batches[0]['inputs'], strict=True):
            assert torch.equal(one, loaded)


def test_attacks_come_before_the_defence_of_files_or_not_at_all(tmp_path):
    path = config(tmp_path, "defence = dict(type='JPEG', space='original')")
    with pytest.raises(InputError, match=r"defence.space = 'original' beside threat.grid = 'input'"):
        run(path, tmp_path / 'run')
    path = config(tmp_path, "defence = 'JPEG'\nvictim = dict(defence='Median')")
    with pytest.raises(InputError, match='more than one defence is given'):
        run(path, tmp_path / 'run')
    path = config(tmp_path, """
test_dataloader = dict(num_workers=0, dataset=dict(pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Defend', defence=dict(type='JPEG', space='original')),
    dict(type='Resize', scale=(160, 128), keep_ratio=True), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs')]))""")
    with pytest.raises(InputError, match=r"defence.space = 'original' beside threat.grid = 'input'"):
        run(path, tmp_path / 'run')
    path = config(tmp_path, "defence = dict(type='JPEG', quality=200)")
    with pytest.raises(InputError, match='JPEG: quality = 200, expected an int from 1 to 95'):
        run(path, tmp_path / 'run')


def test_a_hook_in_a_loop_of_ours_is_refused():
    from sparse_dense_attacks.engine import AttackValLoop, DefenceHook

    class Run:
        val_loop = AttackValLoop.__new__(AttackValLoop)
        val_dataloader = type('Loader', (), dict(dataset=None))

    with pytest.raises(InputError, match='DefenceHook: AttackValLoop would attack what is defended already'):
        DefenceHook('JPEG').before_val(Run())


def test_another_defence_is_another_run(tmp_path):
    path = config(tmp_path, f'defence = {COARSE}')
    run(path, tmp_path / 'run')
    with pytest.raises(InputError, match='another defence'):
        run(path, tmp_path / 'run', '--resume', '--cfg-options', 'defence.quality=9')


def test_three_rows_of_one_command(tmp_path, capfd):
    path = config(tmp_path, f"""
defences = dict(coarse={COARSE}, shrunk=dict(type='RandomResizePad', draws=2))
attacks = dict(few=dict(type='SparsePGD', k=0.01, steps=3, early_stop=False))
""")
    argv = ['defend', path, '--work-dir', str(tmp_path / 'table'), '--device', 'cpu', '--limit', '3']
    assert main(argv) == 0
    text = (tmp_path / 'table/defences.md').read_text()
    rows = [[cell.strip() for cell in line.split('|')[1:4]] for line in text.splitlines() if line.startswith('| few')]
    assert rows == [['few', '-', 'undefended'], *(['few', name, row] for name in ('coarse', 'shrunk')
                                                  for row in ('static', 'adaptive'))]
    folder = tmp_path / 'table/few'
    for file in sorted((folder / 'undefended/images').rglob('*.png')):
        shown = folder / 'coarse/static/images' / file.relative_to(folder / 'undefended/images')
        adaptive = folder / 'coarse/adaptive/images' / file.relative_to(folder / 'undefended/images')
        assert shown.read_bytes() == file.read_bytes() != adaptive.read_bytes()
    clean = [json.loads((folder / name / 'metrics.json').read_text())[f'clean/{MAP}']
             for name in ('undefended', 'coarse/static', 'coarse/adaptive')]
    assert clean[0] != clean[1] == clean[2]
    costs = [json.loads((folder / name / 'metrics.json').read_text())['attack/forwards']
             for name in ('undefended', 'coarse/static', 'coarse/adaptive', 'shrunk/adaptive')]
    assert costs == [5, 0, 5, 10]
    before = (folder / 'coarse/adaptive/records.jsonl').stat().st_mtime_ns
    assert main([*argv, '--resume']) == 0
    assert (folder / 'coarse/adaptive/records.jsonl').stat().st_mtime_ns == before
    capfd.readouterr()
    path = config(tmp_path, "defences = dict(jpeg=dict(type='JPEG', quality=0))")
    assert main(['defend', path, '--work-dir', str(tmp_path / 'x')]) == 2
    assert 'error: JPEG: quality = 0, expected an int from 1 to 95' in capfd.readouterr().err
    assert not (tmp_path / 'x').exists(), 'refused before any work'


@pytest.mark.parametrize('own', ["defence = 'BitDepth'", "victim = dict(defence='BitDepth')"])
def test_no_row_is_undefended_behind_a_defence_of_the_config(tmp_path, own):
    path = config(tmp_path, f'defences = dict(coarse={COARSE})\n{own}')
    with pytest.raises(InputError, match=r"a defence of its own \(BitDepth\).*name it among 'defences'"):
        defend.run([path, '--work-dir', str(tmp_path / 'table'), '--device', 'cpu', '--limit', '1'])


def test_a_table_goes_on_with_more_images_and_with_fewer(tmp_path):
    path = config(tmp_path, f'defences = dict(coarse={COARSE})')

    def counted(limit, *extra):
        """How many images each row is of, and the metrics that it is made of."""
        argv = [path, '--work-dir', str(tmp_path / 'table'), '--device', 'cpu', '--limit', str(limit), *extra]
        rows = {line[2]: int(line[3]) for line in defend.run(argv)}
        return rows, [json.loads((tmp_path / 'table/attack' / name / 'metrics.json').read_text())['attack/images']
                      for name in ('undefended', 'coarse/static', 'coarse/adaptive')]

    first = counted(1)
    assert first == (dict(undefended=1, static=1, adaptive=1), [1, 1, 1])
    assert counted(2, '--resume') == (dict(undefended=2, static=2, adaptive=2), [2, 2, 2])
    assert counted(1, '--resume') == first


def test_rows_of_several_attacks_are_not_all_of_one(tmp_path):
    path = config(tmp_path, f"defences = dict(coarse={COARSE})\nattacks = dict(few=dict(type='SparsePGD', k=9))")
    with pytest.raises(InputError, match="--attack sigma_zero beside the 'attacks' of "):
        defend.run([path, '--work-dir', str(tmp_path / 'table'), '--attack', 'sigma_zero'])


@pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'configs/defences').glob('*.py')))
def test_the_demo_models_have_a_table_of_defences(name):
    path = ROOT / f'configs/defences/{name}.py'
    assert f'#     sda defend sparse_dense_attacks::defences/{name}.py' in path.read_text()
    cfg = read_config(str(path))
    attacks, defences = (defend._named(cfg, key, str(path)) for key in ('attacks', 'defences'))
    defend._check(attacks, defences)
    assert set(attacks) == {'spgd', 'sigma_zero'} and len(defences) == 6
    assert cfg.load_from.endswith(f'{name}.pth')


def test_a_patch_of_each_defence_is_adaptive(tmp_path, capfd):
    pattern = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    for name, colours in (('undefended', pattern), ('coarse', 1 - pattern)):
        Artefact(colours, torch.ones(16, 16) > 0, Fixed(), {}).write(tmp_path / name)
    artefact = str(tmp_path / '{defence}/patch.json')
    path = config(tmp_path, f"""
defences = dict(coarse={COARSE})
attacks = dict(patch=dict(type='UniversalPatch', artefact={artefact!r}))
""")
    argv = ['defend', path, '--work-dir', str(tmp_path / 'table'), '--device', 'cpu', '--limit', '2']
    assert main(argv) == 0
    rows = ('undefended', 'coarse/static', 'coarse/adaptive')
    used = [identity(tmp_path / 'table/patch' / row)['attack']['artefact'] for row in rows]
    first, second = (next((tmp_path / 'table/patch' / row / 'images').rglob('*.png')).read_bytes() for row in rows[:2])
    assert used[0] == used[1] != used[2] and first == second
    shutil.rmtree(tmp_path / 'coarse')
    assert main([*argv, '--work-dir', str(tmp_path / 'x')]) == 2
    assert str(tmp_path / 'coarse/patch.json') in capfd.readouterr().err and not (tmp_path / 'x').exists()


def test_an_attack_may_be_a_name_or_the_only_one_and_its_texts_are_replaced_throughout(tmp_path):
    path = config(tmp_path, f"defences = dict(coarse={COARSE})")
    cfg = read_config(path)
    cfg.attack = dict(type='Descent', base=dict(type='UniversalPatch', artefact='{defence}/patch.json'))
    [own] = defend._named(cfg, 'attacks', path).values()
    defend._set_attack(cfg, own, 'coarse')
    assert cfg.attack == dict(type='Descent', base=dict(type='UniversalPatch', artefact='coarse/patch.json'))
    cfg.attacks = dict(few='SparsePGD')
    [named] = defend._named(cfg, 'attacks', path).values()
    defend._check(dict(few=named), {})
    defend._set_attack(cfg, named, 'coarse')
    assert cfg.attack == 'SparsePGD'


@pytest.mark.parametrize('name', sorted(path.stem for path in (ROOT / 'configs/defences/universal').glob('*.py')))
def test_the_demo_models_have_a_table_of_universal_patches(name):
    path = ROOT / f'configs/defences/universal/{name}.py'
    cfg = read_config(str(path))
    attacks, defences = (defend._named(cfg, key, str(path)) for key in ('attacks', 'defences'))
    assert list(attacks) == ['patch'] and len(defences) == 6 and cfg.load_from.endswith(f'{name}.pth')
    learned = read_config(re.search(r'sda fit sparse_dense_attacks::(\S+)', path.read_text())[1].join(
        ['configs/', '']))
    held_out = learned.test_dataloader.dataset.indices
    assert cfg.test_dataloader.dataset.indices == held_out, 'judged on what it was not learned on'


def test_transfer_to_a_defended_victim(tmp_path):
    models = tmp_path / 'table.py'
    base = str(ROOT / 'configs/spgd_yolox.py')
    models.write_text(f"""
models = dict(bare=dict(config={base!r}), defended=dict(config={base!r}, defence={COARSE}),
              files=dict(config={base!r}, defence=dict(type='JPEG', quality=8, space='original')))
sources = dict(bare=dict(model='bare'), adaptive=dict(model='defended'))
attack = dict(type='SparsePGD', k=100, steps=4, early_stop=False)
limit, seeds = 2, 1
work_dir = {str(tmp_path / 'out')!r}
""")
    assert main(['transfer', str(models), '--device', 'cpu']) == 0
    cells = {file.stem: json.loads(file.read_text()) for file in (tmp_path / 'out/cells').glob('*.json')}
    assert len(cells) == 6
    found = {tuple(name.split('__')): cell['changes'] for name, cell in cells.items()}
    assert found['bare', 'bare'] != found['bare', 'defended']
    assert found['bare', 'files'] == found['bare', 'defended'], 'the network sees the file as it is'
