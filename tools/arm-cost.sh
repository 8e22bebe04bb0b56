#!/bin/sh
# What the kernels of arm64 cost, without a device: instructions under qemu-user, cycles by llvm-mca's models.
#   tools/arm-cost.sh [BUILD]      BUILD: a folder of the preset arm64 (default build-arm64, which is built)
# Needs qemu-user, gcc-aarch64-linux-gnu, llvm-19 and python3. Takes some minutes: a full-size layer is emulated for each ISA.
set -eu
cd "$(dirname "$0")/.."
for tool in aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64:qemu-user llvm-mca-19:llvm-19 python3:python3; do
    command -v "${tool%:*}" >/dev/null || { echo "arm-cost: ${tool%:*} is missing: apt-get install ${tool#*:}" >&2; exit 1; }
done
build=${1:-build-arm64}
[ -d "$build" ] || cmake --preset arm64 -B "$build" >/dev/null
cmake --build "$build" --target layer-cost -j "$(nproc)" >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -shared -fPIC -O2 -o "$work/functions.so" tools/arm-cost/functions.c
convert=build/mobilevlm-convert
[ -x "$convert" ] || { cmake --preset release >/dev/null && cmake --build build --target mobilevlm-convert -j "$(nproc)" >/dev/null; }
"$convert" --random v2-1.7b --seed 1 --calibrate 0 -o "$work/model.bin" --quiet
python3 tools/arm-cost/instructions.py --program "$build/layer-cost" --plugin "$work/functions.so" --model "$work/model.bin" --work "$work"
echo
python3 tools/arm-cost/inner_loops.py
