#!/bin/sh
# tools/android with an adb of the test's own, whose phone is a folder.
#   tests/android_test.sh SOURCE
set -eu
source=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export ADB="$folder/adb" MOBILEVLM_DEVICE_FOLDER="$folder/a phone/mobilevlm" FAKE="$folder"
unset ANDROID_SERIAL

cat >"$folder/adb" <<'END'
#!/bin/sh
echo "$*" >>"$FAKE/log"
if [ "$1" = devices ]; then
    echo "* daemon started successfully"
    echo "List of devices attached"
    cat "$FAKE/devices"
    exit
fi
shift 2
case $1 in
shell)
    shift
    [ ! -e "$FAKE/gone" ] || exit 1
    [ ! -e "$FAKE/old" ] || trap 'exit 0' EXIT
    if [ -e "$FAKE/no-space" ]; then
        df() { printf 'Filesystem 1K-blocks Used Available\nx 9 9 0\n'; }
    fi
    eval "$*"
    ;;
push)
    [ ! -e "$FAKE/breaks-off" ] || { head -c 5 "$2" >"$3"; exit 1; }
    cp "$2" "$3"
    ;;
esac
END
chmod +x "$folder/adb"
# a program for arm64, as far as its header says, that is a script in truth
printf '#!/bin/sh\n#.......\267\000\necho "said: $*, $MOBILEVLM_MODEL"\ncat\necho problem >&2\nexit ${CODE:-0}\n' >"$folder/program"
echo weights >"$folder/model.bin"
echo pixels >"$folder/it's a photo.jpg"

fail() {
    echo "android_test: $1" >&2
    exit 1
}
# expect CODE TEXT COMMAND...: its exit code, and what its output holds
expect() {
    code=$1 text=$2
    shift 2
    status=0
    said=$("$@" 2>&1) || status=$?
    said=$(printf %s "$said" | sed 's/run\.[0-9]*\./run.PID./g')
    [ "$status" = "$code" ] || fail "exit code $status, expected $code: $* said: $said"
    case $said in *"$text"*) ;; *) fail "not said: $text; but: $said" ;; esac
}
push() { sh "$source/tools/android/push.sh" "$@"; }
run() { sh "$source/tools/android/run.sh" "$@"; }

ADB=/none/adb expect 1 "/none/adb: not found" push "$folder/program" "$folder/model.bin"
: >"$folder/devices"
expect 1 "no devices: connect the phone" push "$folder/program" "$folder/model.bin"
printf 'A1\tunauthorized\n' >"$folder/devices"
expect 1 "A1: unauthorized: unlock the phone" push "$folder/program" "$folder/model.bin"
printf 'A1\toffline\n' >"$folder/devices"
expect 1 "A1: offline" push "$folder/program" "$folder/model.bin"
printf 'A1\tdevice\nB2\tdevice\n\n' >"$folder/devices"
expect 1 "several devices: choose one with -s SERIAL" push "$folder/program" "$folder/model.bin"
expect 1 "C3: no such device" push -s C3 "$folder/program" "$folder/model.bin"
expect 2 "model.bin: no arm64 program" push -s A1 "$folder/model.bin" "$folder/model.bin"
expect 2 "none.bin: no such file" push -s A1 "$folder/program" "$folder/none.bin"
expect 1 "mobilevlm is missing: run push.sh first" run -s A1 bench

touch "$folder/gone"
expect 255 "A1: the connection broke off" push -s A1 "$folder/program" "$folder/model.bin"
expect 255 "A1: the connection broke off" run -s A1 bench
rm "$folder/gone"
touch "$folder/no-space"
expect 1 "a phone/mobilevlm has 0 MB free" push -s A1 "$folder/program" "$folder/model.bin"
rm "$folder/no-space"
touch "$folder/breaks-off"
expect 1 "was not transferred (is the phone's storage full?)" push -s A1 "$folder/program" "$folder/model.bin"
rm "$folder/breaks-off"
[ -z "$(ls "$MOBILEVLM_DEVICE_FOLDER")" ] || fail "a part is left: $(ls "$MOBILEVLM_DEVICE_FOLDER")"

expect 0 "said: --version" push -s A1 "$folder/program" "$folder/model.bin"
cmp "$folder/model.bin" "$MOBILEVLM_DEVICE_FOLDER/model.bin"
: >"$folder/log"
expect 0 "model.bin: is there already" push -s A1 "$folder/program" "$folder/model.bin"
! grep -q " push " "$folder/log" || fail "pushed again"
echo other >"$folder/model.bin"
ANDROID_SERIAL=A1 expect 0 "mobilevlm: is there already" push "$folder/program" "$folder/model.bin"
cmp "$folder/model.bin" "$MOBILEVLM_DEVICE_FOLDER/model.bin"

printf 'A1\tdevice\n' >"$folder/devices"
model=", $MOBILEVLM_DEVICE_FOLDER/model.bin"
touch "$folder/old" # an adb that loses exit codes
expect 0 "said: -i $MOBILEVLM_DEVICE_FOLDER/run.PID.1 -p what's \"this\"? \$HOME$model" \
    run -i "$folder/it's a photo.jpg" -p "what's \"this\"? \$HOME"
[ "$(ls "$MOBILEVLM_DEVICE_FOLDER")" = "$(printf 'mobilevlm\nmobilevlm.sha256\nmodel.bin\nmodel.bin.sha256')" ] ||
    fail "the picture is left: $(ls "$MOBILEVLM_DEVICE_FOLDER")"
expect 0 "said: bench$model" run bench
expect 0 "said: bench --model=other.bin, " run bench --model=other.bin
expect 0 "said: --image=$MOBILEVLM_DEVICE_FOLDER/run.PID.1$model" run "--image=$folder/it's a photo.jpg"
typed=$(echo typed | run chat 2>/dev/null)
[ "$typed" = "$(printf 'said: chat%s\ntyped' "$model")" ] || fail "standard input: $typed"
expect 2 "none.jpg: no such file" run -i none.jpg -p why
expect 0 "said: -i - -f $MOBILEVLM_DEVICE_FOLDER/run.PID.1$model" run -i - -f "$folder/model.bin"
CODE=4 expect 4 problem run -p why
chmod -x "$MOBILEVLM_DEVICE_FOLDER/mobilevlm"
expect 1 "may not be executed: run push.sh again" run -p why
