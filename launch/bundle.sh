#!/bin/bash
# Gathers what `make bundle` has built into build/bundle/ and packs it: programs, configurations,
# demo, tests and benches, and every shared library but those of the C library, the driver, cuBLAS
# and libav. Libraries are found from where the programs are ($ORIGIN): the folder may lie anywhere.
# What is only to be read on a screen, pictures and results of other machines, stays behind, and so do
# tests that are the same on every machine: of parsers, and over a GPU that is none.
set -euo pipefail
cd "$(dirname "$0")/.."
from=build/bundle-obj
to=build/bundle
name=longlived-$(git rev-parse --short HEAD)
packed_bytes_max=30000000

rm -rf "$to" build/longlived-*.tar.gz
mkdir -p "$to/bin" "$to/lib" "$to/launch" "$to/bench"
cp "$from"/bin/* "$to/bin"
cp "$from"/lib/*.so "$to/lib"
(cd "$from" && find tests -type f -name 'test_*' ! -name '*.o' ! -name '*.d' \
    ! -path 'tests/fuzz/*' ! -path 'tests/fake_cuda/*' -print0 |
    xargs -0 cp --parents -t ../bundle/bin)
programs() { find "$to/bin" -type f; }

# MP4 is libav's, which is not here: its plug-in works where libav is.
libraries() {
    ldd $(programs) "$to"/lib/liblonglived-*.so | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p' | sort -u |
        grep -vE '/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|resolv|util|cuda|cublas[A-Za-z]*))\.so' |
        grep -v "/$to/"
}

# Of OpenBLAS, products alone, for every processor that it knows: its archive without LAPACK, which
# is a third of it, and needs Fortran's libraries beside it. Named is what programs call; the linker
# takes what that needs.
blas=libopenblas.so.0 archive=$(gcc -print-file-name=libopenblas.a)
gcc -shared -o "$to/lib/$blas" -Wl,-soname,$blas -Wl,-z,defs \
    -Wl,-u,cblas_sgemm,-u,cblas_sgemv,-u,openblas_set_num_threads \
    "$archive" -lm -lpthread
lacking=$(ldd -r $(programs) 2>&1 | grep 'undefined symbol' || true)
if [ -n "$lacking" ]; then
    echo "bundle: $lacking" >&2
    exit 1
fi
# Each library's licence goes with it, under the name of its Debian source package.
licence() { # licence FILE; the package may name it without the /usr that it is in now
    local file package
    file=$(readlink -f "$1")
    package=$(dpkg -S "*${file#/usr}" | head -n 1 | cut -d: -f1)
    cp "/usr/share/doc/$package/copyright" \
        "$to/licences/$(dpkg-query -W -f '${source:Package}\n' "$package" | head -n 1)"
}
mkdir "$to/licences"
licence "$archive"
for l in $(libraries); do
    cp -L "$l" "$to/lib/$(basename "$l")"
    licence "$l"
done
strip $(programs) "$to"/lib/*.so*

cp -r configs README.md LICENSE "$to"
cp launch/demo.sh "$to/launch"
cp launch/test-gpu.sh "$to/bin/test-gpu"
cp bench/run.sh bench/table.py bench/longlive_checkout.py bench/yardstick.py "$to/bench"
tar -c --exclude=__pycache__ --exclude='docs/*.png' --exclude=docs/results docs bench/gpu \
    tests/e2e tests/golden tests/sim/seeds.txt | tar -x -C "$to"
ln -s . "$to/build" # scripts and tests look for build/bin and build/lib

tar -C build --transform "s,^bundle,$name," -c bundle | gzip -9 >"build/$name.tar.gz"
bytes=$(stat -c %s "build/$name.tar.gz")
echo "$to, $(du -sm "$to" | cut -f1) MiB; build/$name.tar.gz, $bytes bytes"
if [ "$bytes" -gt "$packed_bytes_max" ]; then
    echo "bundle: more than $packed_bytes_max bytes packed" >&2
    exit 1
fi
