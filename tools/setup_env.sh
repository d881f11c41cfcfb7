#!/usr/bin/env bash
# Creates or completes the environment DIR for one of the two tested stacks. Does nothing when DIR is up to date.
#
#     tools/setup_env.sh onedl .venv                  torch 2.11 and the maintained onedl-* forks (the default)
#     tools/setup_env.sh upstream .venv-upstream      torch 2.1 and the last open-mmlab releases
#
# Environment: PYTHON (the Python 3.11 to use), MAX_JOBS (compiler processes), XDG_CACHE_HOME (where the mmcv wheel is kept).
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }

[[ $# == 2 ]] || die "usage: tools/setup_env.sh onedl|upstream DIR"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $1 in
    onedl) constraints=$root/constraints.txt extra=openmmlab mmcv=onedl-mmcv ;;
    upstream) constraints=$root/constraints-upstream.txt extra=upstream mmcv=mmcv ;;
    *) die "unknown stack '$1', expected onedl or upstream" ;;
esac
mkdir -p "$2"
env=$(cd "$2" && pwd)
python=$env/bin/python

pin() { sed -n "s/^$1==//p" "$constraints"; }
uv_install() { "$python" -m uv pip install --python "$python" --constraints "$constraints" "$@"; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        if [[ $("$candidate" -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null) == "3 11" ]]; then
            echo "$candidate"
            return
        fi
    done
    die "no Python 3.11 found (tried ${PYTHON:-python3.11, python3, python}); install it or set PYTHON=/path/to/python3.11"
}

check_disk() { # once torch is installed most of the space is taken already, so a resumed set-up is not refused
    local free
    [[ ! -d $env/lib/python3.11/site-packages/torch ]] || return 0
    free=$(df -Pk "$env" | awk 'NR == 2 { print int($4 / 1024 / 1024) }')
    ((free >= 8)) || die "only $free GB free at $env, 8 GB are needed; free some space or name another folder"
}

check_compiler() {
    command -v "${CXX:-c++}" >/dev/null ||
        die "no C++ compiler (${CXX:-c++}) found, and mmcv has to be compiled; install one (Debian: apt-get install g++)"
    "$interpreter" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        die "no Python.h found, and mmcv has to be compiled; install Python's headers (Debian: apt-get install python3.11-dev)"
}

create_env() {
    if ! "$python" -m uv --version >/dev/null 2>&1; then
        say "creating $env"
        "$interpreter" -m venv "$env" || die "python -m venv failed (Debian: apt-get install python3.11-venv)"
        "$python" -m pip install --quiet --disable-pip-version-check "uv==$(pin uv)"
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
        die "$env holds another Python than 3.11; remove it and run this again"
}

# 'cuda' only where the result can be used: a visible GPU and a toolkit of the CUDA version torch was built with.
accelerator() {
    "$python" - <<'PYTHON'
import subprocess
import sys

import torch

target = 'cpu'
if torch.cuda.is_available():
    from torch.utils.cpp_extension import CUDA_HOME
    major = torch.version.cuda.split('.')[0]
    nvcc = [f'{CUDA_HOME}/bin/nvcc', '--version']
    if CUDA_HOME and f'release {major}.' in subprocess.run(nvcc, capture_output=True, text=True).stdout:
        target = 'cuda'
    else:
        print(f'setup: a GPU is visible but no CUDA {major} toolkit, so the mmcv ops will run on the CPU only', file=sys.stderr)
print(target)
PYTHON
}

cached_wheel() { find "$wheels" -name "${mmcv//-/_}-$(pin "$mmcv")-*_$(uname -m).whl" -print -quit; }

compile_mmcv() { # a build left half done stays outside the cache: the finished wheel is moved in by one rename
    local scratch log=$env/mmcv-build.log
    check_compiler
    say "compiling $mmcv $(pin "$mmcv") for $tag: about 6 minutes on two cores, once per machine (log: $log)"
    scratch=$(mktemp -d "$cache/build.XXXXXX")
    # shellcheck disable=SC2064 # the folder's name is fixed now
    trap "rm -rf '$scratch'" EXIT
    export MMCV_WITH_OPS=1 FORCE_CUDA=0
    # mmcv compiles for CUDA as soon as it sees a GPU, toolkit or not.
    if [[ $tag == *-cuda ]]; then FORCE_CUDA=1; else export CUDA_VISIBLE_DEVICES=; fi
    # Without pip's cache, which may hold a wheel of the same name made for another torch.
    "$python" -m pip wheel --no-cache-dir --no-build-isolation --no-deps --no-binary "$mmcv" --wheel-dir "$scratch" \
        "$mmcv==$(pin "$mmcv")" >"$log" 2>&1 || { tail -n 40 "$log" >&2; die "compiling mmcv failed, see $log"; }
    mv -f "$scratch"/*.whl "$wheels/"
}

mmcv_installed() { [[ -d $env/lib/python3.11/site-packages/${mmcv//-/_}-$(pin "$mmcv").dist-info ]]; }

install_mmcv() { uv_install --quiet --no-cache --no-deps --reinstall "$(cached_wheel)"; }

# In a process of its own: ops compiled for another torch may crash the interpreter.
mmcv_works() { (cd "$root/tools" && "$python" -c 'import doctor, sys; sys.exit(doctor.mmcv_ops().status == "fail")'); }

# The stamp holds the place the editable install points to, and a digest of all that decides what is installed: of
# pyproject.toml that is what stands above the tools' settings.
stamp=$env/.ready
wanted="$1 $root $(sed '/^\[tool\./,$d' "$root/pyproject.toml" | cat - "$constraints" "${BASH_SOURCE[0]}" | cksum)"
up_to_date() { [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; }

# One set-up at a time per environment and per cached wheel; the kernel drops the lock of a process that dies.
lock() {
    command -v flock >/dev/null || return 0
    flock -n "$1" || { say "waiting for another set-up to finish"; flock "$1"; }
}

if up_to_date; then exit 0; fi
exec 8>"$env/.setup.lock" # not .lock, which is uv's own
lock 8
if up_to_date; then exit 0; fi

cache=${XDG_CACHE_HOME:-${HOME:-$env}/.cache}/sparse-dense-attacks
mkdir -p "$cache" 2>/dev/null || cache=$env/cache

interpreter=$(find_python)
check_disk
# Better now than after a download of gigabytes.
compgen -G "$cache/wheels/py311-torch$(pin torch)-*/*.whl" >/dev/null || check_compiler
create_env
say "installing torch $(pin torch) into $env"
uv_install torch torchvision numpy setuptools wheel ninja

tag=py311-torch$(pin torch)-$(accelerator)
wheels=$cache/wheels/$tag
mkdir -p "$wheels"
exec 9>"$wheels/.setup.lock"
lock 9
if ! mmcv_installed; then
    [[ -n $(cached_wheel) ]] || compile_mmcv
    install_mmcv
fi
say "installing the OpenMMLab libraries, the tests' tools and this package"
# cv2 comes from the headless build, which needs no libGL; mmcv is there already and must not be built by uv.
uv_install --override <(echo "opencv-python; python_version < '3'") opencv-python-headless \
    --only-binary "$mmcv" --editable "$root[$extra,test]"
if ! mmcv_works; then
    say "this mmcv fails its self-test, compiling it again"
    compile_mmcv
    install_mmcv
    mmcv_works || { rm -f "$(cached_wheel)"; die "mmcv still fails; '$python $root/tools/doctor.py' says why"; }
fi

echo "$wanted" >"$stamp"
say "$env is ready"
