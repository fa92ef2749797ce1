# make demo / make test set everything up by themselves; a second call reuses the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test check lint types serve clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[server,engine,langchain,dev]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/parrot demo $(ARGS)

serve: $(STAMP)
	$(BIN)/parrot serve $(ARGS)

# A process for each core, four at most: every one of them loads torch. What ends early takes over from the others.
test: $(STAMP)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Ends with the README's test command, so that what CI runs is what a user runs.
check: lint types
	$(MAKE) test

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
