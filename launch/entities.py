"""Writes common/entities.c: HTML's named character references, as Python's html.entities has them.

    python3 launch/entities.py
"""

import html.entities
import unicodedata

FILE = "common/entities.c"
BEFORE, AFTER = "static const char table[] =\n", "/* clang-format on */\n"


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
    with open(FILE, encoding="utf-8") as f:
        head, rest = f.read().split(BEFORE)
    tail = rest.split(AFTER)[1]
    with open(FILE, "w", encoding="utf-8") as f:
        f.write(head + BEFORE + "\n".join('    "%s"' % s for s in lines) + ";\n" + AFTER + tail)


if __name__ == "__main__":
    main()
