#!/usr/bin/env bash
# Creates or completes the environment DIR for one of the tested stacks. Does nothing when DIR is up to date.
#
#     tools/setup_env.sh onedl .venv                      torch 2.11 and the maintained onedl-* forks (the default)
#     tools/setup_env.sh upstream .venv-upstream          torch 2.1 and the last open-mmlab releases
#     tools/setup_env.sh onedl-compiled .venv-compiled    the first, with mmcv's compiled operators; so upstream-compiled
#
# Only the compiled ones need a C++ compiler, and minutes: mmcv is compiled once for each torch and kept in ~/.cache. Where a GPU is
# visible they need its CUDA toolkit as well, or CUDA_VISIBLE_DEVICES= for operators that run on the CPU only.
#
# Environment: PYTHON (the Python 3.11 to use), MAX_JOBS (compiler processes), XDG_CACHE_HOME (instead of ~/.cache).
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 2; }

[[ $# == 2 ]] || die "usage: tools/setup_env.sh onedl|upstream[-compiled] DIR"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $1 in
    onedl | onedl-compiled) constraints=$root/constraints.txt extras=openmmlab,test,docs mmcv=onedl-mmcv ;;
    upstream | upstream-compiled)
        constraints=$root/constraints-upstream.txt extras=upstream,test mmcv=mmcv
        export UV_BUILD_CONSTRAINT=$root/constraints-build.txt ;;
    *) die "unknown stack '$1', expected onedl or upstream, or one of them with -compiled" ;;
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
        die "no C++ compiler (${CXX:-c++}) found; install one (Debian: apt-get install g++), or do without: make env"
    "$interpreter" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        die "no Python.h found; install Python's headers (Debian: apt-get install python3.11-dev), or do without: make env"
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

compile_mmcv() { # into a cache of its own for each torch, as uv and pip would take a wheel made for another one
    local target cache
    target=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
    cache=${XDG_CACHE_HOME:-${HOME:-$env}/.cache}/sparse-dense-attacks/torch$(pin torch)-$target
    say "compiling $mmcv $(pin "$mmcv") for $target: about 6 minutes on two cores, once per machine; kept in $cache"
    uv_install setuptools wheel ninja
    "$python" -m uv pip uninstall --quiet --python "$python" "$mmcv" # --reinstall would compile again whatever the cache holds
    uv_install --cache-dir "$cache" --no-build-isolation --no-deps --no-binary "$mmcv" "$mmcv"
    "$python" -c 'import torch; from mmcv.ops import nms; nms(torch.eye(4)[:2], torch.ones(2), 0.5)' ||
        die "this mmcv fails its self-test; remove $cache and run this again, or do without: make env"
}

# The stamp holds the place the editable install points to, and a digest of all that decides what is installed: of
# pyproject.toml that is what stands above the tools' settings.
stamp=$env/.ready
wanted="$1 $root $(sed '/^\[tool\./,$d' "$root/pyproject.toml" | cat - "$constraints" "${BASH_SOURCE[0]}" | cksum)"
up_to_date() { [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; }

if up_to_date; then exit 0; fi
# One set-up at a time; the kernel drops the lock of a process that dies.
exec 8>"$env/.setup.lock" # not .lock, which is uv's own
! command -v flock >/dev/null || flock -n 8 || { say "waiting for another set-up to finish"; flock 8; }
if up_to_date; then exit 0; fi

interpreter=$(find_python)
check_disk
[[ $1 != *-compiled ]] || check_compiler # better now than after a download of gigabytes
create_env
say "installing torch $(pin torch), the OpenMMLab libraries, the tests' tools and this package into $env"
# uv builds packages where no torch is installed, and there mmcv leaves its operators out; refreshed, because uv may have kept a
# compiled one from elsewhere. cv2 comes from the headless build, which needs no libGL.
uv_install --refresh-package "$mmcv" --override <(echo "opencv-python; python_version < '3'") \
    setuptools opencv-python-headless --editable "$root[$extras]"
[[ $1 != *-compiled ]] || compile_mmcv
# Compiled once and kept, also where PYTHONDONTWRITEBYTECODE is set: otherwise every start compiles torch and mmdet anew.
env -u PYTHONDONTWRITEBYTECODE "$python" -c 'import sparse_dense_attacks.public, mmdet.apis, mmseg.apis, mmpretrain.apis' >/dev/null 2>&1 ||
    say "the libraries do not import; make doctor says what repairs it"

echo "$wanted" >"$stamp"
say "$env is ready"
