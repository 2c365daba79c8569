# make run    makes .venv, installs, and shows a swarm that trains (ROUNDS=0: until Ctrl-C)
# make test   makes .venv with the test extra and runs the tests
# make fresh  tries both in a bare Debian 12 (for root, with debootstrap; takes half an hour)
# make sim    plays all scenarios in virtual time; make bench measures averaging beside other engines, then real processes under fault

PYTHON ?= python3.11
ROUNDS ?= 10
PEERS  ?= 4
JOBS   ?= 2
VENV   := .venv
BIN    := $(VENV)/bin

# The contracts' compiler has an environment of its own; anvil comes from npm and is only for tests.
COMPILER := .venv-contracts
ANVIL    := .anvil

# What an installation depends on: a change of any of these files installs again, anything else is picked up by the editable install.
RECIPE := pyproject.toml constraints.txt .ci/debian.sh protocol/codec/kernel.c

.PHONY: run setup test test-slow fresh lint sim bench contracts contracts-check anvil clean

run: $(VENV)/.installed
	$(BIN)/hypergpud demo --peers $(PEERS) --rounds $(ROUNDS)

setup: $(VENV)/.installed

# Two at a time, then by themselves those that measure a time or fill the machine with daemons. Both
# halves run, whatever fails, and the last lines say what was skipped and why.
test: $(VENV)/.installed-test anvil
	.ci/test.sh $(BIN)/python $(JOBS)

# Both commands of the README, from a clone of what is committed, in a bare Debian 12 root.
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

# The same bytes from the same sources; contracts-check writes nothing and fails where they differ.
contracts: $(COMPILER)/.installed
	$(COMPILER)/bin/python contracts/build.py

contracts-check: $(COMPILER)/.installed
	$(COMPILER)/bin/python contracts/build.py --check

# The tests of contracts and client run on anvil too, where node 18 or later exists.
anvil:
	.ci/anvil.sh $(ANVIL)

$(COMPILER)/.installed: contracts/compiler.txt
	test -x $(COMPILER)/bin/pip || $(PYTHON) -m venv $(COMPILER)
	$(COMPILER)/bin/python -m pip install --quiet --disable-pip-version-check -r contracts/compiler.txt
	touch $@

clean:
	rm -rf $(VENV) $(COMPILER) $(ANVIL) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamps are written last, so that an installation that was broken off is begun again.
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
