# shellcheck shell=bash
# Installs what a bare Debian or Ubuntu machine lacks. Each function looks first and touches nothing that is there.
# Needs say.sh.

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        # With the environment: settings such as DOCKER_HOST and DBSSL_TEST_IMAGE_… must arrive.
        sudo --preserve-env "$@"
    else
        fail "this needs root, and there is no sudo: $*"
    fi
}

have() { command -v "$1" >/dev/null 2>&1; }

apt_is_fresh=false

# Once in a run, however much is installed.
apt_update() {
    have apt-get || fail 'only Debian and Ubuntu are known here'
    $apt_is_fresh || quietly 'apt-get update' as_root apt-get update
    apt_is_fresh=true
}

# apt_offers PACKAGE [VERSION]: can it be had, in at least that version?
apt_offers() {
    local candidate
    apt_update
    candidate=$(apt-cache policy "$1" | sed -n 's/^  Candidate: //p')
    [[ -n $candidate && $candidate != '(none)' ]] && dpkg --compare-versions "$candidate" ge "${2:-0}"
}

# apt_install PACKAGE…
apt_install() {
    have apt-get || fail "install these by hand (only Debian and Ubuntu are known here): $*"
    apt_update
    say "installing $*"
    quietly "apt-get install $*" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "$@"
}

# need COMMAND PACKAGE…: the packages are installed if there is no such command.
need() {
    local command=$1
    shift
    have "$command" || apt_install "$@"
}
