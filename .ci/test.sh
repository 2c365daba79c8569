#!/usr/bin/env bash
# Run both halves of the tests, also when the first one fails, and end with what was skipped and why.
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

# pytest imports every file that it collects, for 20 seconds of processor time, so the second half
# names its files. tests/conftest.py refuses a test that has the mark elsewhere.
mapfile -t alone < <(grep -rl 'mark\.alone' tests --include='test_*.py')

# Runs one half: a name, then pytest's arguments.
half() {
    local name=$1
    shift
    echo "== $name"
    "$python" -m pytest -rfEs "$@" 2>&1 | tee -a "$log"
    local code=${PIPESTATUS[0]}
    if [ "$code" -ne 0 ]; then failed+=("$name (exit code $code)"); fi
}

half "tests that run two at a time" -n "$jobs" --dist worksteal -m "not slow and not alone"
# These measure a time or fill the machine with daemons, so each runs by itself.
half "tests that run alone" -m "alone and not slow" "${alone[@]}"

echo
echo "== Skipped, and why:"
grep '^SKIPPED' "$log" | sort -u || echo "nothing"
if [ ${#failed[@]} -gt 0 ]; then
    echo "== Failed: $(printf '%s; ' "${failed[@]}")"
    grep -E '^(FAILED|ERROR) ' "$log"
    exit 1
fi
