#!/bin/bash
# The unit tests again under ASan and UBSan; part of the full tier. Prints ok / not ok lines.
set -u
cd "$(dirname "$0")/.."
make --no-print-directory -j2 SAN=1 all tests >build/test-logs/sanitize-build.log 2>&1 || {
    tail -n 20 build/test-logs/sanitize-build.log
    echo "not ok sanitizer build"
    exit 1
}
bad=0
for t in $(find build/san/tests -type f -name 'test_*' ! -name '*.o' ! -name '*.d' | sort); do
    name=${t#build/san/tests/}
    if LD_PRELOAD= ASAN_OPTIONS=detect_leaks=1 timeout 600 "$t" \
        >"build/test-logs/san-$(basename "$t").log" 2>&1 </dev/null; then
        echo "ok $name under ASan and UBSan"
    else
        tail -n 25 "build/test-logs/san-$(basename "$t").log"
        echo "not ok $name under ASan and UBSan"
        bad=1
    fi
done
exit $bad
