# Two commands matter to a newcomer: `make demo` and `make test`.
#   make demo [EXIT=1] [ENTITY=NAME]   install, start the embedded stack, forget one entity, show before/after
#   make test [JOBS=2]                 the whole suite, on the same embedded servers
#   make up                            the embedded stack alone, until Ctrl-C
#   make lint | types | imports        what CI checks besides the tests
#   make audit [ONLINE=1]              known vulnerabilities (pip-audit) and bandit; ONLINE=1 fails if it cannot look
#   make test-browser                  every journey through the dashboard in a real Chromium (installs it if need be)
#   make screenshots                   the documentation's pictures of the dashboard, in docs/screenshots
#   make problems                      docs/reference/problems.md, from the problem classes
#   make docs                          the documentation as a site, in site/
#   make test-docker                   builds the image, runs the compose stack: a request end to end, three replicas
#   make test-vllm                     a real vLLM server on the CPU that writes the answers (installs one, once)
#   make clean                         removes .venv, var/ and caches
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log
# The first Python >= 3.11 that can also make virtual environments. Override: make demo PYTHON=/path/to/python3
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { command -v $$p; break; }; done)
# The CPU build of torch is taken if the package indexes in use hold one (PyTorch publishes an index of CPU wheels:
# make demo TORCH_INDEX=URL), else the default build, which is larger. For a GPU: install the torch you want into
# .venv first (any 2.13.0 build is kept).
TORCH := 2.13.0
TORCH_INDEX ?=
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PYTEST_ARGS ?=
# Test processes, each with servers of its own. make test JOBS=0 runs everything in one (for a debugger).
JOBS ?= 2

.PHONY: install demo up test chromium test-browser screenshots test-docker test-vllm lint format types imports audit problems docs check clean
.DEFAULT_GOAL := install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Lethe needs Python 3.11 or newer with the venv module." >&2; \
	  echo "On Debian: apt-get install python3 python3-venv. Or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@: > $(LOG)
	@$(BIN)/python -c 'from importlib.metadata import version as v; raise SystemExit(v("torch").split("+")[0] != "$(TORCH)")' 2>/dev/null \
	|| { echo "Installing torch $(TORCH) into $(VENV) (once) ..."; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "torch==$(TORCH)+cpu" $(INDEX) >>$(LOG) 2>&1 \
	  || $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt "torch==$(TORCH)" >>$(LOG) 2>&1 \
	  || { tail -n 20 $(LOG) >&2; echo "Installing torch failed; the whole output is in $(LOG)" >&2; exit 1; }; }
	@echo "Installing pinned dependencies into $(VENV) (once) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[embedded,dev]" >>$(LOG) 2>&1 \
	|| { tail -n 20 $(LOG) >&2; echo "Installation failed; the whole output is in $(LOG)" >&2; exit 1; }
	@touch $@

demo: $(STAMP)
	@$(BIN)/lethe demo $(if $(filter-out 0,$(EXIT)),--exit) $(if $(ENTITY),--entity "$(ENTITY)")

up: $(STAMP)
	@$(BIN)/lethe up

test: $(STAMP)
	@$(BIN)/python -m pytest -m "not docker and not long and not vllm and not browser" -n $(JOBS) --dist loadfile \
	  $(PYTEST_ARGS)

# Debian's chromium, or any other: make test-browser CHROMIUM=/path/to/chrome
chromium: $(STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[browser]" >>$(LOG) 2>&1 \
	|| { tail -n 20 $(LOG) >&2; echo "Installation failed; the whole output is in $(LOG)" >&2; exit 1; }
	@test -n "$(CHROMIUM)" || command -v chromium google-chrome >/dev/null \
	|| { command -v apt-get >/dev/null && test "$$(id -u)" = 0 && echo "Installing chromium (once) ..." \
	  && apt-get update -q >>$(LOG) 2>&1 && apt-get install -qy --no-install-recommends chromium >>$(LOG) 2>&1; } \
	|| { echo "Needs a Chromium: 'apt-get install chromium' as root, or CHROMIUM=/path/to/chrome" >&2; exit 1; }

test-browser: chromium
	@$(BIN)/python -m pytest -m browser tests/browser $(PYTEST_ARGS)

screenshots: chromium
	@$(BIN)/python scripts/screenshots.py

test-docker: $(STAMP)
	@$(BIN)/python -m pytest -m docker tests/docker $(PYTEST_ARGS)

test-vllm: $(STAMP)
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" scripts/vllm-test-env.sh .venv-vllm
	@$(BIN)/python -m pytest -m vllm tests/vllm $(PYTEST_ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet .

format: $(STAMP)
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

types: $(STAMP)
	@$(BIN)/mypy

imports: $(STAMP)
	@$(BIN)/lint-imports

audit: $(STAMP)
	@$(BIN)/python .ci/audit.py $(if $(filter-out 0,$(ONLINE)),--online)

# docs/reference/problems.md, from the problem classes
problems: $(STAMP)
	@$(BIN)/python .ci/problems_page.py

# Built from what is in the repository, strictly, into site/; nothing is loaded from elsewhere when it is read.
docs: $(STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[docs]" >>$(LOG) 2>&1 \
	|| { tail -n 20 $(LOG) >&2; echo "Installation failed; the whole output is in $(LOG)" >&2; exit 1; }
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -f .ci/mkdocs.yml && echo "The site is in site/index.html"

check: lint types imports audit test

clean:
	rm -rf $(VENV) .venv-vllm var .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
