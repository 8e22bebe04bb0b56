#!/bin/sh
# The second command: installs what is missing, builds, and passes all tests:
#   the release build; the same under AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer (by clang, where it is
#   installed, which also checks the parsers' integers); then, where their tools are installed: built by clang without warnings;
#   static analysis; answers and batches under ThreadSanitizer; the kernels under valgrind; built for arm64 and emulated.
#   tools/setup.sh check arm64 installs all that.
#   tools/test.sh --long    then what takes longer: fuzzing, 10 minutes a target; 10,000 answers in one process; batches under
#   memory limits, 20 times; the kernels' large shapes under valgrind; coverage of the parsers
set -eu
cd "$(dirname "$0")/.."
long=
[ "${1:-}" != --long ] || long=yes
sh tools/setup.sh tests

# build FOLDER OPTIONS...: warnings are errors
build() {
    folder=$1
    shift
    mkdir -p "$folder"
    { cmake -S . -B "$folder" -DMOBILEVLM_TESTS=ON -DMOBILEVLM_WERROR=ON "$@" &&
        cmake --build "$folder" -j "$(nproc)"; } >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }
}
has() {
    command -v "$1" >/dev/null
}
left_out() {
    echo "== $1 is left out: tools/setup.sh $2 installs what it needs"
}
with_clang=
if has clang &&
    echo 'int main(void) { return 0; }' | clang -fsanitize=address,undefined -x c -o /dev/null - 2>/dev/null; then
    with_clang=-DCMAKE_C_COMPILER=clang
fi

echo "== release"
build build -DCMAKE_BUILD_TYPE=Release
ctest --test-dir build --output-on-failure -j "$(nproc)"

echo "== AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer"
build build-asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMOBILEVLM_SANITIZE=address,undefined $with_clang
ctest --test-dir build-asan --output-on-failure -j "$(nproc)"

if [ "$with_clang" ]; then
    echo "== clang"
    build build-clang -DCMAKE_BUILD_TYPE=Release $with_clang
    ctest --test-dir build-clang --output-on-failure -j "$(nproc)"

    echo "== ThreadSanitizer: answers and batches"
    { cmake --preset tsan && cmake --build --preset tsan -j "$(nproc)"; } >build-tsan.log 2>&1 || { cat build-tsan.log; exit 1; }
    mv build-tsan.log build-tsan/build.log
    ctest --preset tsan
else
    left_out "clang, with ThreadSanitizer," check
fi

if [ "$with_clang" ] && has clang-tidy && has cppcheck; then
    echo "== static analysis"
    sh tools/static-analysis.sh build-clang
else
    left_out "static analysis" check
fi

if has valgrind; then
    echo "== valgrind: kernels"
    for test in gemm vector quantized; do
        valgrind -q --error-exitcode=1 "build/tests/test_kernels_$test" >build/valgrind.log 2>&1 || { cat build/valgrind.log; exit 1; }
    done
else
    left_out valgrind check
fi

if has qemu-aarch64-static && has aarch64-linux-gnu-gcc; then
    echo "== arm64, emulated"
    { cmake --preset arm64 && cmake --build build-arm64 -j "$(nproc)"; } >build-arm64.log 2>&1 || { cat build-arm64.log; exit 1; }
    mv build-arm64.log build-arm64/build.log
    sh tests/arm64_test.sh build build-arm64
else
    left_out arm64 arm64
fi

[ "$long" ] || exit 0
echo "== long: 10,000 answers, batches under memory limits"
build/tests/endurance 10000
sh tests/hostile_load_test.sh build/mobilevlm 20
python3 tests/kill_batch.py -m models/tinyvlm-draw.bin --kills 50 --binary build/mobilevlm models/pictures/*.png tests/golden/images/*.jpg
echo "== long: valgrind, the kernels' large shapes"
valgrind -q --error-exitcode=1 build/tests/test_kernels >build/valgrind.log 2>&1 || { cat build/valgrind.log; exit 1; }
echo "== long: coverage of the parsers"
sh tools/coverage.sh
echo "== long: fuzzing"
sh tools/fuzz.sh -m 10
