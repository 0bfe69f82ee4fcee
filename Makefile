.DEFAULT_GOAL := help
PYTHON ?= python3
SERVE ?= 1
BIN := .venv/bin

# Real feeds and the providers' specifications, where a checkout has them beside it.
ifneq ($(wildcard ../shared/feeds),)
export FRIDAY_REAL_DATA ?= $(abspath ../shared)
endif

PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SELF := $(PIP) install --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .

.PHONY: help demo test unit lint types imports check check-mail check-smtp test-browser crash faults bench-send bench-import bench-people mutants lock clean

help: ## what there is to make
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

.venv/run: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --requirement requirements.lock
	@$(SELF)
	@touch $@

.venv/dev: requirements-dev.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@$(SELF)
	@touch .venv/run $@

demo: .venv/run ## the whole Friday on sample data, then the preview (SERVE=0 stops before it)
	@$(BIN)/friday demo $(if $(filter 0,$(SERVE)),--no-serve,)

test: .venv/dev ## the tests
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

unit: .venv/dev ## the quick tests, in a minute: without processes and databases of their own
	@$(BIN)/pytest -n auto -m "not slow and not database" $(ARGS)

lint: .venv/dev ## format and lint
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: .venv/dev ## mypy --strict
	@$(BIN)/mypy

imports: .venv/dev ## the import contracts
	@$(BIN)/lint-imports

check: lint types imports ## lint, types and imports

check-mail: .venv/dev ## Nu HTML checker and axe over the rendered issue
	@tests/mail/install.sh
	@$(BIN)/python tests/mail/check.py --self-test
	@$(BIN)/python -m tests.mail.render build/mail
	@$(BIN)/python tests/mail/check.py build/mail

check-smtp: .venv/dev ## an issue through real mail servers and back (root, Debian)
	@tests/mta/install.sh
	@$(BIN)/pytest tests/mta/check_smtp.py

test-browser: .venv/dev ## readers and admins in Chromium, and axe on every page (FRIDAY_SHOTS=DIR keeps pictures)
	@tests/browser/install.sh
	@$(BIN)/pytest -n auto tests/browser/check_flows.py tests/browser/check_desk.py tests/browser/check_writing.py tests/browser/check_pages.py $(ARGS)

crash: .venv/dev ## senders killed N times (1,000), then single misfortunes
	@tests/trials/install.sh
	@$(BIN)/python -m tests.trials.crash --crashes $(or $(N),1000) $(ARGS)

faults: .venv/dev ## fault by fault (CHECK=README.md compares, WRITE=README.md writes)
	@$(BIN)/python -m tests.trials.faults $(if $(CHECK),--check $(CHECK)) $(if $(WRITE),--write $(WRITE))

mutants: .venv/dev ## break ledger and delivery in every small way, and see the tests fail (takes long)
	@$(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results

bench-send: .venv/dev ## the send loop beside a bare requests loop, as JSON (N=100000, ARGS="--memory --scenarios a1")
	@$(BIN)/python -m tests.trials.bench_send --readers $(or $(N),100000) $(ARGS)

bench-import: .venv/dev ## an import beside a bare email-validator loop, as JSON (N=1000000, ARGS="--domains 1000000")
	@$(BIN)/python -m tests.trials.bench_import --rows $(or $(N),1000000) $(ARGS)

bench-people: .venv/dev ## pages and searches among N people (1,000,000) beside a hundredth of them, as JSON
	@$(BIN)/python -m tests.trials.bench_people --rows $(or $(N),1000000) $(ARGS)

lock: ## write the lock files anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url pyproject.toml --output-file requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --extra dev pyproject.toml --output-file requirements-dev.lock

clean: ## remove everything that was made here
	rm -rf .venv build demo *.egg-info
