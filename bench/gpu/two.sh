#!/bin/bash
# All that takes two GPUs, from the unpacked bundle: bash bench/gpu/two.sh [--seconds N] OUT.
# README.md says what, and how long it takes.
seconds_max=245
# shellcheck source=bench/gpu/lib.sh
. "$(dirname "$0")/lib.sh"
[ -z "$checkout" ] || usage

section doctor 40 bin/longlived doctor -c "$two" --run "$tmp/two"
lines doctor .
section pipeline.two 90 python3 bench/gpu/pipeline.py "$two" "$tmp/two" "$out" two 40
lines pipeline.two '^(two|FAILED)'
section pipeline.one 90 python3 bench/gpu/pipeline.py "$one" "$tmp/one" "$out" one
lines pipeline.one '^(one|FAILED)'
if [ ! -s "$out/one-0.sha256" ] || [ ! -s "$out/two-0.sha256" ]; then
    say "== one GPU and two: not compared, there are no frames of both"
elif cmp -s "$out"/{one,two}-0.sha256; then
    say "== one GPU and two: EQUAL frames"
else
    say "== one GPU and two: DIFFERENT frames"
fi
bench seed.steady 70 --protocol seed --phase steady.steady-state -c "$two" --run "$tmp/b"
bench stage.edge 40 --stage edge -c "$two"
lines stage.edge .
section recovery 75 bin/bench-recovery 10 "$two"
lines recovery '^(recovery|longlived)'
section kills 80 python3 bench/gpu/kills.py "$two" 60 40
lines kills .
bench stream 60 --protocol stream -c "$two" --set run.fps=40 --set run.ahead_ms=600 --run "$tmp/b"
bench paper 50 --protocol paper -c "$two" --run "$tmp/b"
python3 bench/gpu/figures.py "$out"/{seed,stream,paper}.json | tell
