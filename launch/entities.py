"""Writes common/entities.c: HTML's named character references, as Python's html.entities has them.

    python3 launch/entities.py > common/entities.c
"""

import html.entities
import unicodedata

HEAD = """/* entities.c - made by launch/entities.py; see entities.h. */
#include "common/entities.h"

#include <string.h>

/* Sorted: \\1 name ('!' after it: good without ';' too) \\2 text. */
/* clang-format off */
static const char table[] ="""
TAIL = """
/* clang-format on */

const char *entity_find(const char *name, size_t n_name, bool has_end, size_t *n_text)
{
    size_t lo = 0, hi = sizeof table - 2; /* entries lie in [lo, hi); a \\1 is behind them */
    while (lo < hi) {
        size_t at = lo + (hi - lo) / 2;
        while (at > lo && table[at] != '\\1') at--;
        const char *entry = table + at + 1, *text = strchr(entry, '\\2');
        const bool is_short = text[-1] == '!';
        const size_t n = (size_t)(text - entry) - is_short;
        const char *end = strchr(++text, '\\1');
        int order = memcmp(name, entry, n_name < n ? n_name : n);
        if (order == 0) order = (n_name > n) - (n_name < n);
        if (order == 0 && !has_end && !is_short) return NULL;
        if (order == 0) {
            *n_text = (size_t)(end - text);
            return text;
        }
        if (order < 0) hi = at;
        else lo = (size_t)(end - table);
    }
    return NULL;
}
"""


def escaped(text):
    """For a C string: what can be seen as it is, the rest byte by byte."""
    out = ""
    for c in text:
        plain = c.isprintable() and not unicodedata.combining(c) and c not in ' "\\?01234567'
        out += c if plain else "".join("\\%03o" % b for b in c.encode())
    return out


def main():
    html5 = html.entities.html5
    rows = []
    for name in sorted(n[:-1] for n in html5 if n.endswith(";")):
        short = "!" if name in html5 else ""
        assert not short or html5[name] == html5[name + ";"]
        rows.append("\\1%s%s\\2%s" % (name, short, escaped(html5[name + ";"])))
    assert all(n.endswith(";") or n + ";" in html5 for n in html5)
    lines, line = [], ""
    for row in rows + ["\\1"]:
        if len((line + row).encode()) > 92:
            lines.append(line)
            line = ""
        line += row
    lines.append(line)
    print(HEAD)
    print("\n".join('    "%s"' % s for s in lines) + ";", end="")
    print(TAIL, end="")


if __name__ == "__main__":
    main()
