"""What the pages show works: commands are understood, configs exist, code runs, notebooks run, and the site holds every page."""
import argparse
import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from sparse_dense_attacks import ATTACKS, cli
from sparse_dense_attacks.errors import InputError
from tests import forks
from tests.browser import DESK, PHONE, Browser, find_browser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
MARKDOWN = sorted([*ROOT.glob('*.md'), *DOCS.rglob('*.md')])
FENCED = re.compile(r'^```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r'(?:\A|\n)\n((?:(?: {4}.*)?\n)*(?: {4}.+\n))(?=\n|\Z)')  # not within a list
SPAN = re.compile(r'`((?:sda|make|python) [^`\n]*)`')
# What runs by itself, without files of the reader's.
RUNNING = ('docs/guides/classifier.md', 'docs/guides/detector.md', 'docs/guides/segmenter.md', 'docs/extending.md')
DIAGRAM = ROOT / 'docs/architecture.md'  # its indented block is a drawing
OWN_NAMES = {'my_config.py', 'my_training.py', 'my_table.py', 'CONFIG'}  # of the reader's
PROGRAMS = ('sda', 'make', 'python', 'torchrun', 'srun')


def blocks(page: Path) -> list[str]:
    """Blocks of code that are not fenced."""
    return [re.sub(r'^ {4}', '', block, flags=re.MULTILINE) for block in INDENTED.findall(FENCED.sub('', page.read_text()))]


def is_commands(block: str) -> bool:
    return block.split(maxsplit=1)[0].removeprefix('.venv/bin/') in PROGRAMS


def commands(page: Path) -> list[list[str]]:
    """Command lines of blocks as words; what follows a # is not of them."""
    lines = [line for block in blocks(page) if is_commands(block) for line in block.replace('\\\n', ' ').splitlines()]
    return split(lines)


def mentions(page: Path) -> list[list[str]]:
    """Commands within the text, which may leave their arguments out."""
    return split(SPAN.findall(FENCED.sub('', page.read_text())))


def split(lines: list[str]) -> list[list[str]]:
    found = [shlex.split(line, comments=True) for line in lines if '...' not in line and 'COMMAND' not in line]
    return [[words[0].removeprefix('.venv/bin/'), *words[1:]] for words in found if words]


def as_sda(words: list[str]) -> list[str] | None:
    """What ``sda`` is told, also by the scripts of the same names in tools/; None for other programs."""
    for start in ('sda', 'sparse_dense_attacks.cli'):  # also behind a launcher
        if start in words:
            return words[words.index(start) + 1:]
    script = re.fullmatch(r'tools/(\w+)\.py', words[1]) if words[0] == 'python' else None
    return [script[1], *words[2:]] if script and script[1] in cli.COMMANDS else None


class Found(Exception):
    """In place of running a command: its parser."""


@pytest.fixture
def parser_of(monkeypatch):
    """The parser of a command of ``sda``."""
    def stop(parser, *_):
        raise Found(parser)

    def find(name):
        with monkeypatch.context() as patch, pytest.raises(Found) as found:
            patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
            importlib.import_module(f'sparse_dense_attacks.cli.{name}').main([])
        return found.value.args[0]
    return find


def test_commands_are_found():
    words = commands(ROOT / 'README.md')
    assert ['make', 'attack'] in words
    assert ['attack', 'my_config.py', '--check'] in [as_sda(one) for one in commands(ROOT / 'docs/guides/detector.md')]
    assert len({tuple(one) for page in MARKDOWN for one in commands(page)}) > 50


def told(lines) -> set[tuple[str, ...]]:
    """What pages tell ``sda``, each once; of commands of the past, in the changelog, nothing."""
    return {tuple(words) for page in MARKDOWN if page.name != 'CHANGELOG.md' for one in lines(page) if (words := as_sda(one))}


@pytest.mark.openmmlab
def test_every_sda_command_is_understood_and_its_config_builds(parser_of):
    from sparse_dense_attacks.cli.attack import _attack_and_goal
    from sparse_dense_attacks.cli.configs import find_config, read_config
    for name, *words in sorted(told(commands)):
        try:
            args = parser_of(name).parse_args(words)
        except SystemExit:
            pytest.fail(f'not understood: sda {name} {shlex.join(words)}')
        config = getattr(args, 'config', None)
        if config is None or config in OWN_NAMES:
            continue
        path = ROOT / config if config.startswith('configs/') else find_config(config)
        assert path.is_file(), config
        if name == 'attack' and path.is_relative_to(ROOT) and 'patch.json' not in shlex.join(words):  # which a fit leaves
            try:
                _attack_and_goal(read_config(str(path)), args)
            except InputError as error:
                pytest.fail(f'sda {name} {shlex.join(words)}: {error}')


def test_commands_within_the_text_have_the_options_that_it_names(parser_of):
    for name, *words in sorted(told(mentions)):
        options = {'--version'} if name == '--version' else parser_of(name)._option_string_actions
        assert {word for word in words if word.startswith('--')} <= set(options), (name, words)


def test_other_programs_that_pages_name_exist():
    targets = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    for page in MARKDOWN:
        for words in commands(page) + mentions(page):
            if words[0] == 'make':
                assert words[1] in targets, (page.name, words)
            if words[0] == 'python' and words[1].startswith('tools/') and page.name != 'CONTRIBUTING.md':
                assert (ROOT / words[1]).is_file(), (page.name, words)


@pytest.mark.parametrize('page', [page for page in MARKDOWN if page != DIAGRAM], ids=lambda page: page.stem)
def test_code_on_pages_is_python(page):
    shown = [code for language, code in FENCED.findall(page.read_text()) if language == 'python']
    for code in [*shown, *(block for block in blocks(page) if not is_commands(block))]:
        ast.parse(code)


@pytest.mark.slow
def test_code_of_guides_runs(tmp_path):
    """All in one process, each page in a file of its own."""
    files = []
    for name in RUNNING:
        code = '\n'.join(code for language, code in FENCED.findall((ROOT / name).read_text()) if language == 'python')
        assert code, name
        files.append(tmp_path / f'{Path(name).stem}_page.py')
        files[-1].write_text(code)
    run_all = f'import runpy\nfor file in {[str(file) for file in files]}:\n    runpy.run_path(file, run_name="__main__")\n'
    printed = forks.run(['-c', run_all + 'print("all ran")'], tmp_path / 'printed.txt', cwd=tmp_path)
    assert 'all ran' in printed, printed
    assert '[True, True, True, True]' in printed, 'the classes of docs/extending.md do nothing'


@pytest.mark.openmmlab
@pytest.mark.slow
@pytest.mark.parametrize('name', ['classifier', 'detector'])
def test_notebooks_run(name, tmp_path):
    forks.run([ROOT / 'tools/notebooks.py', '--check', DOCS / f'notebooks/{name}.ipynb'], tmp_path / 'printed.txt', cwd=tmp_path)


def test_notebooks_are_small_and_have_been_run():
    notebooks = sorted(DOCS.glob('notebooks/*.ipynb'))
    assert [one.stem for one in notebooks] == ['classifier', 'detector']
    for path in notebooks:
        assert path.stat().st_size < 200_000
        code = [cell for cell in json.loads(path.read_text())['cells'] if cell['cell_type'] == 'code']
        assert [cell['execution_count'] for cell in code] == list(range(1, len(code) + 1))
        assert sum(bool(cell['outputs']) for cell in code) >= 4


def figure_settings() -> dict[str, dict]:
    """The attacks of tools/analysis_tools/attack_figures.py, which needs no import for that."""
    source = (ROOT / 'tools/analysis_tools/attack_figures.py').read_text()
    value, = (node.value for node in ast.parse(source).body if isinstance(node, ast.Assign) and node.targets[0].id == 'ATTACKS')
    return eval(compile(ast.Expression(value), 'attack_figures.py', 'eval'))


@pytest.mark.parametrize('page', sorted(DOCS.glob('attacks/[!R]*.md')), ids=lambda page: page.stem)
def test_pages_of_attacks_show_a_config_a_command_and_a_figure(page):
    use = page.read_text().partition('\n## Use\n')[2].partition('\n## ')[0]
    config = eval(re.search(r'`attack = (dict\(.*?\))`', use)[1])
    assert ATTACKS.get(config['type']).__module__.split('.')[2] == page.stem
    picture, = re.findall(r'!\[.+\]\((.+\.png)\)', use)
    assert (page.parent / picture).is_file()
    if page.stem in ('universal_patch', 'foreign_attack'):  # of a file, and of a function, that the reader has
        return
    assert ATTACKS.build(config) == ATTACKS.build(figure_settings()[page.stem]), 'the figure is of other settings than the page'
    command, = (as_sda(words) for words in commands(page) if words[0] == 'sda' and '--limit' in words)
    name, options = command[command.index('--attack') + 1], command[command.index('--cfg-options') + 1:]
    assert ATTACKS.get(name) is ATTACKS.get(config['type'])
    given = dict(option.removeprefix('attack.').split('=') for option in options)
    assert given == flat({key: value for key, value in config.items() if key != 'type'})


def flat(config: dict, prefix: str = '') -> dict[str, str]:
    found = {}
    for key, value in config.items():
        found |= flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {f'{prefix}{key}': str(value)}
    return found


@pytest.mark.openmmlab
@pytest.mark.slow
def test_figures_can_be_drawn_again(tmp_path):
    tool = ROOT / 'tools/analysis_tools/attack_figures.py'
    printed = forks.run([tool, 'foreign_attack', '--out', tmp_path], tmp_path / 'printed.txt', cwd=tmp_path)
    pixels, = re.findall(r'^foreign_attack: (\d+) pixels, .* 2 forwards, 1 backwards$', printed, re.MULTILINE)
    assert int(pixels) > 1000
    with Image.open(tmp_path / 'foreign_attack.png') as new, Image.open(DOCS / 'attacks/foreign_attack.png') as old:
        assert new.size == old.size


# The site

def names(nav) -> list[str]:
    """Pages of a navigation, however deep."""
    if isinstance(nav, str):
        return [nav]
    return [name for part in (nav.values() if isinstance(nav, dict) else nav) for name in names(part)]


def elsewhere() -> dict[str, str]:
    """Pages of the site that lie outside docs/."""
    source = (ROOT / 'tools/site_hooks.py').read_text()
    value, = (node.value for node in ast.parse(source).body if isinstance(node, ast.Assign) and node.targets[0].id == 'ELSEWHERE')
    return {f'{page}.md': source for page, source in ast.literal_eval(value).items()}


def test_every_page_is_in_the_navigation_once():
    listed = names(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav'])
    assert all((ROOT / source).is_file() for source in elsewhere().values())
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob('*.md')} | elsewhere().keys()
    pages |= {f'notebooks/{one.stem}.md' for one in DOCS.glob('notebooks/*.ipynb')}
    assert sorted(listed) == sorted(pages)


def test_every_public_name_is_on_a_page_of_the_api():
    from sparse_dense_attacks import public
    text = '\n'.join(page.read_text() for page in DOCS.glob('api/*.md'))
    shown = {name.rpartition('.')[2] for name in re.findall(r'^::: (\S+)', text, re.MULTILINE)}
    registries = {name for name in public.__all__ if name.isupper() and name.endswith('S')}
    assert set(public.__all__) - registries <= shown
    assert 'Registry' in shown


class Fetched(HTMLParser):
    """Addresses that a page has its browser fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ('script', 'img', 'iframe', 'source') and given.get('src'):
            self.found.append(given['src'])
        if tag == 'link' and given.get('rel') not in ('canonical', 'next', 'prev'):
            self.found.append(given['href'])


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('mkdocs', reason="NOT TESTED: the site; install the extra 'docs'")
    pytest.importorskip('mkdocstrings_handlers.python', reason="NOT TESTED: the site; install the extra 'docs'")
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--site-dir', str(folder)], cwd=ROOT, text=True,
                          capture_output=True, check=False, env=os.environ | {'NO_MKDOCS_2_WARNING': '1'})
    said = done.stdout + done.stderr
    assert done.returncode == 0 and 'WARNING' not in said, said
    return folder


def test_the_site_holds_every_page_and_fetches_nothing(site):
    for name in names(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav']):
        page = site / (name.removesuffix('.md') + '.html').replace('README', 'index')
        fetched = Fetched()
        fetched.feed(page.read_text())
        for address in fetched.found:
            assert address.startswith('data:') or (page.parent / address.partition('?')[0]).exists(), (name, address)


@pytest.mark.skipif(find_browser() is None, reason='NOT TESTED: the site in a browser; install chromium')
def test_the_site_from_disk_in_a_browser(site):
    """Nothing goes wrong, nothing is fetched, nothing is wider than the screen, and the search finds."""
    browser = Browser(find_browser())
    try:
        for name in ('index.html', 'attacks/sigma_zero.html', 'api/attacks.html', 'notebooks/detector.html'):
            for screen in (DESK, PHONE):
                browser.open(site / name, screen)
                assert browser.run('document.documentElement.scrollWidth <= innerWidth'), (name, screen)
                assert not browser.complaints and all(one.startswith('file:') for one in browser.requests), (name, screen)
        browser.open(site / 'index.html')
        found = browser.run("""(async () => {
            const field = document.querySelector('.md-search__input');
            field.focus();
            field.value = 'Sparse-PGD';
            for (let tries = 0; tries < 100; tries++) {
                field.dispatchEvent(new Event('keyup', {bubbles: true}));
                await new Promise((done) => setTimeout(done, 100));
                const results = document.querySelectorAll('.md-search-result__link').length;
                if (results) return results;
            }
            return 0;
        })()""")
        assert found
    finally:
        browser.close()
