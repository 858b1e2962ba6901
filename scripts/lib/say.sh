# shellcheck shell=bash
# How the scripts speak: what is being done, in a colour on a terminal and plainly elsewhere.

if [[ -t 1 && -z ${NO_COLOR:-} && -z ${CI:-} ]]; then
    bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' red='' green='' plain=''
fi

heading() { printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '    %s\n' "$*"; }
good() { printf '    %s%s%s\n' "$green" "$*" "$plain"; }
warn() { printf '%swarning:%s %s\n' "$red" "$plain" "$*" >&2; }

fail() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# Runs a command whose output matters only if it fails: quietly WHAT COMMAND…
quietly() {
    local what=$1 log status=0
    shift
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if ((status != 0)); then
        cat "$log" >&2
        rm -f "$log"
        fail "$what failed (exit code $status); what it printed is above"
    fi
    rm -f "$log"
}

# Polls until COMMAND succeeds: wait_for SECONDS WHAT COMMAND… What COMMAND prints is thrown away; it must not `fail`.
wait_for() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "gave up after $seconds s: $what"
        sleep 0.2
    done
}
