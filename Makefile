# `make attack` and `make test` are all a new user needs; both create .venv on the first call.

PYTHON_ENV := .venv
UPSTREAM_ENV := .venv-upstream
COMPILED_ENV := .venv-compiled

# The tests run on all cores, one thread each; in one process, for a debugger: make test PARALLEL= ARGS='--pdb tests/ops'
PARALLEL := -n auto --dist worksteal

# Trained weights and real images for development lie beside the checkout; without them the embedded demo serves.
ifneq ($(wildcard ../shared/assets),)
export SDA_ASSETS ?= $(abspath ../shared/assets)
endif

.PHONY: attack test test-gpu test-upstream test-compiled lint docs env env-upstream env-compiled env-bench doctor clean

attack: env  ## sparse attack on the embedded demo detector; more options: make attack ARGS='--limit 2'
	$(PYTHON_ENV)/bin/python tools/attack.py configs/spgd_faster_rcnn.py $(ARGS)

test: env  ## the whole test suite; a part of it: make test ARGS='tests/ops -m "not slow"'
	$(PYTHON_ENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

test-gpu: env  ## what must hold on a GPU; every other test runs on the CPU
	$(PYTHON_ENV)/bin/python -m pytest $(PARALLEL) -m gpu $(ARGS)

test-upstream: env-upstream  ## the same suite on the last open-mmlab releases
	$(UPSTREAM_ENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

test-compiled: env-compiled  ## the same suite with mmcv's compiled operators, and ours compared with them
	$(COMPILED_ENV)/bin/python -m pytest $(PARALLEL) $(ARGS)

lint: env  ## style, and the types of the package
	$(PYTHON_ENV)/bin/python -m ruff check .
	$(PYTHON_ENV)/bin/python -m mypy

docs: env  ## the site, into site/; needs no network
	NO_MKDOCS_2_WARNING=1 $(PYTHON_ENV)/bin/python -m mkdocs build

doctor: env  ## is the environment sound, and if not, what repairs it
	$(PYTHON_ENV)/bin/python sparse_dense_attacks/cli/doctor.py

env:
	@tools/setup_env.sh onedl $(PYTHON_ENV)

env-upstream:
	@tools/setup_env.sh upstream $(UPSTREAM_ENV)

env-compiled:  ## needs a C++ compiler, and minutes
	@tools/setup_env.sh onedl-compiled $(COMPILED_ENV)

env-bench: env  ## adversarial-library beside it, for tools/analysis_tools/benchmark.py; its dependency visdom builds with an older setuptools only
	@$(PYTHON_ENV)/bin/python -m uv pip install --python $(PYTHON_ENV)/bin/python --constraints constraints.txt \
		--build-constraints constraints-build.txt --editable .[bench]

clean:  ## removes environments and caches of this checkout; results in work_dirs/ stay
	rm -rf $(PYTHON_ENV) $(UPSTREAM_ENV) $(COMPILED_ENV) build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache
