# make reproduce [PROFILE=nano] [ARGS="--set depths=8"]    everything starts here; see README.md
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install reproduce bench test test-lab fuzz lock audit lint lab copies lab-edit refresh clean

PYTHON ?= python3
PROFILE ?= nano
ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
STRIP := $(BIN)/nbstripout --keep-output --keep-count --keep-id \
  --extra-keys "metadata.papermill cell.metadata.papermill cell.metadata.execution metadata.language_info"
# Tests side by side, each process on one core: together they would wait for each other.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist
# The kernel `python3` is the one of .venv, also where the user has installed another.
export JUPYTER_PREFER_ENV_PATH := 1

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

install: $(STAMP)  ## make .venv and install klip with its pinned dependencies

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "klip needs Python 3.11 or later, this is " + sys.version.split()[0] + "; name another: make install PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

reproduce: $(STAMP)  ## run the notebooks of PROFILE (nano) and write results/PROFILE; ARGS="--set NAME=VALUE"
	@$(BIN)/klip reproduce --profile $(PROFILE) $(ARGS)

bench: $(STAMP)  ## what klip costs beside its peers: installs them, runs notebook B alone (half an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench,onnx]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps open-metric-learning==4.0.0 validators gdown omegaconf
	rm -f results/$(PROFILE)/notebooks/B_what_it_costs.json
	@$(BIN)/klip reproduce --profile $(PROFILE) --only B $(ARGS)

test: lint  ## ruff, unit tests, and the committed notebooks against a new run
	$(PARALLEL) loadfile
	$(PARALLEL) worksteal -m slow
	rm -rf .cache/test-results
	KLIP_RESULTS=$(CURDIR)/.cache/test-results $(BIN)/python -m pytest --nbval-lax --nbval-current-env \
	  --nbval-sanitize-with notebooks/nbval.cfg --ignore-glob='*/[AB]_*.ipynb' notebooks

test-lab: $(STAMP)  ## every notebook by Run All in JupyterLab, in headless Chromium (skipped where there is none)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m lab

fuzz: $(STAMP)  ## read ten thousand damaged images: each is read or refused in a sentence
	OMP_NUM_THREADS=1 PYTHONPATH=tests/hostile $(BIN)/python tests/hostile/mutate.py 10000

lock: $(STAMP)  ## write requirements.lock, which make install uses (with all extras: tests want them)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --quiet --output-file requirements.lock

audit: $(STAMP)  ## warn of known faults in what is installed (pip-audit; needs the network)
	$(BIN)/python -m pip install --quiet pip-audit
	-$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip

lint: $(STAMP)  ## ruff, and no volatile metadata in the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(STRIP) --verify notebooks/*.ipynb

lab: $(STAMP) copies  ## open copies of the notebooks in JupyterLab (folder lab/; delete it for new copies)
	$(BIN)/jupyter lab --notebook-dir=lab

copies:
	mkdir -p lab
	for book in notebooks/*.ipynb; do [ -e lab/$${book##*/} ] || cp $$book lab/; done

lab-edit: $(STAMP)  ## open the notebooks themselves, to write them
	$(BIN)/jupyter lab --notebook-dir=notebooks

refresh: $(STAMP)  ## put the outputs of the nano run into the committed notebooks, README.md and docs
	$(BIN)/klip reproduce --profile nano $(ARGS)
	$(BIN)/python -c 'from klip.companion import front, reproduce; reproduce.refresh(); front.fill()'
	$(STRIP) notebooks/*.ipynb

clean:  ## delete cached runs, rendered images and executed notebooks; keep .venv, results and downloads
	if [ -d .cache ]; then find .cache -mindepth 1 -maxdepth 1 ! -name data -exec rm -rf {} +; fi
	rm -rf results/*/notebooks build *.egg-info .pytest_cache .ruff_cache
