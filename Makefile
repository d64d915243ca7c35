# Each target does everything from a fresh clone, given python3 (3.11 or later), make and a C compiler (one dependency,
# pesq, is built from source). A second run skips what is done. pip's own settings and PIP_* variables are honoured.
PYTHON ?= python3
BIN := .venv/bin
# Tests run in so many processes of one thread each.
WORKERS ?= 2
READY := .venv/.ready
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.PHONY: venv demo test lint wheel clean

venv: $(READY)

demo: $(READY)
	$(BIN)/flowsep demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: $(READY)
	$(BIN)/python -m build

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find flowsep vae vocoder tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: resolved together with the rest, pip may settle on another build of it than the one that
# the pinned version and your index settings name.
$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed; try make PYTHON=python3.11")'
	@echo "Installing into .venv (some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) -e '.[dev]'
	@touch $@
