# shellcheck shell=bash
# Installs what a bare Debian or Ubuntu machine lacks. Each function looks first and touches nothing that is there.
# Needs say.sh.

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

apt_is_fresh=false

# apt_install PACKAGE…
apt_install() {
    have apt-get || fail "install these by hand (only Debian and Ubuntu are known here): $*"
    say "installing $*"
    if ! $apt_is_fresh; then
        quietly 'apt-get update' as_root apt-get update
        apt_is_fresh=true
    fi
    quietly "apt-get install $*" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@"
}

# need COMMAND PACKAGE…: the packages are installed if there is no such command.
need() {
    local command=$1
    shift
    have "$command" || apt_install "$@"
}
