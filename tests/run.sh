#!/bin/bash
# The test runner: `tests/run.sh quick` (make test) or `full` (make test-full). It runs the style
# rules, every unit test program and the end-to-end tests, and ends with one line:
# N passed, N failed, N skipped. Every skip is named above it.
set -u
cd "$(dirname "$0")/.."
tier=${1:-quick}
san=${SAN:-0}
obj=build/$([ "$san" = 1 ] && echo san || echo obj)
logs=build/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
declare -a skips=() failures=()

# Reads lines "ok NAME", "not ok NAME", "skip NAME: why" from a log.
count() {
    local line
    while IFS= read -r line; do
        case $line in
        "ok "*) passed=$((passed + 1)) ;;
        "not ok "*) failed=$((failed + 1)) failures+=("$2: ${line#not ok }") ;;
        "skip "*) skipped=$((skipped + 1)) skips+=("$2: ${line#skip }") ;;
        esac
    done <"$1"
}

# cmocka's own words to ours; a program that ends without its summary has failed as a whole.
unit() {
    local name=${1#"$obj"/tests/} log status
    log=$logs/$(echo "$name" | tr / _).log
    timeout 300 "$1" >"$log.raw" 2>&1 </dev/null
    status=$?
    sed -n 's/^\[       OK \] /ok /p; s/^\[  FAILED  \] \([a-z_0-9]*\)$/not ok \1/p;
            s/^\[  SKIPPED \] \([a-z_0-9]*\)$/skip \1/p' "$log.raw" | sort -u >"$log"
    if [ $status -ne 0 ] && ! grep -q '^not ok' "$log"; then
        echo "not ok (exit $status)" >>"$log"
    elif ! grep -q -e '^ok' -e '^skip' "$log"; then
        echo "not ok (ran no test)" >>"$log"
    fi
    count "$log" "$name"
    if grep -q '^not ok' "$log"; then tail -n 30 "$log.raw"; fi
}

script() { # script NAME COMMAND...: prints our lines itself
    local name=$1 log=$logs/$1.log status
    shift
    timeout 2400 "$@" >"$log" 2>&1 </dev/null
    status=$?
    if [ $status -ne 0 ] && ! grep -q '^not ok' "$log"; then
        echo "not ok (exit $status)" >>"$log"
    fi
    count "$log" "$name"
    if grep -q '^not ok' "$log"; then grep -v -e '^ok' "$log" | tail -n 60; fi
}

# The simulator's seeds: 2,000 without this.
if [ "$tier" = full ] && [ "$san" = 0 ]; then export SIM_SEEDS=150000; fi

script tidy bash tests/tidy.sh "$tier"
for t in $(find "$obj/tests" -type f -name 'test_*' ! -name '*.o' ! -name '*.d' | sort); do
    unit "$t"
done
script e2e python3 tests/e2e/run.py "$tier"
if [ "$tier" = full ] && [ "$san" = 0 ]; then
    # Debian's python3 has Debian's numpy, another that comes first in PATH may not.
    script semantics /usr/bin/python3 tests/semantics/run.py
    script demo_semantics /usr/bin/python3 tests/semantics/run.py demo
    script sanitizers bash tests/sanitize.sh
    script fuzz bash tests/fuzz.sh 30
    # Debian's own Python, which finds Debian's PyTorch, whatever else is in PATH.
    script demo_model /usr/bin/python3 tests/demo_model/test_demo_model.py
fi

for s in "${failures[@]:-}"; do [ -n "$s" ] && echo "failed: $s"; done
for s in "${skips[@]:-}"; do [ -n "$s" ] && echo "skipped: $s"; done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
