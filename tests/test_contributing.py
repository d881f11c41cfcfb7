"""What CONTRIBUTING.md shows works: its files are written down as they stand there, and their tests run."""
import re
from pathlib import Path

from tests import forks

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'```python\n# ([\w/]+\.py)\n(.*?)```', re.DOTALL)


def blocks() -> dict[str, str]:
    return dict(BLOCK.findall((ROOT / 'CONTRIBUTING.md').read_text()))


def test_each_kind_is_one_file_and_its_test():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    assert text.count('```python') == len(blocks()), 'a block without the name of its file is not run'
    kinds = {name for name in blocks() if not name.startswith('test_')}
    assert {f'test_{name}' for name in kinds} == blocks().keys() - kinds
    assert len(kinds) == len(re.findall(r'^## ', text, re.MULTILINE)) == 4


def test_the_examples_pass(tmp_path):
    """In a process of its own: what they register must not show up in other tests."""
    for name, code in blocks().items():
        (tmp_path / name).write_text(code)
    command = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-o', f'pythonpath={tmp_path} {ROOT}', '--rootdir', tmp_path,
               tmp_path]
    printed = forks.run(command, tmp_path / 'printed.txt', cwd=tmp_path)
    assert re.search(r'\b6 passed', printed), printed
