#!/bin/sh
# Installs what is missing on Debian 12: `sh launch/deps.sh` for building and `make test`,
# `sh launch/deps.sh full` for `make test-full` too. As root, or with sudo. Asks nothing.
set -eu

# build: compilers, messages, config, JSON, hashes, BLAS, tokenizer, Unicode, video encoder
packages="gcc make pkg-config libc6-dev
    g++ libzmq3-dev libmsgpack-dev libinih-dev libjansson-dev libsodium-dev libopenblas-dev
    libsentencepiece-dev libutf8proc-dev
    libavcodec-dev libavformat-dev libavutil-dev"
# demo and tests: contact sheet and ffprobe, unit test runner, end-to-end tests
packages="$packages ffmpeg libcmocka-dev python3 git procps"
# the long tier: style checks, fuzzing, other supervisors, measuring of videos, the demo
# model's training
if [ "${1:-}" = full ]; then
    packages="$packages clang-format clang supervisor systemd python3-numpy python3-torch"
    packages="$packages chromium" # to look at the report of a bench
fi

missing=
for p in $packages; do
    case "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" in
    installed) ;;
    *) missing="$missing $p" ;;
    esac
done
[ -n "$missing" ] || exit 0

run=
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "deps: missing:$missing; run as root or install sudo" >&2
        exit 1
    }
    run=sudo
fi
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# $missing is a list: one word a package.
# shellcheck disable=SC2086
if ! { $run apt-get update && $run env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 15 "$log" >&2
    echo "deps: apt-get failed for:$missing" >&2
    exit 1
fi
