#!/usr/bin/env bash
# Install Foundry's anvil, from npm's package, into the folder that the first argument names.
# Tests of the contracts run on it too. Without node 18 or npm the script names the reason and
# succeeds: these tests are then skipped.
set -euo pipefail

folder=$1
version=1.7.1

without() {
    echo "Without anvil, because $1. Tests that need it are skipped." >&2
    exit 0
}

if [ -x "$folder/node_modules/.bin/anvil" ]; then exit 0; fi
command -v node >/dev/null || without "node is not installed (version 18 or later: apt-get install nodejs npm)"
command -v npm >/dev/null || without "npm is not installed (apt-get install npm)"
node -e 'process.exit(parseInt(process.versions.node, 10) < 18 ? 1 : 0)' || without "node is older than version 18: $(node --version)"
npm install --prefix "$folder" --no-audit --no-fund --loglevel=error "@foundry-rs/anvil@$version" >&2 ||
    without "npm could not install @foundry-rs/anvil@$version"
