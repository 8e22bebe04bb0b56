#!/bin/sh
# Puts program and model on a phone; what is there already (the same digest) stays.
#   tools/android/push.sh [-s SERIAL] PROGRAM MODEL
#   tools/android/push.sh build-arm64/mobilevlm model.bin
set -eu
. "$(dirname "$0")/common.sh"
[ "${1:-}" != -s ] || { serial=${2:?SERIAL}; shift 2; }
[ $# -eq 2 ] || fail "usage: push.sh [-s SERIAL] PROGRAM MODEL" 2
for file; do [ -f "$file" ] || fail "$file: no such file" 2; done
[ "$(od -An -t x2 -j 18 -N 2 "$1" | tr -d ' ')" = 00b7 ] || fail "$1: no arm64 program; build it with: cmake --preset arm64" 2
choose_device

on_device_surely "mkdir -p $there" || fail "$serial: $folder cannot be made"

# push FILE NAME: under another name first, so that a transfer that breaks off leaves what was there
push() {
    digest=$({ sha256sum "$1" 2>/dev/null || shasum -a 256 "$1"; } | cut -d ' ' -f 1)
    found=$(on_device "cat $there/$2.sha256 2>/dev/null; stat -c %s $there/$2 2>/dev/null" | tr '\n' ' ') || true
    size=$(size_of "$1")
    if [ "$found" = "$digest $size " ]; then
        echo "$2: is there already"
        return
    fi
    on_device_surely "rm -f $there/$2.sha256 $there/$2.part" || true # of a transfer that broke off, too
    free=$(on_device "df -k $there" | awk 'NR == 2 { print $4 }')
    case $free in
    '' | *[!0-9]*) ;; # df of some phones says it in other words
    *) [ "$((size / 1024))" -lt "$free" ] ||
        fail "$serial: $2 needs $((size / 1048576)) MB, $folder has $((free / 1024)) MB free" ;;
    esac
    "$adb" -s "$serial" push "$1" "$folder/$2.part" || {
        on_device "rm -f $there/$2.part" || true
        fail "$serial: $2 was not transferred (is the phone's storage full?)"
    }
    arrived=$(on_device "stat -c %s $there/$2.part")
    [ "$arrived" = "$size" ] || fail "$serial: $2 has $arrived bytes there, expected $size"
    on_device_surely "mv $there/$2.part $there/$2 && echo $digest >$there/$2.sha256" || fail "$serial: $2 cannot be put into place"
}

push "$1" mobilevlm
push "$2" model.bin
on_device_surely "chmod 755 $there/mobilevlm" || fail "$serial: $folder/mobilevlm cannot be made executable"
on_device_surely "$there/mobilevlm --version" ||
    fail "$serial: the program does not start: storage that forbids programs? MOBILEVLM_DEVICE_FOLDER names another folder (below /data/local/tmp)"
