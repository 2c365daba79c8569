#!/usr/bin/env bash
# Install what pip needs from the system: Python 3.11 with venv. libp2p's fastecdsa has no wheel, so
# a C compiler, Python's headers and GMP too. With the argument "test" also Chromium.
#
# As root with apt, the script installs missing packages. Otherwise it prints the command that
# installs them and fails. Chromium alone is optional: without it the browser test is skipped.
set -euo pipefail

python=${PYTHON:-python3.11}
needed=()
wanted=()

has() { command -v "$1" >/dev/null 2>&1; }

if ! has "$python"; then
    needed+=(python3.11 python3.11-venv)
    headers_missing=yes
else
    if ! "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
        echo "HyperGPU needs Python 3.11; $python is $("$python" --version 2>&1)." >&2
        echo "  fix: make PYTHON=/path/to/python3.11 ..." >&2
        exit 2
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || needed+=(python3.11-venv)
    "$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' \
        && headers_missing=no || headers_missing=yes
fi
if [ "$headers_missing" = yes ]; then needed+=(python3.11-dev); fi
if ! has gcc; then needed+=(gcc libc6-dev); fi
if has gcc && ! echo '#include <stdlib.h>' | gcc -E -x c - >/dev/null 2>&1; then needed+=(libc6-dev); fi
if ! has gcc || ! echo '#include <gmp.h>' | gcc -E -x c - >/dev/null 2>&1; then needed+=(libgmp-dev); fi
if [ "${1:-}" = test ] && ! has chromium; then wanted+=(chromium); fi

packages=("${needed[@]}" "${wanted[@]}")
if [ ${#packages[@]} -eq 0 ]; then exit 0; fi

if [ "$(id -u)" -eq 0 ] && has apt-get; then
    echo "Installing from Debian: ${packages[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
    exit 0
fi

line="sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
if [ ${#needed[@]} -gt 0 ]; then
    echo "Missing on this machine: ${packages[*]}" >&2
    echo "  fix: $line" >&2
    exit 2
fi
echo "Without ${wanted[*]} the browser test is skipped. To have it: $line" >&2
