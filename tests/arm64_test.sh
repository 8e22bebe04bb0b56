#!/bin/sh
# What the preset arm64 builds, under qemu-user, beside the native build:
#   tests/arm64_test.sh BUILD BUILD_ARM64
# The program is static, small, for pages of 64 KB, and has no instruction above ARMv8.0 outside its rungs; every rung gives the
# numbers of the native build byte for byte, on three processors; the kernels pass their tests.
# Left out, for time: the sanitizers' builds, the commands' own tests, answers of more than 8 tokens, models larger than the
# golden cases (the kernels' tests have the ragged and large shapes).
set -eu
native=$1 arm=$2
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "arm64_test: $1" >&2
    exit 1
}
qemu() {
    qemu-aarch64-static -L /usr/aarch64-linux-gnu "$@"
}

program=$arm/mobilevlm
aarch64-linux-gnu-readelf -lW "$program" >"$work/segments"
! grep -q INTERP "$work/segments" || fail "$program needs an interpreter"
[ -z "$(awk '$1 == "LOAD" && $NF != "0x10000"' "$work/segments")" ] || fail "$program is not for pages of 64 KB"
aarch64-linux-gnu-strip -o "$work/stripped" "$program"
size=$(wc -c <"$work/stripped")
[ "$size" -lt 2000000 ] || fail "$program has $size bytes without symbols, 2000000 are allowed"
echo "$size bytes without symbols"
sh tests/hardening_test.sh "$arm" aarch64-linux-gnu- || fail "$program is not hardened"

# wide FILE...: instructions above ARMv8.0 that the kernels could have
wide() {
    aarch64-linux-gnu-objdump -d --no-show-raw-insn "$@" | awk '/file format/ { file = $1 }
        $2 ~ /^([us]+dot|[us]+mmla|bfdot|bfmmla)$/ { print file, $2 }' | sort | uniq -c
}
wide $(find "$arm" -name '*.o' ! -path '*kernels_dotprod*' ! -path '*kernels_i8mm*' ! -path '*/tests/*') >"$work/strays"
wide $(find "$arm" -name '*.o' -path '*kernels_dotprod*' ! -path '*/tests/*') | grep mmla >>"$work/strays" || true
[ ! -s "$work/strays" ] || fail "instructions above ARMv8.0 outside their rungs: $(cat "$work/strays")"
wide "$program" >"$work/wide"
grep -q sdot "$work/wide" && grep -q smmla "$work/wide" || fail "no sdot or no smmla was found: the check does not see them"

# A golden case, a type of weights, and the case's own question: -p comes last.
questions() {
    cat <<'QUESTIONS'
v1 f32 -i landscape.png -p What is this?
v1 q8 -i landscape.png -p What is this?
v1 q4 -i landscape.png -p What is this?
v2 q4 -i portrait.png -p How many cats are there?
two-images q8 -i grey.png -i tall.png -p And this?
linear-last-layer f16 -i portrait.png -p What is on the left?
imp-phi2 q4 -i tall.png -p What  is this?
composite q8 -i square.png -i portrait.png -p Which?
text f32 -p How many horses are there?
QUESTIONS
}
questions | while read -r case type rest; do
    "$native/mobilevlm-convert" "tests/golden/cases/$case/checkpoint" -o "$work/$case.$type.bin" --type "$type" -q
done
ask() { # ask RUNNER... : traces into $work/trace
    mkdir "$work/trace"
    questions | while read -r case type rest; do
        # shellcheck disable=SC2046 # words are meant to be split
        "$@" trace -m "$work/$case.$type.bin" $(echo "${rest%-p *}" | sed 's|-i |-i tests/golden/images/|g') -p "${rest##*-p }" \
            -n 8 -t 2 -o "$work/trace/$case.$type" >"$work/said" </dev/null || fail "$* trace $case.$type: exit code $?"
        cat "$work/said" >>"$work/trace/$case.$type/said"
    done
    [ "$(ls "$work/trace" | wc -l)" -eq "$(questions | wc -l)" ] || fail "$*: not all cases were traced"
}
ask "$native/mobilevlm"
mv "$work/trace" "$work/native"
for cpu in cortex-a53:neon cortex-a76:dotprod max:i8mm max:neon max:c; do
    MOBILEVLM_ISA=${cpu#*:} ask qemu -cpu "${cpu%:*}" "$program"
    diff -r "$work/native" "$work/trace" >/dev/null || fail "$cpu: $(diff -rq "$work/native" "$work/trace")"
    rm -r "$work/trace"
    echo "$cpu: all numbers are those of the native build"
done
MOBILEVLM_ISA=dotprod ask qemu -cpu cortex-a76 -p 65536 "$work/stripped"
diff -r "$work/native" "$work/trace" >/dev/null || fail "pages of 64 KB give other numbers"
echo "pages of 64 KB: the same"
code=0
qemu -cpu cortex-a53 "$program" -m "$work/text.f32.bin" -p Hi --isa i8mm >"$work/said" 2>&1 || code=$?
[ $code -eq 6 ] && grep -q "i8mm" "$work/said" && grep -q "neon" "$work/said" || fail "a rung that is missing: $code $(cat "$work/said")"

head -c 20000 "$work/text.f32.bin" >"$work/cut.bin"
qemu "$program" -m "$work/cut.bin" -p Hi >"$work/said" 2>&1 && fail "a model that was cut answers"
grep -q "20000 bytes long, but its header says $(wc -c <"$work/text.f32.bin")" "$work/said" || fail "a model that was cut: $(cat "$work/said")"

# with nothing else there: no libraries, no /proc, no /sys
mkdir "$work/root"
cp "$(command -v qemu-aarch64-static)" "$work/stripped" models/tinyvlm-draw.bin models/pictures/tiger.png "$work/root"
if chroot "$work/root" /qemu-aarch64-static --version >/dev/null 2>&1; then
    said=$(chroot "$work/root" /qemu-aarch64-static -cpu cortex-a53 /stripped -m /tinyvlm-draw.bin -i /tiger.png -p "What is this?" -q)
    [ "$said" = "a tiger." ] || fail "alone in a folder it says: $said"
    echo "alone in a folder: $said"
else
    echo "alone in a folder: left out, for chroot is not permitted"
fi

# kernel_tests CPU, into its own file
kernel_tests() {
    for test in test_kernels test_kernels_gemm test_kernels_quantized; do
        qemu -cpu "$1" "$arm/tests/$test" >"$work/$1.$test" 2>&1 || { tail -30 "$work/$1.$test"; echo "$1: $test failed"; return; }
        echo "$1: $test: $(grep -c 'OK \]' "$work/$1.$test") tests; $(grep skipped "$work/$1.$test" | tr '\n' ';')"
    done
    echo "$1: done"
}
running=
for cpu in max cortex-a76 cortex-a53; do
    kernel_tests $cpu >"$work/$cpu.said" &
    running="$running $!"
    [ "$(nproc)" -gt 1 ] || wait
done
wait $running
cat "$work"/*.said
for cpu in max cortex-a76 cortex-a53; do
    grep -q "$cpu: done" "$work/$cpu.said" || fail "the kernels on $cpu"
done
