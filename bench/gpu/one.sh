#!/bin/bash
# All that one GPU can show, from the unpacked bundle: bash bench/gpu/one.sh [--seconds N] OUT
# [CHECKOUT]. README.md says what, and how long it takes.
seconds_max=380
# shellcheck source=bench/gpu/lib.sh
. "$(dirname "$0")/lib.sh"
if [ "$DEVICE" = cpu ]; then types=f32 size=tiny; else types="bf16 f16 f32" size=full; fi
export CHECK_DEVICE=$DEVICE tmp out

# --- right or wrong: all at once, nothing is timed ------------------------------------------------

# Stand-ins in place of what the machine may have of these packages, in whatever version.
beside_longlive() {
    mkdir "$tmp/stubs"
    for m in transformers peft diffusers ftfy regex einops; do
        echo 'raise ImportError("stand-in")' >"$tmp/stubs/$m.py"
    done
    PYTHONPATH=$tmp/stubs timeout -k 5 135 python3 tests/golden/full_size.py "$checkout" bin \
        "$out/full_size.json" --work "$tmp" --size $size --device "$DEVICE" >"$out/full_size.log" 2>&1
    echo "exit $?" >>"$out/full_size.log"
}
full_size_ops() { # full_size_ops TYPE
    CHECK_TYPE=$1 timeout -k 5 300 bin/tests/kernels/test_full_size >"$out/test_full_size.$1.log" 2>&1
    echo "exit $?" >>"$out/test_full_size.$1.log"
}
ops() { # ops PART of test-gpu: its lines, which say FAILED themselves unless it is stopped
    said=$(timeout -k 5 70 bin/test-gpu "$1" 2>&1 </dev/null)
    status=$?
    [ $status -le 1 ] || said+=$'\n'"FAILED: $1: exit $status"
    echo "$said"
}
sanitized() { # sanitized "TOOL TYPE TEST"
    read -r tool type t <<<"$1"
    log=$out/sanitizer.$tool.$type.$t.log
    CHECK_TYPE=$type timeout -k 5 45 "$sanitizer" --tool "$tool" --error-exitcode 9 \
        "bin/tests/kernels/$t" >"$log" 2>&1 </dev/null
    echo "sanitizer $tool $t in $type: exit $?, $(grep -c '       OK ' "$log") ok," \
        "$(grep -hE '(ERROR|RACECHECK) SUMMARY' "$log" | tail -n 1)"
}
export -f ops sanitized

if [ -n "$checkout" ]; then beside_longlive & else say "== full_size.py: skipped, no CHECKOUT is named"; fi
beside=${checkout:+$!}
at_full_size=()
for type in $types; do
    full_size_ops "$type" &
    at_full_size+=($!)
done
bin/test-gpu list | grep -E '^kernels/|^common/test_dev_cuda' | grep -v full_size |
    xargs -P 6 -I{} bash -c 'ops {}' >"$out/kernels.log"
awk '/ passed, .* failed, .* skipped$/ { p += $1; f += $3; s += $5 }
    END { printf "== kernels: %d passed, %d failed, %d skipped\n", p, f, s }' "$out/kernels.log" | tell
lines kernels 'FAILED(:| \()'

sanitizer=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer)
export sanitizer
if [ "$DEVICE" = cpu ] || [ -z "$sanitizer" ]; then
    say "== compute-sanitizer: skipped, none or no GPU is here"
else
    { printf 'memcheck bf16 %s\n' test_attn test_conv test_gemm test_rope test_norm test_latent \
        test_act test_embed
    printf 'racecheck %s\n' 'bf16 test_attn' 'f16 test_conv'; } |
        xargs -P 5 -I{} bash -c 'sanitized "{}"' | tell
fi
# shellcheck disable=SC2086 # none where no CHECKOUT is
wait "${at_full_size[@]}" $beside
for type in $types; do
    log=$out/test_full_size.$type.log
    not=$(grep -E '^\[  (FAILED |ERROR  ) \] [a-z_0-9]+$' "$log" | sort -u | grep -c .)
    say "== test_full_size in $type: $(grep -c '       OK ' "$log") ok, $not failed," \
        "$(tail -n 1 "$log")"
done
lines full_size '^(reference|ours|pass|video|vae|  ours|  reference|  ratio|not ok|ok|exit|[A-Za-z]*Error)|misses'
say "# right or wrong is known after $SECONDS s, GPU memory in use $(in_use)"

# --- how fast: alone on the GPU -------------------------------------------------------------------

section pipeline.one 90 python3 bench/gpu/pipeline.py "$one" "$tmp/one" "$out" one
lines pipeline.one '^(one|FAILED)'
section recovery 75 bin/bench-recovery 10 "$one"
lines recovery '^(recovery|longlived)'
section kills 90 python3 bench/gpu/kills.py "$one" 30 45
lines kills .
bench stream 70 --protocol stream -c "$one" --set run.fps=26 --run "$tmp/b"
bench paper 60 --protocol paper -c "$one" --run "$tmp/b"
bench seed.steady 90 --protocol seed --phase steady.steady-state -c "$one" --run "$tmp/b"
bench seed.fresh 100 --protocol seed --phase fresh.steady-state --merge -c "$one" --run "$tmp/b"
for stage in dit vae text; do
    bench "stage.$stage" 40 --stage $stage --merge -c "$one"
done
section ops 60 env BENCH_JSON="$out/ops.jsonl" bin/bench-ops "$one" "$DEVICE"
lines ops '^(# |bench|dit|kv)'
section yardstick 60 python3 bench/yardstick.py --device "$DEVICE" --seconds 40 "$out/ops.jsonl" \
    "$out/yardstick.json"
lines yardstick '^(op |dit|vae.*(conv|attention)|# |yardstick)'
section profile 190 python3 bench/gpu/profile.py "$one" "$out"
lines profile .
python3 bench/gpu/figures.py "$out"/{stream,paper,seed}.json | tell
