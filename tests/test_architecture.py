"""The import rules of docs/architecture.md, "Import rules", read from the source."""
import ast
import sys
from pathlib import Path

import pytest

import sparse_dense_attacks
from tests import forks

NAME = 'sparse_dense_attacks'
PACKAGE = Path(sparse_dense_attacks.__file__).parent
FILES = sorted(PACKAGE.rglob('*.py'))
CORE = ('ops', 'groups', 'patches', 'attacks', 'objectives', 'defences')
MODEL_LIBRARIES = {'mmdet', 'mmseg', 'mmpretrain'}
MAY_IMPORT = {  # of this package
    'ops': {'ops', 'types', 'registry', 'errors'},
    'groups': {'groups', 'registry', 'errors', 'checks'},
    'patches': {'patches', 'ops', 'groups', 'objectives.base', 'types', 'registry', 'errors', 'checks'},
    'attacks': {'attacks', 'patches', 'ops', 'groups', 'objectives.base', 'types', 'registry', 'errors', 'checks'},
    'objectives': {'objectives', 'ops', 'types', 'registry', 'errors', 'checks'},
    'defences': {'defences', 'attacks.rng', 'ops', 'registry', 'errors', 'checks'},
    'models': {'models'}, 'types': set(), 'errors': set(), 'registry': {'errors'}, 'checks': {'errors', 'registry'},
}
OUTSIDE = {  # what rooms beside the core may import of other packages, and of this one
    'results': ({'torch', 'numpy', 'PIL'}, {'results', 'types', 'errors'}),
    'evaluation': ({'torch', 'numpy', 'scipy', 'matplotlib', 'PIL', 'jinja2'}, {'evaluation', 'results', 'ops', 'errors'}),
    'testing': ({'torch'}, {'testing', 'victims', 'objectives', 'types', 'errors'}),
    'compat': ({'torch', 'torchvision', 'mmcv'}, {'compat', 'errors'}),
}
RUNNER = ('engine', 'cli')  # who knows mmengine's Runner


def imports(source: str, module: str) -> set[str]:
    """Absolute names of all modules a file imports, wherever in the file; ``module`` is the package the file lies in."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.rsplit('.', node.level - 1)[0] if node.level > 1 else module
            name = '.'.join(part for part in ((base if node.level else ''), node.module) if part)
            # `from .. import x` may name a module as well as an object
            found |= {name} if node.module else {f'{name}.{alias.name}' for alias in node.names}
    return found


def imports_of(path: Path) -> set[str]:
    return imports(path.read_text(), '.'.join((NAME, *path.relative_to(PACKAGE).parts[:-1])))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def test_reader_resolves_every_form_of_import():
    lines = ['import torch.nn', 'from . import a', 'from .b import c', 'from .. import d', 'from ..e.f import g', 'def f():',
             '    from mmdet import h']
    assert imports('\n'.join(lines), 'p.q') == {'torch.nn', 'p.q.a', 'p.q.b', 'p.d', 'p.e.f', 'mmdet'}


@pytest.mark.parametrize('path', [p for p in FILES if part_of(p) in MAY_IMPORT], ids=relative)
def test_core_imports_torch_and_its_own_layers_only(path):
    for name in imports_of(path):
        top, _, inside = name.partition('.')
        if top == NAME:
            assert any(f'{inside}.'.startswith(f'{allowed}.') for allowed in MAY_IMPORT[part_of(path)]), name
        else:
            # a user's own pattern, artefact or label map; a codec
            pictures = path.name in ('picture.py', 'artefact.py', 'segmentation.py', 'jpeg.py')
            picture_file = pictures and top in ('PIL', 'numpy')
            assert top == 'torch' or top in sys.stdlib_module_names or picture_file, name


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_model_libraries_are_known_to_victims_and_mmengine_to_engine(path):
    tops = {name.partition('.')[0] for name in imports_of(path)}
    if part_of(path) not in ('victims', 'demo') and path.name != 'zoo.py':  # the demo's scenes are a data set of each library
        assert not tops & MODEL_LIBRARIES
    if part_of(path) not in ('engine', 'cli', 'demo'):
        assert 'mmengine' not in tops or (part_of(path) == 'victims' and tops & MODEL_LIBRARIES), 'a mere torch victim needs none'
    if part_of(path) not in RUNNER:
        assert not any(f'{name}.'.startswith('mmengine.runner.') for name in imports_of(path))


@pytest.mark.parametrize('path', [p for p in FILES if part_of(p) in OUTSIDE], ids=relative)
def test_rooms_beside_the_core_import_what_they_need_only(path):
    others, ours = OUTSIDE[part_of(path)]
    for name in imports_of(path):
        top, _, inside = name.partition('.')
        if top == NAME:
            assert any(f'{inside}.'.startswith(f'{allowed}.') for allowed in ours), name
        else:
            assert top in others or top in sys.stdlib_module_names, name


def test_every_room_has_a_rule():
    """A new folder is either held to a list of imports, or named here."""
    free = {'victims', 'engine', 'cli', 'demo'}  # model libraries and mmengine, see the tests above
    rooms = {p.name for p in PACKAGE.iterdir() if (p / '__init__.py').is_file()}
    assert rooms <= free | MAY_IMPORT.keys() | OUTSIDE.keys()


@pytest.mark.parametrize('path', [p for p in FILES if part_of(p) == 'victims'], ids=relative)
def test_a_victim_file_knows_one_model_library(path):
    found = {name.partition('.')[0] for name in imports_of(path)} & MODEL_LIBRARIES
    assert found <= {path.stem}


@pytest.mark.parametrize('part', CORE)
def test_core_texts_name_no_openmmlab_class(part):
    for path in (PACKAGE / part).rglob('*.py'):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {'DetDataSample', 'InstanceData', 'SegDataSample', 'DataSample'}, path


def test_package_works_without_openmmlab(tmp_path):
    code = f"""
import sys
for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'):
    sys.modules[name] = None  # what Python does for a package that is not there
import torch
from {NAME} import ATTACKS, GOALS
from {NAME}.victims import TorchClassifier
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
scene = TorchClassifier(model).open(torch.rand(2, 3, 2, 2), torch.tensor([0, 1]))
result = ATTACKS.build('sparse_pgd', k=1, steps=3)(GOALS.build('untargeted').objective(scene))
assert len(result.images) == 2 and '{NAME}.engine' not in sys.modules
"""
    forks.run(['-c', code], tmp_path / 'printed.txt')
