# What push.sh and run.sh share: the device, and what adb says when there is none.
# ADB names another adb; ANDROID_SERIAL, as adb itself has it, or -s SERIAL chooses one of several devices.
adb=${ADB:-adb}
serial=
folder=${MOBILEVLM_DEVICE_FOLDER:-/data/local/tmp/mobilevlm}

fail() {
    echo "$(basename "$0"): $1" >&2
    exit "${2:-1}"
}

# Leaves the device's serial in $serial.
choose_device() {
    command -v "$adb" >/dev/null 2>&1 || fail "$adb: not found; install it with: sudo apt-get install adb"
    serial=${serial:-${ANDROID_SERIAL:-}}
    devices=$("$adb" devices) || fail "$adb devices: failed"
    devices=$(echo "$devices" | tr -d '\r' | sed '1,/^List of devices/d' | grep . || true) # "* daemon started" may come before
    if [ -z "$serial" ]; then
        [ -n "$devices" ] ||
            fail "no devices: connect the phone by USB, and in its settings under Developer options turn USB debugging on"
        [ "$(echo "$devices" | wc -l)" -eq 1 ] || {
            echo "$devices" >&2
            fail "several devices: choose one with -s SERIAL"
        }
        serial=$(echo "$devices" | cut -f 1)
    fi
    state=$(echo "$devices" | awk -F '\t' -v serial="$serial" '$1 == serial { print $2 }')
    case $state in
    device) ;;
    unauthorized) fail "$serial: unauthorized: unlock the phone and allow this computer in the dialog that it shows" ;;
    offline) fail "$serial: offline: unplug the cable and plug it in again, or: $adb reconnect" ;;
    "") fail "$serial: no such device among: $(echo $devices)" ;;
    *) fail "$serial: is in state \"$state\", expected device" ;;
    esac
}

# Runs a command there and returns its exit code, which adb of old phones loses, so that it is printed last; 255 when the
# connection breaks off.
on_device() {
    answer=$("$adb" -s "$serial" shell "$*; echo :\$?" </dev/null | tr -d '\r')
    printf %s "${answer%:*}"
    case ${answer##*:} in '' | *[!0-9]*) return 255 ;; esac
    return "${answer##*:}"
}

# The same, but a connection that breaks off ends the script.
on_device_surely() {
    code=0
    on_device "$@" || code=$?
    [ $code -ne 255 ] || fail "$serial: the connection broke off" 255
    return $code
}

size_of() {
    wc -c <"$1" | tr -d ' '
}

# A word as the device's shell reads it.
quoted() {
    printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"
}

# The folder there, as its shell reads it.
there=$(quoted "$folder")
