"""``sda report``: the page in a browser, what it says of runs of all kinds, the table of results."""
import csv
import json
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image

from sparse_dense_attacks.cli import common, report
from sparse_dense_attacks.evaluation import shots, thumbnails
from sparse_dense_attacks.evaluation.comparison import WORST, rows_of
from sparse_dense_attacks.results import Record, ResultStore, Run, describe
from sparse_dense_attacks.results.run import FORMAT
from sparse_dense_attacks.results.views import Views
from sparse_dense_attacks.screen import printable
from sparse_dense_attacks.threat_model import ThreatModel
from tests.browser import DESK, PHONE, Browser, find_browser

EVIL = '<img src=x onerror=alert(1)>&"\'</script>'
SIZE = (48, 64)


def make_run(folder, images=4, attack='SparsePGD', goal='Vanish', kind='boxes', name='a/{}.png', views=True, finish=True,
             changed=lambda i: i + 1, success=lambda i: i % 2 == 0, size=SIZE, threat=None, **identity):
    """A work dir as ``sda attack`` leaves it, of drawn images with random pixels."""
    rng = np.random.default_rng(0)
    store = ResultStore(folder)
    threat = describe(threat or ThreatModel())
    store.start(dict(identity=dict(attack=dict(type=attack, k=5), goal=dict(type=goal), threat=threat, **identity),
                     command=f'tools/attack.py {EVIL}', checkpoint='weights/net.pth', versions=dict(torch=EVIL)))
    kept = Views(folder)
    kept.name_classes([EVIL, 'dog', 'cat'])
    rows, columns = np.mgrid[:size[0], :size[1]]
    for i in range(images):
        key = name.format(i)
        clean = np.dstack([rows * 3 + i, columns * 2, rows + columns]).astype(np.uint8)
        adversarial = clean.copy()
        flat = rng.choice(size[0] * size[1], changed(i), replace=False)
        adversarial.reshape(-1, 3)[flat] ^= 255
        store.add(Record(key, bool(success(i)), bool(success(i)), True, l0_pixels=changed(i), l0_elements=3 * changed(i),
                         seconds=1.0, measures=dict(anc=float(i), IS=None, geometry_disagrees=False)), adversarial)
        if views:
            answers = dict(boxes=(dict(boxes=[[8, 8, 40, 32]], labels=[0], scores=[0.9]), dict(boxes=[], labels=[], scores=[])),
                           labels=((rows % 3).astype(np.uint8), np.full(size, 255, np.uint8)),
                           classes=(dict(label=0), dict(label=2)))
            kept.add(key, clean, adversarial, answers[kind])
    if finish:
        store.write_json('metrics.json', {'clean/mAP': 0.5, 'adv/mAP': 0.25, 'attack/images': images})
    store.close()
    return folder


def make_transfer(folder):
    (folder / 'gallery').mkdir(parents=True)
    head = 'source,victim,kind,measure,clean,adversarial,value,low,high,images'
    lines = [f'"{EVIL}",b,attack,change,0,0.9,0.9,0.8,1,8', f'"{EVIL}",b,random,change,0,0.1,0.1,0,0.2,8',
             f'"{EVIL}",b,attack,change_excess,,,0.8,0.7,0.9,8']
    (folder / 'transfer.csv').write_text('\n'.join([head, *lines]) + '\n')
    table = f'| source | b |\n| --- | --- |\n| {EVIL} | **0.9** (d) |'
    (folder / 'transfer.md').write_text(f'# Transfer\n\n{table}\n\n## Notes\n\n- note one\n')
    Image.new('RGB', (30, 20), 'red').save(folder / 'gallery' / f'{EVIL.replace("/", "_")}__b.png')
    return folder


def page_of(*folders, out, options=()):
    report.run([*map(str, folders), '--out', str(out), *options])
    return (out / 'report.html').read_text()


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1))


# What the page says

def test_every_name_is_escaped(tmp_path):
    run = make_run(tmp_path / '<b>run&', name='{}' + EVIL.replace('/', ''), kind='classes')
    page = page_of(run, make_transfer(tmp_path / 'moved'), out=tmp_path / 'out')
    assert '<img src=x' not in page and '<b>run' not in page and page.count('</script>') == 2
    assert '&lt;b&gt;run&amp;' in page and data_of(page)['images'][0]['key'] == '0' + EVIL.replace('/', '')


def test_the_page_needs_nothing_else(tmp_path):
    page = page_of(make_run(tmp_path / 'run'), make_transfer(tmp_path / 'moved'), out=tmp_path / 'out')
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page.partition('<script')[0])
    assert "default-src 'none'" in page and 'http' not in re.sub(r'http-equiv|http://www.w3.org/2000/svg', '', page)


def test_links_lead_to_the_stored_images(tmp_path):
    run = make_run(tmp_path / 'a run#1', name='x y/{}%&.png')
    page = page_of(run, out=tmp_path / 'deep/out')
    from urllib.parse import unquote
    for one, record in zip(data_of(page)['images'], Run.load(run).records, strict=True):
        assert (tmp_path / 'deep/out' / unquote(one['link'])).resolve() == (run / record.file).resolve()


def test_pictures_show_exactly_the_changed_pixels(tmp_path):
    run = make_run(tmp_path / 'run', images=1, changed=lambda i: 40)
    one, = data_of(page_of(run, out=tmp_path / 'out'))['images']
    over = decoded(one['over'])
    adversarial = Run.load(run).image(Run.load(run).records[0])
    changed = over[..., 3] > 0
    assert changed.sum() == 40 and (over[changed][:, :3] == adversarial[changed]).all()
    assert one['boxes'] == [[[8, 8, 40, 32, 0, 0.9]], []] and one['clean'] and one['said'] == '1 → 0 objects'
    base = decoded(one['base'])[..., :3].astype(int)
    rows, columns = np.mgrid[:SIZE[0], :SIZE[1]]
    assert np.abs(base - np.dstack([rows * 3, columns * 2, rows + columns])).mean() < 6  # the clean one, nearly


def decoded(uri):
    import base64
    import io
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))) as image:
        return np.array(image.convert('RGBA'))


def test_runs_without_views_say_that_clean_images_are_missing(tmp_path):
    one = data_of(page := page_of(make_run(tmp_path / 'run', views=False), out=tmp_path / 'out'))['images'][0]
    assert not one['clean'] and one['base'] and not one['over'] and 'clean image is missing' in one['notes'][0]
    assert '4 images count nowhere here' in page


def test_a_clean_image_that_was_not_attacked_is_not_shown(tmp_path):
    run = make_run(tmp_path / 'run', images=1)
    path = run / 'views/changed/a/0.png.png'
    undo = np.array(Image.open(path))
    undo[0, 0] = 255 - undo[0, 0, 0]  # one pixel more than the record says
    undo[0, 0, 3] = 255
    Image.fromarray(undo).save(path)
    assert not data_of(page_of(run, out=tmp_path / 'out'))['images'][0]['clean']


def test_an_image_that_is_gone_is_named(tmp_path):
    run = make_run(tmp_path / 'run')
    (run / 'images/a/2.png.png').unlink()
    assert data_of(page_of(run, out=tmp_path / 'out'))['images'][2]['why'] == 'images/a/2.png.png is gone'


def test_unfinished_and_empty_runs_say_so(tmp_path):
    runs = [make_run(tmp_path / 'half', finish=False), make_run(tmp_path / 'none', images=0, finish=False),
            make_run(tmp_path / 'all')]
    page = page_of(*runs, out=tmp_path / 'out')
    assert 'half (unfinished: 4 images so far)' in page and 'none (empty: no image yet)' in page and 'all (' not in page
    assert 'half (unfinished: 4 images so far)' in (tmp_path / 'out/report.md').read_text()


def test_a_run_of_an_older_version_is_one_line(tmp_path, capsys):
    old = make_run(tmp_path / 'old')
    info = json.loads((old / 'run.json').read_text())
    (old / 'run.json').write_text(json.dumps(info | dict(format=1)))
    page = page_of(old, make_run(tmp_path / 'new'), out=tmp_path / 'out')
    assert f'is of format 1, this version reads {FORMAT}' in page
    assert 'warning: left out: ' in capsys.readouterr().err
    assert report.main([str(old), '--out', str(tmp_path / 'alone')]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_threat_models_are_never_drawn_in_one_curve_unless_forced(tmp_path):
    runs = [make_run(tmp_path / 'a'), make_run(tmp_path / 'b', goal='Mislabel'), make_run(tmp_path / 'c')]
    page = page_of(*runs, out=tmp_path / 'out')
    charts = re.findall(r'<figure class="chart">.*?</figure>', page, re.S)
    names = [re.findall(r'</svg>\s*(\S+)</label>', one) for one in charts]
    assert names == [['a', 'c'], ['b']] and (tmp_path / 'out/curves_2.png').is_file() and '2 threat models' in page
    page = page_of(*runs, out=tmp_path / 'forced', options=['--force'])
    forced, = re.findall(r'<figure class="chart">.*?</figure>', page, re.S)
    assert re.findall(r'</svg>\s*(.+?)</label>', forced) == ['[A] a', '[A] c', '[B] b']
    assert 'different threat models (A, B)' in forced


def test_limits_of_a_threat_model_are_told_in_words(tmp_path):
    page = page_of(make_run(tmp_path / 'run', threat=ThreatModel(max_components=10, max_area=0.02, max_forwards=300, rechecks=3)),
                   out=tmp_path / 'out')
    told = dict(re.findall(r'<dt>(.*?)</dt>\s*<dd>(.*?)</dd>', page))
    assert told['connected pieces'] == 'at most 10' and told['area'] == 'at most 2.00% of the image'
    assert told['forwards'] == 'at most 300' and told['success'] == 'the majority of 3 answers'
    assert not told.keys() & {field.name for field in fields(ThreatModel)} - {'where'}  # a word for every field


def test_tables_show_the_measures_there_are(tmp_path):
    page_of(make_run(tmp_path / 'run'), out=tmp_path / 'out')
    with (tmp_path / 'out/report.csv').open() as file:
        row, = csv.DictReader(file)
    assert row['anc'].startswith('1 [') and 'IS' not in row and 'geometry_disagrees' not in row  # broken: images 0 and 2
    with (tmp_path / 'out/images.csv').open() as file:
        images = list(csv.DictReader(file))
    assert [one['anc'] for one in images] == ['0.0', '1.0', '2.0', '3.0'] and images[0]['IS'] == ''
    assert [one['status'] for one in images] == ['broken', 'not broken', 'broken', 'not broken']


def test_many_images_stay_within_the_allowance(tmp_path):
    run = Run.load(make_run(tmp_path / 'run', images=60, changed=lambda i: 300))
    for characters in (400_000, 60_000, 10_000):
        gallery = shots.Gallery(tmp_path, thumbnails.Allowance(characters, 60), printable)
        places, _ = gallery.add('run', run, lambda images: None)
        used = sum(len(one['base']) + len(one['over']) for one in gallery.images)
        assert used <= characters and places.images == 60
        assert all(one['link'] for one in gallery.images)
    assert not all(one['base'] for one in gallery.images)  # the last allowance has no room for all, which are links then


def test_a_broken_transfer_table_is_one_line(tmp_path, capsys):
    folder = make_transfer(tmp_path / 'moved')
    (folder / 'transfer.csv').write_text('source,victim\na,b\n')
    assert report.main([str(folder), '--out', str(tmp_path / 'out')]) == 2
    assert 'is broken or of another version' in capsys.readouterr().err


def test_pdf_without_a_browser_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, 'BROWSERS', ('no-such-browser',))
    assert report.main([str(make_run(tmp_path / 'run')), '--out', str(tmp_path / 'out'), '--pdf']) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: --pdf needs one of no-such-browser') and 'print it' in error


# The table of results

def results(tmp_path, *runs, options=()):
    target = tmp_path / 'page.md'
    report.run([*map(str, runs), '--results', str(target), *options])
    return target.read_text()


def test_results_put_models_against_attacks(tmp_path):
    """Worst case and budget, counted by hand: pixels are i + 1 of 'a', 4 of 'b', which breaks images 1 and 3 as well."""
    a = make_run(tmp_path / 'a', attack='SigmaZero', success=lambda i: i in (0, 3))
    b = make_run(tmp_path / 'b', attack='PGD0', changed=lambda i: 3, success=lambda i: i == 1)
    half = make_run(tmp_path / 'half', finish=False)
    for run, attack in ((a, dict(type='SigmaZero')), (b, dict(type='PGD0', k=3))):
        info = json.loads((run / 'run.json').read_text())
        info['identity']['attack'] = attack
        (run / 'run.json').write_text(json.dumps(info))
    row, = rows_of({'a': Run.load(a), 'b': Run.load(b)})
    assert row.budget == 3 and row.images == 4
    assert {name: one.value for name, one in row.broken.items()} == {'SigmaZero': 0.25, 'PGD0': 0.25, WORST: 0.5}
    assert row.median == {'SigmaZero': 1, 'PGD0': 3, WORST: 2}
    text = results(tmp_path, a, b, half)
    assert '| net | - | 4 | 3 pixels | 0.25 [' in text and 'left out: half.' in text and 'sda report' in text
    assert '- b: `PGD0(k=3)`, by `tools/attack.py' in text
    wide, = rows_of({'a': Run.load(a), 'b': Run.load(b)}, budget=4)
    assert {name: one.value for name, one in wide.broken.items()} == {'SigmaZero': 0.5, 'PGD0': 0.25, WORST: 0.75}


def test_results_keep_threat_models_and_models_apart(tmp_path):
    runs = [make_run(tmp_path / 'a'), make_run(tmp_path / 'b', goal='Mislabel'), make_run(tmp_path / 'c', weights='other')]
    text = results(tmp_path, *runs)
    assert text.count('## ') == 2 and text.count('| net |') == 3 and 'worst case |' not in text


def test_results_of_a_run_that_breaks_every_image(tmp_path):
    row, = rows_of({'a': Run.load(make_run(tmp_path / 'a', success=lambda i: True))})
    assert row.broken['SparsePGD'].value == 1 and WORST not in row.broken


def test_results_of_images_that_all_attacks_have_seen(tmp_path):
    runs = {'a': make_run(tmp_path / 'a', images=6), 'b': make_run(tmp_path / 'b', images=2, attack='PGD0')}
    row, = rows_of({name: Run.load(folder) for name, folder in runs.items()})
    assert row.images == 2


@pytest.mark.parametrize('argv', [['--budget', '0'], ['--results', 'page.md']])
def test_results_of_nothing_are_one_line(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run(tmp_path / 'run', finish='--budget' in argv)
    assert common.main(report.run, [str(run), *argv]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# In a browser

@pytest.fixture(scope='module')
def browser():
    executable = find_browser()
    if executable is None:
        pytest.skip('NOT TESTED: the page of sda report in a browser; install chromium')
    found = Browser(executable)
    yield found
    found.close()


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    runs = [make_run(folder / 'detector', images=60), make_run(folder / '<b>segmenter', kind='labels', goal='UntargetedPixels'),
            make_run(folder / 'classifier', kind='classes', attack='PGD0', name=EVIL.replace('/', '') + '{}'),
            make_run(folder / 'bare', views=False, finish=False)]
    page_of(*runs, make_transfer(folder / 'moved'), out=folder / 'out')
    return folder / 'out/report.html'


BROKEN = '[...document.images].filter((one) => one.complete && !one.naturalWidth).length'
TILES = 'document.querySelectorAll("#tiles > li").length'
OPEN = 'document.querySelector("dialog").open'
VIEW = 'document.querySelector("dialog [aria-pressed=true]").dataset.view'
VISIBLE = ('(() => { const found = document.querySelectorAll("#tiles .stage"); return [...found[0].children].map('
           '(one) => one.tagName + (one.style.opacity || "")); })()')


@pytest.mark.parametrize('screen', [DESK, PHONE], ids=['desk', 'phone'])
@pytest.mark.parametrize('dark', [False, True], ids=['light', 'dark'])
def test_nothing_is_broken(browser, page, screen, dark):
    browser.open(page, screen, dark)
    browser.run('document.querySelectorAll("img").forEach((one) => { one.loading = "eager"; })')
    assert browser.complaints == [] and browser.requests == [page.resolve().as_uri()]
    assert browser.run(BROKEN) == 0 and browser.run(TILES) == 48
    assert browser.run('document.documentElement.scrollWidth') <= screen[0]
    assert browser.run('document.querySelectorAll("b, script[src], img[onerror]").length') == 0
    small = browser.run('[...document.querySelectorAll("main select, #more, .open")].filter('
                        '(one) => one.checkVisibility() && one.getBoundingClientRect().height < 32).length')
    assert small == 0  # fingers find them


def test_gallery_filters_sorts_and_switches(browser, page):
    browser.open(page)
    assert browser.run('document.querySelector("#tiles p").textContent').startswith('a/0.png')  # broken, with fewest pixels
    browser.run('(() => { const one = document.querySelector("[name=status]"); one.value = "not broken";'
                'one.dispatchEvent(new Event("input", {bubbles: true})); })()')
    assert browser.run('document.getElementById("count").textContent') == '36 of 72 images'
    assert browser.run('[...document.querySelectorAll("#tiles p")].every((one) => one.textContent.includes("not broken"))')
    browser.run('(() => { const one = document.querySelector("[name=order]"); one.value = "pixels down";'
                'one.dispatchEvent(new Event("input", {bubbles: true})); })()')
    assert '60 px' in browser.run('document.querySelector("#tiles p").textContent')
    assert browser.run(VISIBLE) == ['IMG', 'IMG', 'svg']  # adversarial: clean, changed pixels, boxes
    browser.hover('#tiles .open')
    assert browser.run(VISIBLE) == ['IMG', 'svg']
    browser.hover('h1')
    assert browser.run(VISIBLE) == ['IMG', 'IMG', 'svg']
    browser.run('document.querySelector("[name=view][value=perturbation]").click()')
    assert browser.run(VISIBLE) == ['IMG0.15', 'IMG'] and browser.complaints == []
    assert browser.run('getComputedStyle(document.querySelector("#tiles .stage img")).imageRendering') == 'pixelated'


def test_keys_and_taps_enlarge_switch_and_close(browser, page):
    browser.open(page)
    browser.run('document.querySelector("#tiles .open").focus()')
    browser.press('Enter', 13, '\r')
    assert browser.run(OPEN) and browser.run(VIEW) == 'adversarial'
    browser.press('3', 51, '3')
    assert browser.run(VIEW) == 'perturbation'
    about = 'document.getElementById("about").textContent'
    before = browser.run(about)
    browser.press('ArrowRight', 39)
    assert browser.run(about) != before
    browser.press('Escape', 27)
    assert not browser.run(OPEN)
    browser.open(page, PHONE)
    browser.tap('#tiles .open')
    browser.run('new Promise((done) => setTimeout(done, 400))')
    assert browser.run(OPEN) and browser.run(VIEW) == 'adversarial'
    browser.tap('#stage')
    browser.run('new Promise((done) => setTimeout(done, 400))')
    assert browser.run(VIEW) == 'perturbation' and browser.complaints == []


def test_tables_sort(browser, page):
    browser.open(page)
    names = '[...document.querySelectorAll("#runs tbody th")].map((one) => one.textContent)'
    images = '[...document.querySelectorAll("#runs tbody tr")].map((one) => Number(one.cells[3].textContent))'
    for way in (sorted, lambda found: sorted(found, reverse=True)):
        browser.run('document.querySelectorAll("#runs thead button")[3].click()')
        assert browser.run(images) == way(browser.run(images))
    browser.run('document.querySelectorAll("#runs thead button")[0].click()')
    assert browser.run(names)[0].startswith('<b>segmenter')
    assert browser.run('document.querySelector("#runs th[aria-sort]").textContent') == 'run'


@pytest.mark.skipif(find_browser() is None, reason='NOT TESTED: sda report --pdf; install chromium')
def test_pdf(tmp_path):
    page_of(make_run(tmp_path / 'run'), out=tmp_path / 'out', options=['--pdf'])
    assert (tmp_path / 'out/report.pdf').read_bytes().startswith(b'%PDF')
    shutil.rmtree(tmp_path / 'run')
