#!/bin/bash
# Tells whether MariaDB is well, as far as the checks go that are given: healthcheck.sh [--connect]
# [--innodb_initialized]
#
# Imitates the two most used checks of the official image's script. Like that, it logs in over the Unix socket with the
# account that the entrypoint made for it, so it needs no password and no TLS, and what it tells of the network is what
# the server says of it. Without --connect that is looked at too. Unlike that, it does not fall back to TCP where the
# account is missing.
set -euo pipefail

ask() {
    mariadb --defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf --protocol=socket --batch --skip-column-names \
        --execute "$1"
}

connect() { [[ $(ask 'select @@skip_networking') == 0 ]]; }

innodb_initialized() {
    [[ $(ask "select support from information_schema.engines where engine = 'innodb'") == @(YES|DEFAULT) ]]
}

(($#)) || {
    echo 'At least one argument required' >&2
    exit 1
}

for check in "$@" --connect; do
    case $check in
    --connect | --innodb_initialized) ;;
    *)
        echo "healthcheck unknown option or test '${check#--}'" >&2
        exit 1
        ;;
    esac
    "${check#--}" || {
        echo "healthcheck ${check#--} failed" >&2
        exit 1
    }
done
