"""Pages that comments, docstrings and other pages point to exist, and every attack has a page of one form."""
import io
import re
import tokenize
from pathlib import Path

import pytest

from sparse_dense_attacks import ATTACKS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / 'docs/attacks'
SECTIONS = ('Use', 'Steps', 'Cost', 'Differences from the published code', 'Limits')
CITATION = re.compile(r'(?<![\w/<])((?:[\w.-]+/)*[A-Za-z][\w-]*\.md)\b(?:,\s+"([^"]+)")?')
LINK = re.compile(r'\]\(([^)#:]+)\)')
WRITTEN_BY_RUNS = {'judging.md', 'report.md', 'page.md', 'grid.md', 'transfer.md', 'defences.md'}  # in tests, or by `sda`


def texts_of(path: Path) -> str:
    """Comments and strings of a Python file."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return '\n'.join(token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING))


def headings(path: Path) -> set[str]:
    return {line.lstrip('#').strip() for line in path.read_text().splitlines() if line.startswith('#')}


def wrong_citations(text: str) -> list[str]:
    wrong = []
    for name, section in CITATION.findall(re.sub(r'\s*\n\s*', ' ', text)):
        page = ROOT / name
        if page.name in WRITTEN_BY_RUNS:
            continue
        if not page.is_file() or (section and section not in headings(page)):
            wrong.append(f'{name} {section}'.strip())
    return wrong


def sources() -> list[Path]:
    rooms = ('sparse_dense_attacks', 'tests', 'tools', 'configs')
    return [path for room in rooms for path in sorted((ROOT / room).rglob('*.py'))
            if path.name != 'test_docs.py']


def test_citations_are_understood():
    assert wrong_citations('see docs/attacks/gse.md, "Steps", and docs/architecture.md,\n    "Import rules"') == []
    assert wrong_citations('docs/attacks/gse.md, "Nothing"; docs/none.md; DESIGN.md section 2') == [
        'docs/attacks/gse.md Nothing', 'docs/none.md', 'DESIGN.md']


@pytest.mark.parametrize('room', ['sparse_dense_attacks', 'tests', 'tools', 'configs'])
def test_every_page_that_code_cites_exists(room):
    wrong = {path.relative_to(ROOT).as_posix(): found for path in sources()
             if path.relative_to(ROOT).parts[0] == room and (found := wrong_citations(texts_of(path)))}
    assert not wrong


@pytest.mark.parametrize('page', sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob('*.md'))
                         + sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / 'docs').rglob('*.md')))
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not missing


def pages_of_attacks() -> set[str]:
    modules = {ATTACKS.get(name).__module__ for name in ATTACKS}
    return {module.split('.')[2] for module in modules if module.startswith('sparse_dense_attacks.')}


def test_every_attack_has_a_page_and_every_page_an_attack():
    written = {path.stem for path in PAGES.glob('*.md')} - {'README'}
    assert written == pages_of_attacks()
    listed = set(re.findall(r'\]\((\w+)\.md\)', (PAGES / 'README.md').read_text()))
    assert listed == written


@pytest.mark.parametrize('name', sorted(pages_of_attacks()))
def test_pages_of_attacks_have_one_form(name):
    """Which sections there are, that the file it is about exists, and that the paper is the class's own."""
    text = (PAGES / f'{name}.md').read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith('## ')] == list(SECTIONS)
    source = re.search('Source: `(attacks/[^`]+)`', text).group(1)  # a file, or a folder where it takes several
    assert source.removesuffix('.py').strip('/') == f'attacks/{name}'
    place = ROOT / 'sparse_dense_attacks' / source
    code = '\n'.join(path.read_text() for path in ([place] if place.is_file() else place.glob('*.py')))
    own = set(re.findall(r'Reference: arXiv (\d{4}\.\d{5})', code))
    assert own <= set(re.findall(r'arXiv (\d{4}\.\d{5})', text.splitlines()[0]))
