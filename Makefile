# `make demo` runs the main job on real photos, `make test` the tests, `make test-fast` the quick ones, `make docs` makes the site.
# They share one .venv, made from the package index; nothing else on the machine is touched.
PYTHON ?= python3
# Processes that run tests. Tests that share a file or a run stay in one process.
WORKERS ?= 2
BIN = .venv/bin
STAMP = .venv/.installed
PARALLEL = -n $(WORKERS) --dist loadscope --no-loadscope-reorder
# Spinning OpenMP threads lose most of their speed as soon as anything else runs on the machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test test-long test-fast browser torture lowest audit docs notebooks check format clean

# Modules are compiled as they are imported: compiling all of torch takes minutes.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/potstill demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -m "not browser and not long" $(PARALLEL) $(ARGS)

# The tests that `make test` leaves out, since each takes half a minute or more and has a shorter relative there.
test-long: $(STAMP)
	$(BIN)/python -m pytest -m long $(PARALLEL) $(ARGS)

# Unit and property tests, without those marked slow.
test-fast: $(STAMP)
	$(BIN)/python -m pytest -m "not browser and not slow and not long" $(PARALLEL) tests/unit tests/property $(ARGS)

# Pages in a real Chromium: needs Debian's package chromium, and npm for the web export.
browser: $(STAMP)
	$(BIN)/python -m pytest -m browser $(PARALLEL) $(ARGS)

# Kills, damaged files and the like, until MINUTES are up; goes on from the results in benchmarks/torture/.
# `make torture SEED=7` draws other cases, `ARGS="--only kills --again"` begins with those that went wrong.
MINUTES ?= 20
SEED ?= 0
torture: $(STAMP)
	$(BIN)/python -m tests.torture --minutes $(MINUTES) --seed $(SEED) \
		--journal benchmarks/torture/seed-$(SEED).jsonl --page docs/reference/torture.md $(ARGS)

# Tests and a tiny job with the lowest versions that pyproject.toml allows, in build/lowest/. Newer warnings do not count.
LOWEST_TESTS ?= tests/unit tests/property tests/end_to_end/test_main_job.py
lowest: build/lowest/.installed
	PYTHONPATH=src build/lowest/bin/python -m pytest -W default -m "not browser and not slow and not long" $(LOWEST_TESTS) $(ARGS)

build/lowest/.installed: pyproject.toml
	$(PYTHON) -m venv build/uv
	build/uv/bin/pip install --quiet uv
	build/uv/bin/uv venv --quiet --clear --python $(PYTHON) build/lowest
	build/uv/bin/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct -e '.[dev]'
	touch $@

# Known weaknesses of the installed packages, as the package index knows them. Fails where it cannot tell of one.
audit: $(STAMP)
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit
	$(BIN)/pip freeze --exclude-editable | sed 's/+[a-z0-9]*$$//' > build/audit/installed.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement build/audit/installed.txt $(ARGS)

# The documentation site, build/site/index.html. Stops where a generated page is out of date or a link leads nowhere.
# To search it, serve it: python3 -m http.server --bind 127.0.0.1 -d build/site
docs: $(STAMP)
	$(BIN)/python tools/reference.py --check
	$(BIN)/python tools/docs_site.py

# Runs the notebooks of examples/ and stores their output.
notebooks: $(STAMP)
	$(BIN)/python tools/notebooks.py $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build
