# Everything a developer or a CI job runs. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The requirement files are complete, with the extras that they need, so nothing is to be resolved: --no-deps.
# (A resolver may ask for the newest release of a pinned package with extras, and then refuse its hash.)
PIP := --disable-pip-version-check -qq
# Two processes: enough to halve the time, few enough for the smallest machine.
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n 2

PACKAGES := hsmbridge csp/hsmbridge_csp cli/hsmbridge_cli ci/conformance/hsmbridge_conformance
# What is linted besides the packages: these folders as soon as there is Python in them.
SCRIPTS := tests requirements/lock.py $(sort $(wildcard benchmarks/*.py examples/*.py ci/pages/*.py))

# Each token has a folder ci/NAME with a script that installs what it needs; ci/with-token starts a throw-away instance of it.
TOKENS := softhsm softokn softokn-fips opencryptoki tpm2
# SoftHSM serves the whole suite and NSS is installed by `deps`; the others are used where they are there.
OPTIONAL_TOKENS := softokn-fips opencryptoki tpm2

# Reports of `make conformance`.
REPORTS := build/conformance

SETUP := $(VENV)/.setup-done
JUDGES := .venv-judges/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup deps judges demo test test-tokens conformance conformance-docs conformance-runs coverage fuzz sweep lint format bench wheel smoke lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install missing system packages (asks first, unless you are root)
	@PYTHON=$(PYTHON) .ci/deps

setup: deps $(SETUP) ## make .venv with the pinned packages and this checkout in it

$(SETUP): requirements/dev.txt pyproject.toml | deps
	@echo "setup: making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip $(PIP) install --no-deps --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip $(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip $(PIP) check
	@touch $@

judges: deps $(JUDGES) ## make .venv-judges: another COSE implementation that checks our blobs

$(JUDGES): requirements/judges.txt | deps
	@echo "judges: making .venv-judges"
	@$(PYTHON) -m venv .venv-judges
	@.venv-judges/bin/python -m pip $(PIP) install --no-deps --require-hashes -r requirements/judges.txt
	@touch $@

demo: setup ## hand seven keys from one process to another on a throw-away token
	@$(BIN)/hsmbridge demo

test: setup judges ## all tests on SoftHSM, then the token tests on every other token that is installed
	$(PYTEST) $(PARALLEL) tests
	ci/with-token softokn -- $(PYTEST) -q tests/token
	@for token in $(OPTIONAL_TOKENS); do \
	    if ci/with-token $$token --check >/dev/null 2>&1; then \
	        echo "ci/with-token $$token -- $(PYTEST) -q tests/token"; \
	        ci/with-token $$token -- $(PYTEST) -q tests/token || exit 1; \
	    else \
	        echo "test: $$token is not installed here, skipped (make test-tokens installs it)"; \
	    fi; \
	done

test-tokens: setup judges ## install all five tokens and run the token tests on each
	@failed=; for token in $(TOKENS); do \
	    echo "test-tokens: $$token"; \
	    { ci/$$token/install && ci/with-token $$token -- $(PYTEST) -q tests/token; } || failed="$$failed $$token"; \
	done; \
	if [ -n "$$failed" ]; then echo "test-tokens: failed on:$$failed" >&2; exit 1; fi

conformance: conformance-runs ## run the conformance suite on all five tokens: each must find exactly what ci/NAME/expected says
	@$(BIN)/python -m ci.pages.publish $(REPORTS) --check

conformance-docs: conformance-runs ## the same, and write the pages of docs/conformance that come from these runs
	@$(BIN)/python -m ci.pages.publish $(REPORTS)

conformance-runs: setup
	@rm -rf $(REPORTS) && mkdir -p $(REPORTS)
	@failed=; for token in $(TOKENS); do \
	    ci/$$token/install >$(REPORTS)/$$token.log 2>&1 && \
	    ci/with-token $$token -- $(BIN)/hsmbridge conformance run --waivers ci/$$token/expected --exact \
	        --report json:$(REPORTS)/$$token.json >>$(REPORTS)/$$token.log 2>&1 || \
	        { failed="$$failed $$token"; sed '/^waived by/,/^$$/d; /^unsupported:$$/,/^$$/d' $(REPORTS)/$$token.log; }; \
	    [ ! -f $(REPORTS)/$$token.json ] || $(BIN)/python -m ci.pages.publish --tell $(REPORTS)/$$token.json; \
	done; \
	if [ -n "$$failed" ]; then echo "conformance: failed on:$$failed" >&2; exit 1; fi

coverage: setup judges ## branch coverage of the packages, from the whole suite on SoftHSM and the token tests on NSS
	@rm -f .coverage .coverage.*
	$(PYTEST) $(PARALLEL) -q --cov --cov-report= --cov-fail-under=0 tests
	ci/with-token softokn -- $(PYTEST) -q --cov --cov-append --cov-report= --cov-fail-under=0 tests/token
	$(BIN)/coverage report

fuzz: setup ## a million mutated blobs, and the other parsers' inputs: one error family, nothing changed is taken
	$(BIN)/python -m tests.fuzz

sweep: setup ## every call and durable step, with every fault: no key lost, never two holders (ten to fifteen minutes)
	$(BIN)/python -m tests.sweep

lint: setup ## ruff and mypy, both strict, over packages, tests and scripts
	$(BIN)/ruff check $(PACKAGES) $(SCRIPTS)
	$(BIN)/ruff format --check $(PACKAGES) $(SCRIPTS)
	$(BIN)/mypy $(PACKAGES) $(SCRIPTS)

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix $(PACKAGES) $(SCRIPTS)
	$(BIN)/ruff format $(PACKAGES) $(SCRIPTS)

bench: setup ## compare with a C program that makes the same calls
	$(BIN)/python benchmarks/run.py

wheel: setup ## build the wheel into dist/
	@rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

smoke: wheel ## install the wheel in a new environment outside the checkout, and use it there
	@PYTHON=$(PYTHON) .ci/smoke dist/*.whl requirements/runtime.txt

lock: deps ## pin the newest versions that pyproject.toml allows, in requirements/
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip $(PIP) install --no-deps --require-hashes -r requirements/lock.txt
	.venv-lock/bin/python requirements/lock.py

clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-judges .venv-lock dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.*
	rm -rf htmlcov benchmarks/bin
	find $(PACKAGES) tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
