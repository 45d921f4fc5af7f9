#!/bin/bash
# Prints the tables in docs/ anew (make docs); `launch/docs.sh check` names those that are stale.
#
# A table stands between two lines, the first of which names the program that prints it:
#   <!-- printed by longlived help config -->
#   <!-- end of print -->
set -euo pipefail
cd "$(dirname "$0")/.."
bin=build/bin

fresh() { # fresh FILE: its text, with every table as the program prints it now
    local line is_old='' words
    while IFS= read -r line; do
        [ "$line" != '<!-- end of print -->' ] || is_old=
        [ -n "$is_old" ] || printf '%s\n' "$line"
        case $line in '<!-- printed by longlived'*' -->') ;; *) continue ;; esac
        words=${line#<!-- printed by }
        # Words of a command, not one word.
        # shellcheck disable=SC2086
        "$bin"/${words% -->}
        is_old=yes
    done <"$1"
    [ -z "$is_old" ] || { echo "$1: a printed table without its end" >&2; return 1; }
}

[ -x $bin/longlived ] && [ -x $bin/longlived-ctl ] || { echo "docs: run make first" >&2; exit 1; }
new=$(mktemp)
trap 'rm -f "$new"' EXIT
for f in docs/*.md; do
    fresh "$f" >"$new"
    if cmp -s "$new" "$f"; then continue; fi
    if [ "${1:-}" = check ]; then
        echo "$f: stale, run make docs"
    else
        cat "$new" >"$f"
        echo "$f: printed anew"
    fi
done
