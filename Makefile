# Needs Python 3.11 or newer (PYTHON=python3.12 chooses another one), make and a C compiler. Everything
# goes into .venv. A set is installed again only when pyproject.toml or constraints.txt changes, so a
# second run works offline.
PYTHON ?= python3
BIN := .venv/bin
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  $(BIN)/python -m pip install --quiet --no-compile
PIPPEERS := $(subst $(BIN),.venv-peers/bin,$(PIP))
PINS := pyproject.toml constraints.txt
# What a lock names, each file by its sha256; torch comes before by version: its build depends on the index.
LOCKED = $(PIP) torch && $(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes -r
OURSELVES := $(BIN)/python -m pip install --quiet --no-compile --no-deps --no-build-isolation -e .
BENCHES := $(sort $(patsubst bench/%.py,bench-%,$(wildcard bench/[a-z]*.py)))

# pip compiles nothing here: the first import of a module does, once, and must be allowed to keep it.
unexport PYTHONDONTWRITEBYTECODE

# Test files side by side, one a core; more than four at once would want much memory. In their own order: the
# end-to-end ones, few tests that take long, come early, so that no core is left waiting for one of them.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Benches beside peers run in an environment of their own.
PARITY := $(filter bench-lm_eval_parity,$(BENCHES))
PEERED := $(filter bench-encoder bench-kd_loss bench-train_cached bench-on_policy bench-parity bench-quality bench-rollout,$(BENCHES))

.PHONY: setup demo test test-all check bench docs clean $(BENCHES)

setup: .venv/.dev

demo: .venv/.torch
	$(BIN)/spiritsafe run recipes/quickstart.toml

test: .venv/.dev
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

test-all: .venv/.dev
	$(BIN)/python -m pytest $(PARALLEL)

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(BENCHES)

$(filter-out $(PEERED) $(PARITY),$(BENCHES)): bench-%: .venv/.dev
	$(BIN)/python -m bench.$* --json --log > bench/results/$*.json.tmp
	mv bench/results/$*.json.tmp bench/results/$*.json

$(PEERED): bench-%: .venv-peers/.done
	.venv-peers/bin/python -m bench.$* --json --log > bench/results/$*.json.tmp
	mv bench/results/$*.json.tmp bench/results/$*.json

$(PARITY): bench-%: .venv-lm-eval/.done
	.venv-lm-eval/bin/python -m bench.$* --json --log > bench/results/$*.json.tmp
	mv bench/results/$*.json.tmp bench/results/$*.json

docs: .venv/.docs
	$(BIN)/zensical build --clean

clean:
	rm -rf .venv .venv-peers .venv-lm-eval site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv
	@$(PIP) --upgrade pip

.venv/.torch: $(PINS) requirements/torch.txt | .venv/bin/python
	@echo "installing spiritsafe[torch] into .venv: about a minute, downloads aside"
	@$(LOCKED) requirements/torch.txt && $(OURSELVES)
	@touch $@

.venv/.dev: $(PINS) requirements/dev.txt | .venv/bin/python
	@echo "installing spiritsafe[torch,dev] into .venv: about a minute, downloads aside"
	@$(LOCKED) requirements/dev.txt && $(OURSELVES)
	@$(BIN)/python -m spiritsafe.models.encoder > /dev/null || \
	  echo "the sentence encoders' weights could not be fetched: tests that need them are skipped"
	@touch .venv/.torch $@

.venv-peers/.done: bench/requirements/peers.txt $(PINS)
	@echo "installing spiritsafe[torch] and its peers into .venv-peers"
	@$(PYTHON) -m venv .venv-peers
	@$(PIPPEERS) -e '.[torch]' -r bench/requirements/peers.txt
	@$(PIPPEERS) --no-deps $$(sed -n 's/^# no-deps: //p' bench/requirements/peers.txt)
	@touch $@

.venv-lm-eval/.done: bench/requirements/lm_eval.txt $(PINS)
	@echo "installing spiritsafe[torch] and lm_eval into .venv-lm-eval"
	@$(PYTHON) -m venv .venv-lm-eval
	@$(subst $(BIN),.venv-lm-eval/bin,$(PIP)) -e '.[torch]' -r bench/requirements/lm_eval.txt
	@touch $@

.venv/.docs: $(PINS) requirements/docs.txt | .venv/bin/python
	@echo "installing spiritsafe[docs] into .venv"
	@$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes -r requirements/docs.txt
	@$(OURSELVES)
	@touch $@
