"""Every check of sda doctor must turn red when, and only when, the thing it names is broken."""
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from sparse_dense_attacks import compat

ROOT = Path(__file__).resolve().parents[2]
ONEDL = {
    'torch': '2.11.0+cu130', 'torchvision': '0.26.0', 'numpy': '2.4.6', 'setuptools': '81.0.0',
    'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1', 'onedl-mmsegmentation': '1.4.2',
    'onedl-mmpretrain': '1.3.6',
}  # fmt: skip
UPSTREAM = {
    'torch': '2.1.2', 'torchvision': '0.16.2', 'numpy': '1.26.4', 'setuptools': '69.5.1',
    'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'mmsegmentation': '1.2.2', 'mmpretrain': '1.2.0',
}  # fmt: skip


@pytest.fixture(scope='module')
def doctor():
    spec = importlib.util.spec_from_file_location('doctor', ROOT / 'sparse_dense_attacks/cli/doctor.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(doctor, monkeypatch):
    """A machine with the given distributions, on which every started interpreter ends with the given error."""

    def build(versions, error=''):
        monkeypatch.setattr(doctor, 'installed', lambda *names: {n: versions[n] for n in names if n in versions})
        monkeypatch.setattr(doctor, 'run_python', lambda code: (error, 'plain'))
        monkeypatch.setattr(doctor, 'importable', lambda module: True)
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)

    return build


@pytest.mark.parametrize('versions', [ONEDL, UPSTREAM, {'torch': '2.11.0', 'torchvision': '0.26.0', 'numpy': '2.4.6'}],
                         ids=['onedl', 'upstream', 'torch only'])
def test_sound_machine_has_nothing_to_fix(doctor, machine, versions):
    machine(versions)
    assert [check for check in doctor.diagnose() if check.status == 'fail'] == []
    if len(versions) > 3:
        assert doctor.known_good().status == 'ok'


@pytest.mark.parametrize('base, change, check, fix', [
    (ONEDL, {'torchvision': '0.25.0'}, 'torch pair', 'torchvision==0.26.'),
    (ONEDL, {'torchvision': None}, 'torch pair', 'pip install torch torchvision'),
    (ONEDL, {'mmengine': '0.10.7'}, 'mmengine', 'pip uninstall mmengine onedl-mmengine'),
    (ONEDL, {'mmcv-lite': '2.1.0'}, 'mmcv', 'pip uninstall onedl-mmcv mmcv-lite'),
    (UPSTREAM, {'mmcv': '2.2.0'}, 'mmcv limit', 'onedl'),
    (UPSTREAM, {'numpy': '2.4.6'}, 'numpy', 'numpy<2'),
    (ONEDL, {'torch': '2.2.2', 'torchvision': '0.17.2'}, 'numpy', 'numpy<2'),
])  # fmt: skip
def test_wrong_versions(doctor, machine, base, change, check, fix):
    machine({name: version for name, version in (base | change).items() if version})
    failed = [c for c in doctor.diagnose() if c.status == 'fail']
    assert [c.name for c in failed] == [check]
    assert fix in failed[0].fix


def test_untested_versions_are_only_noted(doctor, machine):
    machine(ONEDL | {'onedl-mmdetection': '3.6.0'})
    check = doctor.known_good()
    assert check.status == 'note'
    assert 'onedl-mmdetection 3.6.0 (tested: 3.5.1)' in check.found


@pytest.mark.parametrize('error, cause, fix', [
    ('RuntimeError: nms_impl: implementation for device cuda:0 not found.', 'another torch', '--no-cache-dir'),
    ('ImportError: /site-packages/mmcv/_ext.so: undefined symbol: _ZN3c10', 'another torch', 'onedl-mmcv==2.3.6'),
    ('ImportError: /site-packages/mmcv/_ext.so: undefined symbol: _ZN3c10', 'another torch', 'export SDA_COMPILED_OPS=0'),
    ("ModuleNotFoundError: No module named 'mmcv._ext'", 'has no compiled operators', 'import sparse_dense_attacks before'),
    ("ModuleNotFoundError: No module named 'sparse_dense_attacks'", 'not installed', 'pip install --no-deps -e'),
    ('RuntimeError: operator torchvision::nms does not exist', 'torchvision was built', 'same release'),
    ("ModuleNotFoundError: No module named 'pkg_resources'", 'setuptools', 'setuptools<81'),
    ("ModuleNotFoundError: No module named 'ftfy'", 'mmsegmentation', 'ftfy regex'),
    ('AssertionError: MMCV==2.3.6 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0.', 'accept', 'onedl'),
    ('AttributeError: `np.sctypes` was removed in the NumPy 2.0 release', 'numpy 2', 'imaug'),
    ('TypeError: NoneType takes no arguments', 'transformers 5', 'transformers<5'),
    ('ImportError: libGL.so.1: cannot open shared object file', 'libGL', 'opencv-python-headless'),
    ('killed by signal 11', 'crashed', 'export SDA_COMPILED_OPS=0'),
    ('ValueError: something new', 'something new', 'make clean env'),
])  # fmt: skip
def test_failures_are_explained(doctor, machine, error, cause, fix):
    machine(ONEDL, 'Traceback (most recent call last):\n' + error)
    for check in (doctor.torchvision_ops(), doctor.mmcv_ops(), doctor.models('mmdet'), doctor.own_package()):
        assert check.status == 'fail'
        assert cause in check.found and error in check.found
        assert fix in check.fix


def test_missing_package_resources(doctor, machine, monkeypatch):
    machine(UPSTREAM | {'setuptools': '84.0.0'})
    monkeypatch.setattr(doctor, 'importable', lambda module: module != 'pkg_resources')
    check = doctor.package_resources()
    assert check.status == 'fail' and 'setuptools 84.0.0' in check.found and check.fix == 'pip install "setuptools<81"'
    machine(ONEDL)
    monkeypatch.setattr(doctor, 'importable', lambda module: False)
    assert doctor.package_resources().status == 'ok'


def test_own_package_not_installed(doctor, machine, monkeypatch):
    machine(ONEDL)
    monkeypatch.setattr(doctor, 'importable', lambda module: False)
    assert 'pip install --no-deps -e' in doctor.own_package().fix


def test_gpu_needs_cuda_ops(doctor, machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda index: 'Some GPU')
    machine(ONEDL, 'AssertionError')
    assert doctor.gpu().status == 'ok'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert doctor.gpu().status == 'fail' and 'export SDA_COMPILED_OPS=0' in doctor.gpu().fix
    monkeypatch.setattr(doctor, 'run_python', lambda code: ('', ''))
    assert doctor.gpu() == ('GPU', 'ok', 'Some GPU', '')


def test_installed_and_importable(doctor):
    assert doctor.installed('pytest', 'no-such-distribution') == {'pytest': pytest.__version__}
    assert doctor.importable('pytest') and not doctor.importable('no_such_module')


def test_old_python(doctor, monkeypatch):
    assert doctor.python_version().status == 'ok'
    monkeypatch.setattr(sys, 'version_info', (3, 9, 18))
    assert doctor.python_version().status == 'fail'


def test_run_python_reports_errors_and_crashes(doctor):
    assert doctor.run_python('pass') == ('', '')
    assert doctor.run_python('print("some warning"); print("plain")') == ('', 'plain')
    assert doctor.run_python('1 / 0')[0].endswith('ZeroDivisionError: division by zero')
    assert doctor.run_python('raise SystemExit(3)')[0] == 'exit status 3'
    assert doctor.run_python('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')[0] == 'killed by signal 11'


@pytest.mark.openmmlab
def test_op_self_test_on_this_machine(doctor):
    """The code that the self-tests run is right: it passes in the environment under test, and says whose operators these are."""
    pytest.importorskip('mmcv')
    check = doctor.mmcv_ops()
    assert check.status == 'ok'
    assert doctor.OPS_IN_USE[compat.in_use()] in check.found
    assert doctor.torchvision_ops().status == 'ok'


@pytest.mark.parametrize('error, status', [('', 0), ('nms_impl: implementation for device cuda:0 not found', 2)])
def test_exit_status_and_report(doctor, machine, capsys, error, status):
    machine(ONEDL, error)
    assert doctor.main() == status
    printed = capsys.readouterr().out
    assert ('all good' in printed) == (status == 0)
    assert ('--no-binary onedl-mmcv' in printed) == (status == 2)


def test_without_rich(doctor, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'rich.console', None)
    assert doctor.main() == 2
    assert 'pip install rich' in capsys.readouterr().err
