# make run    install into .venv and show a swarm that trains (ROUNDS=0: until Ctrl-C)
#             MODEL=smollm2: fine-tune SmolLM2-135M, which is fetched first (93 MB)
# make test   install with the test extra and run the tests
# make fresh  try both in a bare Debian 12 (needs root and debootstrap; takes half an hour)
# make sim    play all scenarios in virtual time
# make bench  measure averaging beside other engines, then real processes with faults

PYTHON ?= python3.11
ROUNDS ?= 10
PEERS  ?= 4
# How many tests run at a time. Three fill two cores: of the 95 s of tests/ports, 63 s use a processor.
JOBS   ?= 3
VENV   := .venv
BIN    := $(VENV)/bin

# The compiler of the contracts has its own environment. anvil comes from npm, for tests only.
COMPILER := .venv-contracts
ANVIL    := .anvil

# A change of one of these files installs again. The editable install sees all other changes.
RECIPE := pyproject.toml constraints.txt .ci/debian.sh protocol/codec/kernel.c

# The extra packages and the file of a run with a pretrained model.
MODEL  ?=
ifdef MODEL
RUN_NEEDS := $(VENV)/.installed-hf
# Five workers would share the processors otherwise.
RUN_FLAGS := --no-alone --run configs/runs/$(MODEL)-lora.toml
endif

.PHONY: run setup test test-slow fresh lint sim bench contracts contracts-check anvil clean

run: $(VENV)/.installed $(RUN_NEEDS)
	$(if $(MODEL),$(BIN)/hypergpud model fetch $(MODEL))
	$(BIN)/hypergpud demo --peers $(PEERS) --rounds $(ROUNDS) $(RUN_FLAGS)

setup: $(VENV)/.installed

# Run most tests JOBS at a time, then swarms of processes two at a time, then alone those that measure
# a time. All parts run even if one fails. The last lines list the skipped tests and the reasons.
test: $(VENV)/.installed-test anvil
	.ci/test.sh $(BIN)/python $(JOBS)

# Run both commands of the README in a bare Debian 12, from a clone of the last commit.
fresh:
	.ci/fresh.sh

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

sim: $(VENV)/.installed
	$(BIN)/hypergpud simulate all

bench: $(VENV)/.installed
	$(BIN)/hypergpud bench allreduce
	$(BIN)/hypergpud bench faults

# Compile the contracts. contracts-check writes nothing, and fails if the bytes differ.
contracts: $(COMPILER)/.installed
	$(COMPILER)/bin/python contracts/build.py

contracts-check: $(COMPILER)/.installed
	$(COMPILER)/bin/python contracts/build.py --check

# Install anvil, if node 18 or later exists. Tests of contracts and client then run on it too.
anvil:
	.ci/anvil.sh $(ANVIL)

$(COMPILER)/.installed: contracts/compiler.txt
	test -x $(COMPILER)/bin/pip || $(PYTHON) -m venv $(COMPILER)
	$(COMPILER)/bin/python -m pip install --quiet --disable-pip-version-check -r contracts/compiler.txt
	touch $@

clean:
	rm -rf $(VENV) $(COMPILER) $(ANVIL) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamp is written last, so that an interrupted installation starts again.
$(VENV)/.installed: $(RECIPE)
	PYTHON="$(PYTHON)" .ci/debian.sh
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(RECIPE)
	PYTHON="$(PYTHON)" .ci/debian.sh test
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-hf: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[hf]'
	touch $@
