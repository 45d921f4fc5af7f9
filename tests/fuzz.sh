#!/bin/bash
# Fuzzing with libFuzzer under ASan and UBSan: `fuzz.sh SECONDS [NAME ...]`, each target for so long,
# two at a time. New inputs go to build/fuzz/corpus, never into the tree; what crashes a target lies
# in build/fuzz/crashes, and belongs into tests/fuzz/corpus/NAME once it is mended. Part of the full
# tier. Prints ok / not ok lines.
set -u
cd "$(dirname "$0")/.."
seconds=${1:-30}
shift
names=${*:-$(cd tests/fuzz && printf '%s\n' test_*.c | sed 's/^test_//; s/\.c$//')}
mkdir -p build/fuzz/corpus build/fuzz/crashes build/test-logs
make --no-print-directory -j2 fuzz-build >build/test-logs/fuzz-build.log 2>&1 || {
    tail -n 20 build/test-logs/fuzz-build.log
    echo "not ok fuzz build"
    exit 1
}

one() { # one NAME
    local log=build/test-logs/fuzz-$1.log
    mkdir -p "build/fuzz/corpus/$1" "build/fuzz/crashes/$1"
    if build/fuzz/bin/fuzz-"$1" -max_total_time="$seconds" -rss_limit_mb=512 -timeout=25 \
        -malloc_limit_mb=512 -max_len=8192 -print_final_stats=1 -verbosity=1 \
        -artifact_prefix="build/fuzz/crashes/$1/" "build/fuzz/corpus/$1" "tests/fuzz/corpus/$1" \
        >"$log" 2>&1 </dev/null; then
        echo "ok $1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s"
    else
        grep -E 'ERROR|SUMMARY|broken_promise|Test unit' "$log" | head -n 5
        echo "not ok $1"
    fi
}
export -f one
export seconds
out=$(printf '%s\n' $names | xargs -P 2 -I{} bash -c 'one {}')
printf '%s\n' "$out"
! printf '%s\n' "$out" | grep -q '^not ok'
