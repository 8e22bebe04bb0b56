#!/bin/sh
# Runs mobilevlm on a phone: tools/android/run.sh [-s SERIAL] ARGUMENTS
#   tools/android/run.sh -i photo.jpg -p "what is this?"        pictures behind -i and texts behind -f are sent along
#   tools/android/run.sh bench
# All other files are the device's: the model is the one that push.sh put there, unless -m names another. The exit code is the
# program's; 255 when the connection breaks off.
set -eu
. "$(dirname "$0")/common.sh"
[ "${1:-}" != -s ] || { serial=${2:?SERIAL}; shift 2; }
[ $# -gt 0 ] || fail "usage: run.sh [-s SERIAL] ARGUMENTS" 2
choose_device
on_device_surely "[ -f $there/mobilevlm ]" || fail "$serial: $folder/mobilevlm is missing: run push.sh first"
on_device_surely "[ -x $there/mobilevlm ]" || fail "$serial: $folder/mobilevlm may not be executed: run push.sh again"

run=run.$$ n=0 words= previous=
# send FILE: leaves the file's name on the device in $sent; - is standard input
send() {
    sent=-
    [ "$1" != - ] || return 0
    [ -f "$1" ] || fail "$1: no such file" 2
    n=$((n + 1))
    sent=$folder/$run.$n
    "$adb" -s "$serial" push "$1" "$sent" >/dev/null || fail "$serial: $1 was not transferred"
}
for word; do
    case $previous in -i | --image | -f | --file) send "$word"; word=$sent ;; esac
    case $word in --image=* | --file=*) send "${word#*=}"; word=${word%%=*}=$sent ;; esac
    words="$words $(quoted "$word")"
    previous=$word
done
# The exit code goes through a file: adb of old phones loses it. Standard input is the program's.
"$adb" -s "$serial" shell "cd $there; MOBILEVLM_MODEL=$there/model.bin ./mobilevlm $words; echo \$? >$run.status" || true
code=$(on_device "cat $there/$run.status; rm -f $there/$run.*") || true
case $code in '' | *[!0-9]*) fail "$serial: the connection broke off" 255 ;; esac
exit "$code"
