# Two commands on a machine with Python 3.11+ and make: `make demo` and `make test`.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/installed
NODE   := tests/clients/node_modules/.installed
DATA   ?= var
ORDERS ?=
ONLY   ?=

.PHONY: help demo serve test browser clients check bench fuzz faults soak clean lock docs

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(STAMP): requirements-dev.lock requirements-postgres.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || \
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		--python-version 3.11 --implementation cp --abi cp311 \
		--target "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" -r requirements-postgres.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $(STAMP)

demo: $(STAMP) ## the main job, start to finish, on embedded servers
	$(BIN)/tessera demo --data-dir $(DATA)

serve: $(STAMP) ## the platform on http://127.0.0.1:8080
	$(BIN)/tessera serve --data-dir $(DATA)

test: $(STAMP) ## every test, on real PostgreSQL and Valkey
	$(BIN)/pytest -q -n 2 --dist loadfile

browser: $(STAMP) ## the bank's pages in a real Chromium, which must be on PATH
	BROWSER_NEEDED=1 $(BIN)/pytest -q tests/browser

$(NODE): tests/clients/package.json tests/clients/package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || { \
		echo "Node.js 18 or newer and npm are needed (Debian: apt-get install nodejs npm)" >&2; exit 1; }
	cd tests/clients && npm ci --no-audit --no-fund --ignore-scripts
	@touch $(NODE)

clients: $(STAMP) $(NODE) ## clients from npm prove the authorization server (needs Node.js 18+ and npm)
	$(BIN)/pytest -q tests/clients/by_*.py

check: $(STAMP) ## lint, types, import contracts, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

docs: $(STAMP) ## write docs/errors.md and docs/configuration.md anew
	$(BIN)/python -m docs.generate

bench: $(STAMP) ## measure; ORDERS=FILE takes a real order file, ONLY=name a part
	$(BIN)/python -m bench $(if $(ORDERS),--orders $(ORDERS)) $(if $(ONLY),--only $(ONLY))

fuzz: $(STAMP) ## many generated requests for every operation (EXAMPLES each)
	FUZZ_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/pytest -q tests/journeys/test_openapi.py

faults: $(STAMP) ## kill everything in the middle of a long import (LINES orders for each fault)
	FAULT_LINES=$(or $(LINES),40000) $(BIN)/pytest -q tests/journeys/test_faults.py

soak: $(STAMP) ## the points against a model, step by step (EXAMPLES lives of up to 40 steps)
	SOAK_EXAMPLES=$(or $(EXAMPLES),1000) $(BIN)/pytest -q -s tests/exactness/test_state_machine.py

lock: ## renew uv.lock and the hash-pinned exports (needs uv)
	env -u UV_FIND_LINKS -u UV_INDEX -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_INDEX_URL uv lock
	uv export --quiet --frozen --no-emit-project --no-header --no-dev -o requirements.lock
	uv export --quiet --frozen --no-emit-project --no-header -o requirements-dev.lock
	uv export --quiet --frozen --no-emit-project --no-header --no-dev --group bench -o requirements-bench.lock

clean: ## remove what was built and the embedded data
	rm -rf .venv tests/clients/node_modules $(DATA) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
