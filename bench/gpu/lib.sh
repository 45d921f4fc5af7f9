# shellcheck shell=bash disable=SC2034 # one.sh and two.sh use what is set here
# What one.sh and two.sh share; they source it. SCRIPT [--seconds N] OUT [CHECKOUT]: afterwards this
# shell is in the bundle, `out` and `checkout` are absolute paths, `tmp` is a folder in memory that
# goes with the shell. OUT/summary.txt says a line or a few of each section, OUT/NAME.log all.
set -u
export DEVICE=${DEVICE:-cuda:0}
one=${CONF1:-configs/longlive-h100.ini} two=${CONF2:-configs/longlive-2gpu.ini}

usage() {
    echo "usage: $0 [--seconds N] OUT [CHECKOUT]" >&2
    exit 2
}
if [ "${1:-}" = --seconds ]; then
    [[ ${2:-} =~ ^[0-9]+$ ]] || usage
    seconds_max=$2
    shift 2
fi
if [ $# -lt 1 ] || [ $# -gt 2 ] || [[ $1 = -* ]]; then usage; fi
mkdir -p "$1" || exit
out=$(realpath "$1") checkout=${2:+$(realpath "$2")}
[ ! -e "$out/summary.txt" ] || { echo "$0: $out has results already" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
[ -x bin/test-gpu ] || { echo "$0: this is not an unpacked bundle: bin/test-gpu is missing" >&2; exit 2; }
tmp=$(mktemp -d /dev/shm/longlived-gpu-XXXXXX) || exit
commit=$(basename "$PWD")
mkdir "$tmp/files" # with its run directory a pipeline removes an empty folder around it
export TMPDIR=$tmp/files PYTHONUNBUFFERED=1 BENCH_COMMIT=${commit#longlived-} BENCH_JSON=$out/bench.jsonl
export LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

say() { echo "$*" | tee -a "$out/summary.txt"; }
tell() { tee -a "$out/summary.txt"; }

# section NAME SECONDS COMMAND...: its output is OUT/NAME.log; none begins after --seconds
section() {
    local name=$1 max=$2 began=$SECONDS status
    shift 2
    if [ "$SECONDS" -ge "$seconds_max" ]; then
        say "== $name: skipped, $SECONDS s are over"
        return 1
    fi
    timeout -k 5 "$max" "$@" >"$out/$name.log" 2>&1 </dev/null
    status=$?
    say "== $name: exit $status, $((SECONDS - began)) s"
    return $status
}

bench() { # bench NAME SECONDS ARGUMENT...: a section of `longlived bench`
    local name=$1 max=$2
    shift 2
    section "$name" "$max" bin/longlived bench --quick --out "$out" "$@"
    lines "$name" '^longlived|error|died|too slow|level='
}

lines() { # lines NAME PATTERN: those of a section's log
    [ ! -e "$out/$1.log" ] || grep -hE "$2" "$out/$1.log" | head -n 40 | cut -c1-300 | tell
}

smi() { if command -v nvidia-smi >/dev/null; then nvidia-smi "$@"; else echo "no nvidia-smi"; fi; }
in_use() { smi --query-gpu=memory.used --format=csv,noheader | xargs; }

say "# $commit, $(date -u +%FT%TZ), $(nproc) cores"
columns=index,name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,power.limit
smi --query-gpu=$columns --format=csv,noheader | tell
smi topo -m >"$out/topology.log" 2>&1
watcher=
if command -v nvidia-smi >/dev/null; then
    columns=timestamp,index,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used
    nvidia-smi -l 2 --format=csv --query-gpu=$columns,utilization.gpu >"$out/clocks.csv" 2>&1 &
    watcher=$!
fi
finish() {
    [ -z "$watcher" ] || kill "$watcher"
    rm -rf "$tmp"
    say "# ends after $SECONDS s, GPU memory in use $(in_use)"
}
trap finish EXIT
