# Every target works as the first command in a fresh clone: Python 3.11 or newer, and make, are all it needs.
PYTHON ?= python3
BIN := .venv/bin
# Without compiled code on disk, each process, and each run of a workflow in its sandbox, compiles the project anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo stack probe test docs faults chaos model fuzz mutants histories screenshots lint lock

setup: .venv/.installed

.venv/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	touch $@

demo: setup ## One video, end to end, on embedded parts
	@$(BIN)/python -m dev.demo

stack: setup ## The same parts, kept up on fixed ports until Ctrl-C
	@$(BIN)/python -m dev.stack $(STACK)

probe: setup ## What the provider's documents leave open, on a real account: it asks before it spends
	@$(BIN)/python -m dev.probe

# deptry runs twice: the product imports what it declares; dev/ and tests/ may use the group dev as well.
lint: setup ## Style, types, import contracts, declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/deptry . --extend-exclude '^(dev|docs)/'
	$(BIN)/deptry . --exclude '\.venv' --ignore DEP002,DEP004

# A test process that hangs in its last clean-up ends all the same, and says where.
test: lint ## Lint, types, imports, tests
	$(BIN)/python -m pytest -n 3 --dist worksteal -o faulthandler_timeout=700 -o faulthandler_exit_on_timeout=true

tables: setup ## The generated tables of docs/reference, after a change of settings, request or command line
	PYTHONPATH=. $(BIN)/python docs/hooks.py

docs: setup ## The documentation as a site, in build/docs
	PYTHONPATH=. $(BIN)/mkdocs build --strict

# What a coming SDK delivers in another order concerns the workflow, and waits that a crash interrupts.
faults: setup ## Crashes at every point, outages of a day, upgrades, in both SDK orders: a long campaign; FAULTS_REPORT names the file for its tables
	FAULTS_REPORT=$${FAULTS_REPORT:-build/faults.md} $(BIN)/python -m pytest -m faults \
		-n 2 --dist worksteal
	COMING_SDK=1 $(BIN)/python -m pytest tests/workflows tests/faults/test_crash_matrix.py -m "faults or not faults" \
		-n 2 --dist worksteal

chaos: setup ## Many jobs under every fault at once, a thousand in a round; SEED, JOBS (200) and MINUTES of trouble
	$(BIN)/python -m tests.faults.chaos $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(MINUTES),--minutes $(MINUTES))

model: setup ## Scripts around one job on a simulated server and provider; MINUTES (10), or the SEED that failed
	$(BIN)/python -m tests.model.campaign $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

fuzz: setup ## Lies of the provider, damaged objects, raw bytes, odd media; MINUTES (10), or the SEED of a round that failed
	$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

mutants: setup ## Small edits that each break a promise, and the test that turns red for each
	$(BIN)/python -m tests.faults.mutants

histories: setup ## Record the histories that tests/workflows makes, in five minutes; SET (the version), TESTS (all)
	$(BIN)/python -m tests.replay.record $(if $(SET),--set $(SET)) $(TESTS)

screenshots: setup ## Renew the pictures of docs/how-to/inspecting.md; needs Chromium
	SCREENSHOTS=docs/images $(BIN)/python -m pytest tests/browser

lock: setup ## Pin every dependency, with hashes and without download addresses
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --quiet --upgrade \
		--custom-compile-command "make lock" -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra cli --constraint requirements.txt --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links --quiet \
		--custom-compile-command "make lock" -o deploy/requirements.txt
