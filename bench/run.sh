#!/bin/bash
# Runs the benches: `bench/run.sh` all of them, `bench/run.sh hop ops` these. Prints tables and
# appends a line a row to build/bench.jsonl. Called by `make bench`, which builds first.
set -eu
cd "$(dirname "$0")/.."
commit=$(git rev-parse --short HEAD 2>/dev/null || echo none)
git diff --quiet HEAD 2>/dev/null || commit=$commit+
BENCH_SCRATCH=$(mktemp -d /dev/shm/longlived-bench-XXXXXX)
trap 'rm -rf "$BENCH_SCRATCH"' EXIT
export BENCH_COMMIT=$commit BENCH_JSON=build/bench.jsonl BENCH_SCRATCH
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
echo "# commit $commit, $(nproc) x $cpu, $(uname -sr), load $(cut -d' ' -f1 /proc/loadavg)"
for b in "${@:-}"; do
    for name in ${b:-hop cache spans recovery stages ops}; do
        echo
        echo "# build/bin/bench-$name"
        "build/bin/bench-$name"
    done
done
