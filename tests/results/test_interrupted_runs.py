"""What a resumed run makes of results that were cut short, damaged or tampered with."""
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparse_dense_attacks import InputError
from sparse_dense_attacks.results import Record, ResultStore, Run

RUN = {'identity': {'attack': 'a'}, 'versions': {'torch': '2.1'}}
KEYS = [f'photos/{index}.jpg' for index in range(8)]
SIZE = 96  # of the images; large enough for a write to take a while


def picture(key: str) -> np.ndarray:
    noise = np.random.default_rng(KEYS.index(key))
    return noise.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def finish(work_dir: Path, resume: bool = False, pause: float = 0.0) -> ResultStore:
    """A run that 'attacks' images in pairs, as a loop does, and writes metrics of them."""
    store = ResultStore(work_dir)
    store.start(RUN, resume)
    for pair in zip(KEYS[::2], KEYS[1::2], strict=True):
        for key in pair:
            if key not in store.records:
                time.sleep(pause)
                store.add(Record(key, True, True, True, l0_pixels=KEYS.index(key)), picture(key))
    pixels = [record.l0_pixels for record in store.reload()]
    store.write_json('metrics.json', {'attack/l0_pixels': sum(pixels)})
    store.close()
    return store


def contents(work_dir: Path) -> dict[str, object]:
    """All that a run leaves, file by file; records without regard to their order."""
    found: dict[str, object] = {}
    for path in sorted(work_dir.rglob('*')):
        name = str(path.relative_to(work_dir))
        if path.name == 'records.jsonl':
            found[name] = sorted(path.read_text().splitlines())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def whole(tmp_path):
    finish(tmp_path / 'whole')
    return tmp_path / 'whole'


def resumed(work_dir: Path) -> list[str]:
    """Goes on with a run and returns what was found wrong."""
    return finish(work_dir, resume=True).notes


# Damaged files

@pytest.mark.parametrize(('damage', 'said'), [
    (lambda line: b'garbage\n', 'line 3: '),
    (lambda line: b'\n', 'line 3: '),
    (lambda line: b'\xff\xfe\x00\n', 'line 3: '),
    (lambda line: b'[1]\n', 'line 3: a list, expected an object'),
    (lambda line: line.replace(b'"key"', b'"extra": 1, "key"'), 'line 3: unknown field extra'),
    (lambda line: line.replace(b'"share": null, ', b''), 'line 3: no field share'),
    (lambda line: line.replace(b'"key": "photos/2.jpg", ', b''), 'line 3: no field key'),
    (lambda line: line.replace(b'"l0_pixels": 2', b'"l0_pixels": "2"'), "line 3: l0_pixels = '2'"),
    (lambda line: line.replace(b'"l0_pixels": 2', b'"l0_pixels": true'), 'line 3: l0_pixels = True'),
    (lambda line: line.replace(b'"success": true', b'"success": 1'), 'line 3: success = 1'),
    (lambda line: line.replace(b'"measures": {}', b'"measures": []'), 'line 3: measures = []'),
    (lambda line: b'[' * 100_000 + b'\n', 'line 3: '),
])
def test_a_line_that_is_no_record_is_set_aside_and_its_image_attacked_again(whole, tmp_path, damage,
                                                                            said):
    expected = contents(whole)
    path = whole / 'records.jsonl'
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = damage(lines[2])
    path.write_bytes(b''.join(lines))
    assert Run.load(whole).bad[0].startswith(said) and len(Run.load(whole).records) == 7
    note, = resumed(whole)
    assert said in note and 'attacked again' in note
    assert (whole / 'set_aside.jsonl').read_bytes() == lines[2]
    (whole / 'set_aside.jsonl').unlink()
    assert contents(whole) == expected


def alter(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize('damage', [
    alter,
    lambda path: Image.open(path).convert('L').save(path),
    lambda path: path.write_bytes(path.read_bytes()[:500]),
    lambda path: path.write_bytes(b''),
    lambda path: path.write_text('this is no picture'),
], ids=['one bit', 'grey', 'truncated', 'empty', 'text'])
def test_an_altered_image_is_named_and_attacked_again(whole, damage):
    expected = contents(whole)
    path = whole / 'images/photos/3.jpg.png'
    damage(path)
    note, = resumed(whole)
    assert note == 'set aside and attacked again: images/photos/3.jpg.png was altered'
    (whole / 'set_aside.jsonl').unlink()
    assert contents(whole) == expected


def test_an_image_that_is_gone_is_attacked_again(whole):
    expected = contents(whole)
    (whole / 'images/photos/3.jpg.png').unlink()
    assert 'is gone' in resumed(whole)[0]
    (whole / 'set_aside.jsonl').unlink()
    assert contents(whole) == expected


@pytest.mark.parametrize('file', ['../../../../etc/passwd', '/etc/passwd', 'run.json',
                                  'images/photos/4.jpg.png', 'images/../images/photos/3.jpg.png'])
def test_a_record_names_no_file_but_its_own(whole, file):
    path = whole / 'records.jsonl'
    text = path.read_text()
    path.write_text(text.replace('images/photos/3.jpg.png', file))
    assert [one.key for one in Run.load(whole).records if one.file == file] in ([], ['photos/4.jpg'])
    assert 'is not that of the image' in resumed(whole)[0]
    assert sorted(path.read_text().splitlines()) == sorted(text.splitlines())


@pytest.mark.parametrize('content', ['', '{}', '[]', 'null', '{"identity": 3}', '{"identity"', '\x00'])
def test_a_broken_run_json_is_one_line(whole, content):
    (whole / 'run.json').write_text(content)
    for read in (resumed, Run.load):
        with pytest.raises(InputError, match='run.json is broken .*without --resume') as error:
            read(whole)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('other', [{}, {'format': 1}, {'format': 2}, {'format': 99}, {'format': 'x'}])
def test_a_run_of_another_version_is_refused(whole, other):
    (whole / 'run.json').write_text(json.dumps(RUN | other))
    for read in (resumed, Run.load):
        with pytest.raises(InputError, match='this version reads 3'):
            read(whole)


def test_a_run_that_goes_on_with_other_packages_says_so(whole, monkeypatch):
    monkeypatch.setitem(RUN, 'versions', {'torch': '2.11'})
    assert resumed(whole) == ['the run began with torch 2.1 and goes on with 2.11']


@pytest.mark.parametrize('name', ['images', ''])
def test_a_file_where_a_folder_belongs_is_one_line(tmp_path, name):
    work_dir = tmp_path / 'run'
    (work_dir / name).parent.mkdir(exist_ok=True)
    (work_dir / name).write_text('a file')
    with pytest.raises(InputError, match='expected a folder, found a file'):
        ResultStore(work_dir).start(RUN)


# Two at a time

def in_child(work) -> int:
    """Fork a process that does nothing but this."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_a_work_dir_in_use_is_refused_until_its_process_dies(tmp_path):
    ready, told = os.pipe()

    def work():
        store = ResultStore(tmp_path)
        store.start(RUN)
        os.write(told, b'x')
        time.sleep(600)

    child = in_child(work)
    os.read(ready, 1)
    try:
        with pytest.raises(InputError, match=f'is in use by process {child} on '):
            ResultStore(tmp_path).start(RUN)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    finish(tmp_path, resume=True)
    assert not (tmp_path / 'lock').exists() and not (tmp_path / 'previous').exists()


def test_a_store_lets_go_of_its_folder(tmp_path):
    one = ResultStore(tmp_path)
    one.start(RUN)
    with pytest.raises(InputError, match=f'process {os.getpid()} '):
        ResultStore(tmp_path).start(RUN, resume=True)
    one.close()
    assert not (tmp_path / 'lock').exists()
    ResultStore(tmp_path).start(RUN, resume=True)


# Kills

def killed_somewhere(work_dir: Path, after: float) -> None:
    """A run killed this many seconds after it began."""
    resume = (work_dir / 'run.json').exists()
    child = in_child(lambda: finish(work_dir, resume, pause=0.004))
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def killed_in_a_write(work_dir: Path, image: int, share: float) -> None:
    """A run killed when a share of the bytes of its n-th new PNG is written."""
    resume = (work_dir / 'run.json').exists()
    ready, told = os.pipe()

    def work():
        written = 0

        replacing = ResultStore._replacing

        def slowly(self, name):
            context = replacing(self, name)

            class Halting:
                def __enter__(self):
                    self.file = context.__enter__()
                    return self

                def write(self, content):
                    nonlocal written
                    if name.endswith('.png'):
                        written += 1
                        if written == image:
                            self.file.write(content[:int(share * len(content))])
                            self.file.flush()
                            os.write(told, b'x')
                            time.sleep(600)
                    self.file.write(content)

                def writelines(self, lines):
                    self.file.writelines(lines)

                def __exit__(self, *error):
                    return context.__exit__(*error)

            return Halting()

        ResultStore._replacing = slowly
        finish(work_dir, resume)
        os.write(told, b'y')

    child = in_child(work)
    os.read(ready, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(told)


def test_eighty_kills_at_random_moments_leave_no_trace(whole, tmp_path):
    """Ten runs, each killed eight times before it may end; the moments come from a fixed seed."""
    moments = random.Random(0)
    for index in range(10):
        work_dir = tmp_path / str(index)
        for _ in range(8):
            killed_somewhere(work_dir, moments.uniform(0.0, 0.03))
        resumed(work_dir)
        assert contents(work_dir) == contents(whole)


def test_twenty_kills_within_the_write_of_a_png_leave_no_trace(whole, tmp_path):
    parts = 0
    for index in range(5):
        work_dir = tmp_path / str(index)
        for image in range(4):
            killed_in_a_write(work_dir, 1 + image % 2, (0.0, 0.3, 0.9, 1.0)[image])
            parts += len(list(work_dir.glob('images/**/.*.part')))  # the next start removes it
        resumed(work_dir)
        assert contents(work_dir) == contents(whole)
    assert parts == 20
