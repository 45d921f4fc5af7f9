#!/bin/bash
# The unit tests again under ASan and UBSan, and some end-to-end tests, whose processes write what
# they find into files; part of the full tier. Prints ok / not ok lines.
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
    if LD_PRELOAD= UBSAN_OPTIONS=halt_on_error=1 ASAN_OPTIONS=detect_leaks=1 timeout 600 "$t" \
        >"build/test-logs/san-$(basename "$t").log" 2>&1 </dev/null; then
        echo "ok $name under ASan and UBSan"
    else
        tail -n 25 "build/test-logs/san-$(basename "$t").log"
        echo "not ok $name under ASan and UBSan"
        bad=1
    fi
done

found=$PWD/build/test-logs/san-found
rm -f "$found".*
SAN=1 UBSAN_OPTIONS=log_path=$found ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=4:log_path=$found \
    python3 tests/e2e/run.py test_kill_sample test_kill_during_recovery test_wrong_messages \
    test_replay_of_a_live_session test_lost_kv_cache test_disk_full_at_every_write |
    sed 's/^\(ok .*\|not ok .*\)/\1 under ASan and UBSan/'
[ "${PIPESTATUS[0]}" -eq 0 ] || bad=1
if compgen -G "$found.*" >/dev/null; then
    head -n 40 "$found".*
    echo "not ok processes under ASan and UBSan"
    bad=1
else
    echo "ok processes under ASan and UBSan"
fi
exit $bad
