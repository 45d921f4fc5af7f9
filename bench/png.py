#!/usr/bin/env python3
"""Each chart of a page of `longlived bench` as a PNG, drawn by a headless chromium.

    bench/png.py results/seed.html pictures      # pictures/seed-00-trace.png ..."""

import os
import re
import shutil
import subprocess
import sys
import tempfile

MARGIN_PX, HEADING_PX = 64, 56  # what the page has around a chart


def chromium(profile, page, *args):
    browser = shutil.which("chromium")
    if not browser:
        sys.exit("png.py: chromium is not installed")
    r = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        "--host-resolver-rules=MAP * ~NOTFOUND", "--user-data-dir=" + profile] +
                       list(args) + [page], capture_output=True, text=True, timeout=120)
    if r.returncode != 0:
        sys.exit("png.py: chromium: " + r.stderr[-500:])
    return r.stdout


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    path, folder = sys.argv[1:]
    page, stem = "file://" + os.path.abspath(path), os.path.splitext(os.path.basename(path))[0]
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        charts = re.findall(r'<svg class="(\w+)" width="(\d+)" height="(\d+)"',
                            chromium(profile, page, "--dump-dom"))
        if not charts:
            sys.exit("png.py: %s has no charts" % path)
        for i, (kind, width, height) in enumerate(charts):
            out = os.path.join(folder, "%s-%02d-%s.png" % (stem, i, kind))
            size = "%d,%d" % (int(width) + MARGIN_PX, int(height) + HEADING_PX)
            chromium(profile, "%s#chart=%d" % (page, i), "--window-size=" + size,
                     "--screenshot=" + out)
            print(out)


main()
