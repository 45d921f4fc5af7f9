#!/bin/bash
# What `make demo` runs: ten seconds of video from configs/demo.jsonl on the CPU, and its contact
# sheet: one frame a second, in order.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/demo
mkdir -p "$out"
build/bin/longlived generate -c configs/demo.ini --script configs/demo.jsonl --blocks 14 \
    --hashes "$out/demo.sha256" -o "$out/demo.mp4"
ffmpeg -v error -y -i "$out/demo.mp4" \
    -vf "select='not(mod(n-8,16))',scale=192:-2:flags=neighbor,tile=5x2:padding=4:margin=4" \
    -frames:v 1 "$out/demo.png" </dev/null
echo "video:         $out/demo.mp4"
echo "contact sheet: $out/demo.png (a frame a second, prompts of configs/demo.jsonl)"
