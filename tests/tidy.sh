#!/bin/bash
# The rules of docs/STYLE.md that a tool can check. Prints "ok RULE" or "not ok RULE" and the places.
set -u
cd "$(dirname "$0")/.."
tier=${1:-quick}
bad=0

verdict() { # verdict RULE PLACES: no places, no fault
    if [ -z "$2" ]; then
        echo "ok $1"
    else
        printf '%s\n' "$2"
        echo "not ok $1"
        bad=1
    fi
}

sources() { git ls-files --cached --others --exclude-standard "$@"; }

# Layers: what the files of a folder may include.
may() { # may PATHSPEC ALLOWED
    sources "$1*.c" "$1*.h" "$1*.cu" | while read -r f; do
        sed -n 's/^#include "\(.*\)"/\1/p' "$f" | grep -vE "^($2)/" | sed "s|^|$f: may not include |"
    done
}
layers() {
    may common/ 'common'
    may kernels/ 'common|kernels'
    may ipc/ 'common|ipc'
    may procs/gateway/ 'common|ipc|procs/gateway|procs' | grep -v 'procs/stage.h' || true
    # A model sees no socket: only its main.c and the shell do, and what was too much for main.c.
    for p in text dit vae; do
        for f in $(sources "procs/$p/*.[ch]" | grep -v main.c); do
            allowed="^(common|kernels|procs/$p)/|^procs/weights.h"
            # What comes next is decided from the ledger, without a model.
            case $f in
            */plan.*) allowed="^common/|^ipc/(ledger|prompts|latents).h|^procs/$p/plan.h" ;;
            */dit/ahead.* | */dit/decide.* | */dit/noise.*) allowed+="|^ipc/|^procs/stage.h" ;;
            esac
            sed -n 's/^#include "\(.*\)"/\1/p' "$f" | grep -vE "$allowed" |
                sed "s|^|$f: may not include |"
        done
    done
    # Two processes meet in ipc/ alone.
    for p in keeper text dit vae gateway supervisor ctl; do
        grep -n '#include "procs/' $(sources "procs/$p/*.[ch]") /dev/null |
            grep -vE "\"procs/($p/|stage.h|weights.h|choices.h)" || true
    done
}
verdict 'layers' "$(layers)"

# Each third-party header has one owner.
owner() { # owner HEADER FILES
    grep -nE "#include <$1" $(sources '*.c' '*.h' '*.cu' '*.cc' | grep -v '^tests/\|^bench/') /dev/null |
        grep -vE "^($2):" || true
}
owners() {
    owner 'zmq' 'ipc/sock.c'
    owner 'msgpack' 'ipc/msg.c'
    owner 'ini\.h' 'common/conf.c'
    owner 'cblas' 'kernels/cpu/[a-z]+\.[ch]'
    owner 'cuda' 'common/dev_cuda.[ch]|kernels/cuda/.*'
    owner 'libav' 'procs/gateway/plugin/.*'
    owner 'jansson' 'common/job.c|common/safetensors.c|procs/supervisor/.*|common/json.c|procs/text/rules.c'
    owner 'sodium' 'common/prompt.c|common/(checkpoint|lora|source).c|procs/gateway/hashes.c|procs/text/store.c'
    owner 'sentencepiece' 'procs/text/spm.cc'
    owner 'utf8proc' 'common/clean.c|procs/text/charsmap.c'
    owner 'omp' 'kernels/cpu/.*'
}
verdict 'one owner a third-party header' "$(owners)"

# Every source has a test of its name (main.c is tested by tests/e2e).
mirror() {
    sources 'common/*.c' 'ipc/*.c' 'kernels/*.c' 'procs/*.c' 'bench/bench.c' | while read -r f; do
        case $f in */main.c | */cmd_*.c | */plugin/*) continue ;; esac
        local dir base
        dir=$(dirname "${f#kernels/cpu/}") base=$(basename "$f" .c)
        case $f in kernels/*) dir=kernels ;; esac
        [ -f "tests/$dir/test_$base.c" ] || echo "$f: tests/$dir/test_$base.c is missing"
    done
}
verdict 'a test for each source' "$(mirror)"

# A point that is in the table and nowhere else can never fire; one in two places is two.
faults() {
    sed -n 's/^ *P(\([A-Z_0-9]*\), .*/\1/p' common/fault.h | while read -r p; do
        n=$(cat $(sources 'procs/*.c') | grep -c "fault(FAULT_$p)")
        [ "$n" = 1 ] || echo "common/fault.h: FAULT_$p has $n places"
    done
}
verdict 'a place for each fault point' "$(faults)"

files=$(sources '*.c' '*.h' '*.cc' '*.cu' '*.cuh' '*.py' '*.sh')
verdict 'lines of at most 100 columns' \
    "$(grep -nE '^.{101,}$' $(sources '*.c' '*.h' '*.cu' '*.cc') | cut -c1-80)"
verdict 'files of at most 600 lines (a _sm90.cu 1000)' \
    "$(wc -l $files | awk '$2 != "total" && $2 !~ /_sm90.cu$/ && $1 > 600 {print $2": "$1}')"
verdict 'functions of at most 70 lines' "$(awk '
    FNR == 1 { depth = 0 }
    /^[a-z].*\)$/ || /^[a-z].*[^;]$/ { if ($0 !~ /;$/) start = FNR }
    /^{/ { open = FNR }
    /^}/ { if (open && FNR - open > 70) print FILENAME ":" open ": " FNR - open " lines"; open = 0 }
    ' $(sources '*.c' '*.cu'))"
verdict 'nothing unfinished' \
    "$(grep -nE '\b(TODO|FIXME|XXX|HACK)\b|not implemented' $files | grep -v '^tests/tidy.sh' || true)"
verdict 'no fast math' \
    "$(grep -nE 'ffast-math|use_fast_math|Ofast' Makefile $(sources '*.c' '*.cu') || true)"
verdict 'no path of a machine' \
    "$(grep -rnE '(^|[^A-Za-z0-9_.])/(home|work|root)/' $(sources) 2>/dev/null | grep -v '^tests/tidy.sh' | cut -c1-120)"
verdict 'no printf of a message outside log and command line' \
    "$(grep -nE '\bperror\(|fprintf\(stderr' $(sources 'common/*.c' 'ipc/*.c' 'kernels/*.c' 'procs/text/*.c' 'procs/dit/*.c' 'procs/vae/*.c' 'procs/gateway/*.c' 'procs/keeper/*.c') | grep -v 'common/err.c' || true)"

# Documents: there, linked, and as the program prints them.
missing_documents() {
    for f in README.md LICENSE docs/{ARCHITECTURE,PROTOCOL,CONFIG,STYLE,LICENSES}.md; do
        [ -s "$f" ] || echo "$f is missing"
    done
}
verdict 'documents' "$(missing_documents)"
dead_links() {
    sources '*.md' | while read -r f; do
        grep -noE '\]\([^) ]+\)' "$f" | while IFS=: read -r n link; do
            link=${link#](} link=${link%)}
            case $link in *://* | mailto:* | '#'*) continue ;; esac
            [ -e "$(dirname "$f")/${link%%#*}" ] || echo "$f:$n: $link leads nowhere"
        done
    done
}
verdict 'relative links lead somewhere' "$(dead_links)"
unnamed_rules() {
    sed -n "s/^ *verdict '\([^']*\)'.*/\1/p" tests/tidy.sh | sort -u | while read -r rule; do
        grep -qF "\`$rule\`" docs/STYLE.md || echo "docs/STYLE.md: rule $rule is not named"
    done
}
verdict 'every rule is in STYLE.md' "$(unnamed_rules)"
if [ -x build/bin/longlived ]; then
    verdict 'printed tables are fresh' "$(bash launch/docs.sh check 2>&1)"
else
    echo 'skip printed tables are fresh: nothing is built in build/bin'
fi

if command -v clang-format >/dev/null; then
    verdict 'clang-format' "$(clang-format --dry-run $(sources '*.c' '*.h' '*.cc' '*.cu' '*.cuh') 2>&1 | grep warning | head -n 20)"
elif [ "$tier" = full ]; then
    verdict 'clang-format' 'clang-format is not installed: sh launch/deps.sh full'
else
    echo 'skip clang-format: not installed (the full tier installs it)'
fi
exit $bad
