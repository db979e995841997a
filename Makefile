# make env    makes .venv with the pinned dependencies
# make demo   makes .venv, then trains, distils and exports on real digits
# make op     makes .venv, then compiles the adder op, which happens at its first use otherwise
# make test   makes .venv, then runs the whole suite, in three processes (JOBS=2: in two)
# make lint   makes .venv, then checks form, likely bugs and types (ruff, mypy)
# make clean  removes what these made, but no run folder
#
# PYTHON=/path/to/python picks the interpreter; otherwise the first of python3.11, python3.12,
# python3.13 and python3 that is of a suitable version and can make virtual environments.

VENV ?= .venv
PYTHON ?=
JOBS ?= 3
SUITABLE = import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help env demo op test lint clean

help:
	@sed -n 's/^# make/make/p' Makefile

env: $(VENV)/installed

# The stamp is younger than requirements.txt when there is nothing to do. An environment that a
# previous attempt left without a working pip is made anew; a working one is kept.
$(VENV)/installed: requirements.txt
	@if ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
	    found=; for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	        if "$$python" -c '$(SUITABLE)' >/dev/null 2>&1; then found="$$python"; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "make env: found no suitable Python ($(or $(PYTHON),python3.11 python3.12 python3.13 python3));" \
	            "wanted 3.11, 3.12 or 3.13 with the venv module (Debian: python3-venv)," \
	            "or name one: make env PYTHON=/path/to/python" >&2; \
	        exit 2; \
	    fi; \
	    echo "make env: making $(VENV) with $$("$$found" --version)"; \
	    "$$found" -m venv --clear $(VENV); \
	fi
	$(VENV)/bin/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

demo: env
	$(VENV)/bin/python tools/compare.py --config=configs/quickstart.py --workdir=runs/quickstart

op: env
	$(VENV)/bin/python -c "from tfkd.adder import building; print(building.build())"

test: env
	$(VENV)/bin/python -m pytest -q --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --durations=15 tests

lint: env
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache bazel-*
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
