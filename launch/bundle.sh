#!/bin/bash
# Gathers what `make bundle` has built into build/bundle/ and packs it: programs, configurations,
# demo, tests and benches, and every shared library but those of the C library, the driver, cuBLAS
# and libav. Libraries are found from where the programs are ($ORIGIN): the folder may lie anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
from=build/bundle-obj
to=build/bundle
name=longlived-$(git rev-parse --short HEAD)
packed_mib_max=36

rm -rf "$to" build/longlived-*.tar.gz
mkdir -p "$to/bin" "$to/lib" "$to/launch" "$to/bench"
cp "$from"/bin/* "$to/bin"
cp "$from"/lib/*.so "$to/lib"
(cd "$from" && find tests -type f -name 'test_*' ! -name '*.o' ! -name '*.d' -print0 |
    xargs -0 cp --parents -t ../bundle/bin)
programs() { find "$to/bin" -type f; }

# MP4 is libav's, which is not here: its plug-in works where libav is.
libraries() {
    ldd $(programs) "$to"/lib/liblonglived-*.so | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
        grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|cuda|cublas[A-Za-z]*))\.so' |
        grep -v "/$to/"
}
for l in $(libraries); do cp -L "$l" "$to/lib/$(basename "$l")"; done
strip $(programs) "$to"/lib/*.so*

cp -r configs docs README.md LICENSE "$to"
cp launch/demo.sh "$to/launch"
cp launch/test-gpu.sh "$to/bin/test-gpu"
cp bench/run.sh bench/table.py bench/longlive_checkout.py bench/yardstick.py "$to/bench"
tar -c --exclude=__pycache__ bench/gpu tests/e2e tests/golden tests/fuzz/corpus \
    tests/sim/seeds.txt | tar -x -C "$to"
ln -s . "$to/build" # scripts and tests look for build/bin and build/lib

tar -C build --transform "s,^bundle,$name," -c bundle | gzip -9 >"build/$name.tar.gz"
bytes=$(stat -c %s "build/$name.tar.gz")
echo "$to, $(du -sm "$to" | cut -f1) MiB; build/$name.tar.gz, $((bytes >> 20)) MiB"
if [ "$bytes" -gt $((packed_mib_max << 20)) ]; then
    echo "bundle: more than $packed_mib_max MiB packed" >&2
    exit 1
fi
