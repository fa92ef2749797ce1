# make demo / make test set everything up by themselves; a second call reuses the set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-floor test-real test-engines check lint types serve fuzz-api soak bench gpu peers clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[server,postgres,engine,langchain,sk,otel,ray,dev,bench]"
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/parrot demo $(ARGS)

serve: $(STAMP)
	$(BIN)/parrot serve $(ARGS)

# A process for each core, four at most: every one of them loads torch. What ends early takes over from the others.
test: $(STAMP)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(ARGS)

# LangChain's adapter on the oldest versions that it allows, in an environment of its own: langchain-openai 0.3 needs
# langchain-core below 1 and openai below 3, which is on another HTTP library.
FLOOR := .venv-floor
FLOOR_PACKAGES := langchain-core==0.3.86 langchain-openai==0.3.35 openai==2.54 "langgraph<1" "langchain-tests<1" pytest \
  pytest-asyncio pytest-randomly pytest-timeout pytest-xdist hypothesis psutil jsonschema trustme
# Not held to the newest: what those old versions want in other versions.
FLOOR_FREE := langchain|langgraph|langsmith|openai|packaging|pytest|syrupy|vcrpy|websockets|semantic-kernel

$(FLOOR)/.installed: pyproject.toml constraints.txt Makefile
	@test -x $(FLOOR)/bin/python || $(PYTHON) -m venv $(FLOOR)
	sed -E '/^($(FLOOR_FREE))[a-z-]*==/d' constraints.txt > $(FLOOR)/constraints.txt
	$(FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check -c $(FLOOR)/constraints.txt \
	  -e ".[server,engine]" $(FLOOR_PACKAGES)
	@touch $@

test-floor: $(FLOOR)/.installed
	$(FLOOR)/bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal tests/adapters $(ARGS)

# What drives a browser, a database or a Ray cluster. Root has the first two installed (apt-get); anybody else is told what is missing.
test-real: $(STAMP)
	@tests/real/components.sh
	$(BIN)/python -m pytest tests/real $(ARGS)

# On our engines and in a Ray cluster, and before what `make peers` has installed; what is not there is skipped by name.
test-engines: $(STAMP)
	$(BIN)/python -m pytest tests/peers $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Ends with the README's test command, so that what CI runs is what a user runs.
check: lint types
	$(MAKE) test

# On a machine with a GPU, in its own Python, which needs torch, triton and pytest: make gpu PYTHON=python3. Nothing is
# installed; what needs a package that is absent is skipped by name.
GPU := PYTHONPATH=.typing $(PYTHON)
gpu:
	@$(GPU) -c "import sys, torch; sys.exit(None if torch.cuda.is_available() else 'make gpu: torch finds no GPU here')"
	$(GPU) -m pytest -c tests/gpu.ini tests/kernels
	@$(GPU) -c "import pydantic, llguidance, transformers" 2>/dev/null \
	  || echo "not run: tests/engine/test_triton_kernels.py needs pydantic, llguidance and transformers"
	@! $(GPU) -c "import pydantic, llguidance, transformers" 2>/dev/null \
	  || $(GPU) -m pytest -c tests/gpu.ini tests/engine/test_triton_kernels.py
	$(GPU) benchmarks/kernels.py --only gpu --json benchmarks/results/kernels-gpu.json
	$(GPU) benchmarks/ops.py --json benchmarks/results/ops-gpu.json
	$(GPU) benchmarks/engine_gpu.py --json benchmarks/results/engine-gpu.json
	$(GPU) benchmarks/dispatch.py --repeats 7 --write --json benchmarks/results/dispatch-gpu.json

# Requests of the API's own description, good ones and bad ones; CI makes some hundred of them. About an hour of one core.
fuzz-api: $(STAMP)
	PARROT_FUZZ_CASES=$(or $(CASES),101000) $(BIN)/python -m pytest -s --timeout 0 tests/server/test_openapi.py $(ARGS)

# A hundred SIGKILLs under 200 open background runs; some minutes. make test-real does five, in SQLite and PostgreSQL.
# ARGS="--journal postgresql://…": there.
soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py --kills 100 --open 200 $(ARGS)
	$(BIN)/python benchmarks/soak_fleet.py --kills 100 --open 100
	$(BIN)/python benchmarks/soak_fleet.py --kills 100 --open 100 --ray

# The short set of the proof (some 12 quiet minutes on two cores), and its page: docs/benchmarks.md. WORKLOADS: others.
# AGAINST: whom; peers are those of `make peers`. ARGS="--repeats 5": the last one counts.
WORKLOADS := W1 W1-background W2 W3 W8 W5
AGAINST := E0,E1,llama.cpp
bench: $(STAMP)
	$(BIN)/parrot bench $(WORKLOADS) --against $(AGAINST) --repeats 3 $(ARGS)
	$(BIN)/parrot bench --page

# The engines that benchmarks/engine.py and `make bench` compare, outside the checkout (PARROT_PEERS: where). NAMES: only these.
peers: $(STAMP)
	@PYTHONPATH=benchmarks $(BIN)/python -u -m peers.install $(NAMES)

clean:
	rm -rf $(VENV) $(FLOOR) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
