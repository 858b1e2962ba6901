#!/bin/bash
# Brings the stand-in for MongoDB up the way the official image brings up MongoDB:
#
#   - the arguments are the command; a first argument that is an option means `mongod`
#   - as root: the volumes are given to the database's user, then this script goes on as that user
#   - with a root user, or scripts in /docker-entrypoint-initdb.d, an empty /data/db is initialised with a temporary
#     server on 127.0.0.1 that has the command's own options (TLS: allowTLS if there is a certificate)
#   - with a root user, --auth is added (which a real server would obey); without --bind_ip, --bind_ip_all is added
#   - it ends by becoming the command, so that the server is process 1 and gets the stop signal
#
# Of the environment it knows MONGO_INITDB_ROOT_USERNAME and _PASSWORD, each also with _FILE. The server does not see
# them.
set -euo pipefail
shopt -s nullglob

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Sets $1 from the file named in ${1}_FILE if there is one.
from_environment() {
    local name=$1 file=${1}_FILE
    if [[ -n ${!file:-} ]]; then
        [[ -z ${!name:-} ]] || fail "both $name and $file are set (but are exclusive)"
        printf -v "$name" '%s' "$(<"${!file}")"
    fi
    export "$name=${!name:-}"
    unset "$file"
}

# given OPTION ARGUMENT…: is it among the arguments?
given() {
    local argument
    for argument in "${@:2}"; do
        [[ $argument != "$1" && $argument != "$1="* ]] || return 0
    done
    return 1
}

# The folder of the database.
data_directory() {
    while (($#)); do
        case $1 in
        --dbpath) echo "$2" && return ;;
        --dbpath=*) echo "${1#*=}" && return ;;
        esac
        shift
    done
    echo /data/db
}

# Sets $temporary to the arguments without those that the temporary server has otherwise. mongod takes no option twice.
without_network() {
    temporary=()
    while (($#)); do
        case $1 in
        --bind_ip | --port | --tlsMode | --replSet) shift ;;
        --bind_ip=* | --port=* | --tlsMode=* | --replSet=* | --bind_ip_all | --auth) ;;
        *) temporary+=("$1") ;;
        esac
        shift
    done
}

initialise() {
    local script mode=disabled server temporary
    without_network "$@"
    if given --tlsCertificateKeyFile "$@"; then
        mode=allowTLS
    fi
    "${temporary[@]}" --bind_ip 127.0.0.1 --port 27017 --tlsMode "$mode" &
    server=$!
    until mongosh --quiet --eval 'db.adminCommand({ping: 1})' >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || fail "$1 does not appear to have stayed running -- perhaps it had an error?"
        sleep 0.1
    done
    if [[ -n $MONGO_INITDB_ROOT_USERNAME ]]; then
        mongosh --quiet --eval 'db.adminCommand({createUser: process.env.MONGO_INITDB_ROOT_USERNAME})'
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
        *.sh)
            echo "$0: running $script"
            # shellcheck source=/dev/null
            . "$script"
            ;;
        *) echo "$0: ignoring $script" ;;
        esac
    done
    kill "$server"
    wait "$server"
    printf '\nMongoDB init process complete; ready for start up.\n\n'
}

main() {
    local scripts
    if [[ ${1:-} == -* ]]; then
        set -- mongod "$@"
    fi
    if [[ ${1:-} == mongo* && $(id -u) == 0 ]]; then
        if [[ $1 == mongod ]]; then
            find /data/configdb /data/db ! -user mongodb -exec chown mongodb {} +
        fi
        exec setpriv --reuid=mongodb --regid=mongodb --clear-groups "$0" "$@"
    fi
    if [[ ${1:-} == mongod ]]; then
        from_environment MONGO_INITDB_ROOT_USERNAME
        from_environment MONGO_INITDB_ROOT_PASSWORD
        [[ -n $MONGO_INITDB_ROOT_USERNAME && -n $MONGO_INITDB_ROOT_PASSWORD ||
            -z $MONGO_INITDB_ROOT_USERNAME$MONGO_INITDB_ROOT_PASSWORD ]] ||
            fail "missing 'MONGO_INITDB_ROOT_USERNAME' or 'MONGO_INITDB_ROOT_PASSWORD': both must be specified"
        if [[ -n $MONGO_INITDB_ROOT_USERNAME ]] && ! given --auth "$@"; then
            set -- "$@" --auth
        fi
        scripts=(/docker-entrypoint-initdb.d/*.sh)
        if [[ ! -e $(data_directory "$@")/storage.bson && -n $MONGO_INITDB_ROOT_USERNAME${scripts[*]} ]]; then
            initialise "$@"
        fi
        if ! given --bind_ip "$@" && ! given --bind_ip_all "$@"; then
            set -- "$@" --bind_ip_all
        fi
        unset "${!MONGO_INITDB_@}"
    fi
    exec "$@"
}

main "$@"
