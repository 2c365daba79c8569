#!/usr/bin/env bash
# Run the three parts of the tests, even if one fails, and end with what was skipped and why.
# Usage: .ci/test.sh PYTHON JOBS
set -uo pipefail

python=$1
jobs=$2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=()

# Tests start hundreds of processes. Without files of bytecode, each of them compiles our sources
# again: half a second of a daemon's start, and nine seconds of each collection of the tests.
unset PYTHONDONTWRITEBYTECODE

# pytest imports every file that it collects, for 20 seconds of processor time, so the later parts
# name their files. tests/conftest.py refuses a test that has one of these marks elsewhere.
files_with() { grep -rl "mark\.$1" tests --include='test_*.py'; }
mapfile -t swarm < <(files_with swarm)
mapfile -t alone < <(files_with alone)

# Runs one part: a name, then pytest's arguments.
part() {
    local name=$1
    shift
    echo "== $name"
    "$python" -m pytest -rfEs "$@" 2>&1 | tee -a "$log"
    local code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ]; then failed+=("$name (exit code $code)"); fi
}

part "tests that run $jobs at a time" -n "$jobs" --dist worksteal \
    -m "not slow and not alone and not swarm"
# These start several daemons each, and mostly wait for them. A group shares one swarm.
part "swarms that run two at a time" -n $((jobs < 2 ? jobs : 2)) --dist loadgroup \
    -m "swarm and not slow" "${swarm[@]}"
# These measure a time, so each runs by itself.
part "tests that run alone" -m "alone and not slow" "${alone[@]}"

echo
echo "== Skipped, and why:"
grep '^SKIPPED' "$log" | sort -u || echo "nothing"
if [ ${#failed[@]} -gt 0 ]; then
    echo "== Failed: $(printf '%s; ' "${failed[@]}")"
    grep -E '^(FAILED|ERROR) ' "$log"
    exit 1
fi
