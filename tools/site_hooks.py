"""What mkdocs cannot do by itself: pages that lie where the forge looks for them, and notebooks, become pages of the site.

Links are written as the forge follows them, from the file that holds them; here they become links between pages.
"""
import json
import os
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
# Page of the site -> file of the checkout.
ELSEWHERE = {
    'contributing': 'CONTRIBUTING.md',
    'security': 'SECURITY.md',
    'changelog': 'CHANGELOG.md',
    'victims': 'sparse_dense_attacks/victims/README.md',
    'operators': 'sparse_dense_attacks/compat/README.md',
}
PAGES = {source: f'{page}.md' for page, source in ELSEWHERE.items()}
ROLE = re.compile(r':\w+:`~?(?:\w+\.)*(\w+)`')
LINK = re.compile(r'\]\(([^)\s:#]+)(#[^)\s]*)?\)')


def on_files(files, config):
    """Adds the pages that are no files of docs/."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, f'{page}.md', content=(ROOT / source).read_text()))
    for notebook in sorted(DOCS.glob('notebooks/*.ipynb')):
        files.append(File.generated(config, f'notebooks/{notebook.stem}.md', content=notebook_page(notebook)))
    return files


def on_page_markdown(markdown, page, **_):
    source = ROOT / ELSEWHERE.get(page.file.src_uri.removesuffix('.md'), f'docs/{page.file.src_uri}')
    return LINK.sub(lambda link: f']({site_link(link[1], source, page.file.src_uri)}{link[2] or ""})', markdown)


def site_link(target: str, source: Path, page: str) -> str:
    """What a link in a file of the checkout is called on its page of the site; unknown ones stay, for mkdocs to complain of."""
    found = Path(os.path.normpath(source.parent / target))
    place = found.relative_to(ROOT).as_posix()
    if place in PAGES:
        place = PAGES[place]
    elif place.startswith('docs/'):
        place = place.removeprefix('docs/')
        if Path(place).with_suffix('.md') != Path(page):  # else the file itself
            place = place.replace('.ipynb', '.md')
    else:
        return target
    return os.path.relpath(place, os.path.dirname(page) or '.')


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: text, code, and what was printed or drawn."""
    parts = []
    for cell in json.loads(path.read_text())['cells']:
        text = ''.join(cell['source'])
        if cell['cell_type'] != 'code':
            parts.append(text)
            continue
        parts.append(f'```python\n{text}\n```')
        for output in cell['outputs']:
            shown = output.get('data', {})
            if 'image/png' in shown:
                parts.append(f'![{path.stem}: output](data:image/png;base64,{"".join(shown["image/png"]).strip()})')
            else:
                printed = ''.join(output.get('text') or shown['text/plain'])
                parts.append(f'```text\n{printed.rstrip()}\n```')
    parts.append(f'*This page is a notebook: [{path.name}]({path.name}).*')
    return '\n\n'.join(parts) + '\n'


class Docstrings(griffe.Extension):
    """Docstrings as Markdown: doctests are code, and roles are names."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r'`\1`', re.sub(r'^Example:$', 'Examples:', obj.docstring.value, flags=re.MULTILINE))
