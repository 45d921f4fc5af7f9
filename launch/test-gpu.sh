#!/bin/bash
# bin/test-gpu of a bundle: the ops on a device in each of its types, the programs end to end, every
# other unit test. `bin/test-gpu WORD...` runs the parts whose names hold one of the words, as
# `kernels`, `test_conv.bf16` or `smoke.tiny`; `bin/test-gpu list` names them. DEVICE is cuda:0
# unless set; DEVICE=cpu where there is no GPU. A line a part with its seconds, and at the end:
# N passed, N failed, N skipped.
set -u
cd "$(dirname "$0")/.."
export DEVICE=${DEVICE:-cuda:0}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0
words=("$@")

# cuBLAS is not in the bundle. Python's packages have it where the system has not.
if [ "$DEVICE" != cpu ] && command -v python3 >/dev/null; then
    blas=$(python3 -c 'import glob, sys
for p in sys.path:
    for f in glob.glob(p + "/nvidia/*/lib/libcublasLt.so.13"): print(f.rsplit("/", 1)[0]); sys.exit()')
    [ -z "$blas" ] || export LD_LIBRARY_PATH=$blas${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi

wanted() { # wanted PART
    local w
    [ "${words[*]:-}" = list ] && echo "$1" && return 1
    [ ${#words[@]} -eq 0 ] && return 0
    for w in "${words[@]}"; do [[ $1 == *"$w"* ]] && return 0; done
    return 1
}

part() { # part NAME SECONDS_MAX COMMAND...: counts what its log says, in cmocka's words or in ours
    local name=$1 max=$2 began=$EPOCHREALTIME status ok not skip
    shift 2
    timeout -k 10 "$max" "$@" >"$log" 2>&1 </dev/null
    status=$?
    ok=$(grep -cE '^(\[       OK \]|ok )' "$log")
    not=$(sed -n 's/^\[  \(FAILED \|ERROR  \) \] \([a-z_0-9]*\)$/\2/p; s/^not ok //p' "$log" |
        sort -u | grep -c .)
    skip=$(sed -n 's/^\[  SKIPPED \] \([a-z_0-9]*\)$/\1/p; s/^skip //p' "$log" | sort -u | grep -c .)
    if [ "$not" -eq 0 ] && { [ $status -ne 0 ] || [ $((ok + skip)) -eq 0 ]; }; then not=1; fi
    passed=$((passed + ok)) failed=$((failed + not)) skipped=$((skipped + skip))
    printf '%7.1f s  %-28s %d passed' "$(seconds "$began" "$EPOCHREALTIME")" "$name" "$ok"
    [ "$not" -eq 0 ] || printf ', %d FAILED (exit %d)' "$not" $status
    [ "$skip" -eq 0 ] || printf ', %d skipped' "$skip"
    echo
    grep -vE '^(\[|ok |not ok )' "$log" | grep . | case $name in
    smoke.*) cat ;;
    *) if [ "$not" -ne 0 ]; then tail -n 20; else cat >/dev/null; fi ;;
    esac | sed 's/^/             /'
}

seconds() { # seconds A B: B - A, two of EPOCHREALTIME
    local us=$((${2/[.,]/} - ${1/[.,]/}))
    echo "$((us / 1000000)).$(printf %06d $((us % 1000000)))"
}

unit() { # unit PROGRAM [TYPE]
    local name=${1#bin/tests/}${2:+.$2}
    wanted "$name" && CHECK_DEVICE=$DEVICE CHECK_TYPE=${2:-f32} part "$name" 600 "$1"
}

smoke() { # smoke TEST
    wanted "smoke.$1" || return
    if command -v python3 >/dev/null; then
        part "smoke.$1" 1800 python3 tests/e2e/smoke.py "$1"
    else
        skipped=$((skipped + 1))
        echo "skipped: smoke.$1: no python3"
    fi
}

types=f32
[ "$DEVICE" = cpu ] || types="f32 bf16 f16"
all=$(find bin/tests -type f | sort)
for type in $types; do
    for t in $(grep /kernels/ <<<"$all"); do
        case $t in *_math | *_plan) [ "$type" = f32 ] || continue ;; esac # no device, one type
        unit "$t" "$type"
    done
done
unit bin/tests/common/test_dev_cuda
for t in doctor nano nano_kills nano_switches nano_many_kills tiny tiny_fp32 tiny_kills full full_kills \
    full_speed full_switches full_many_kills; do smoke $t; done
for t in $(grep -v -e /kernels/ -e common/test_dev_cuda <<<"$all"); do unit "$t"; done
[ "${words[*]:-}" = list ] && exit
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
