#!/bin/bash
# Brings PostgreSQL up in a container the way the official image does, as far as it matters to somebody who changes
# that container from outside:
#
#   - the arguments are the command; a first argument that is an option means `postgres`
#   - as root: directories are made and given to the database's user, then this script goes on as that user
#   - an empty $PGDATA is initialised with a temporary server that listens on the Unix socket only, and is started with
#     the command's own options (so certificate files named there must be readable even then)
#   - a non-empty $PGDATA is never initialised again, not even if the first time was interrupted half-way
#   - it ends by becoming the command, so that the server is process 1 and gets the stop signal
#
# Of the environment it knows POSTGRES_PASSWORD, _USER, _DB, _INITDB_ARGS (each also with _FILE),
# POSTGRES_HOST_AUTH_METHOD, PGDATA and PGPORT. It lacks POSTGRES_INITDB_WALDIR and .xz and .zst scripts.
set -euo pipefail
shopt -s nullglob

fail() {
    printf 'Error: %s\n' "$1" >&2
    exit 1
}

# Sets $1 from the file named in ${1}_FILE if there is one, else to $2 if it is empty.
from_environment() {
    local name=$1 default=${2:-} file=${1}_FILE
    if [[ -n ${!file:-} ]]; then
        [[ -z ${!name:-} ]] || fail "both $name and $file are set, and only one may be"
        printf -v "$name" '%s' "$(<"${!file}")"
    elif [[ -z ${!name:-} ]]; then
        printf -v "$name" '%s' "$default"
    fi
    export "${name?}"
    unset "$file"
}

# `postgres --version` and the like need no data directory and must not make one.
asks_for_information() {
    local argument
    for argument; do
        case $argument in
        -\? | --help | --describe-config | -V | --version) return 0 ;;
        esac
    done
    return 1
}

# Failures are let pass: an arbitrary --user may lack the right to change what a volume brought along, and the server
# says clearly enough what it cannot live with.
prepare_directories() {
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA" || true
    mkdir -p /var/run/postgresql || true
    chmod 3775 /var/run/postgresql || true
    if [[ $(id -u) == 0 ]]; then
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres {} +
    fi
}

# From version 18 on the volume is the parent directory. A volume mounted at the old place would hold nothing, and the
# data would end up in an anonymous one.
refuse_old_volume() {
    local old=/var/lib/postgresql/data
    [[ $PGDATA != "$old" ]] || return 0
    if [[ -s $old/PG_VERSION ]] || grep -q " $old " /proc/self/mountinfo; then
        fail "from version 18 on, the data volume belongs at /var/lib/postgresql, not at $old"
    fi
}

require_password() {
    [[ -n $POSTGRES_PASSWORD || ${POSTGRES_HOST_AUTH_METHOD:-} == trust ]] || fail \
        'Database is uninitialized and superuser password is not specified: set POSTGRES_PASSWORD to a non-empty value'
}

# initdb insists on knowing its user by name. For a --user that the image does not know, a name is lent for that long.
run_initdb() {
    local passwd='' group='' preload=''
    if ! getent passwd "$(id -u)" >/dev/null; then
        passwd=$(mktemp) && group=$(mktemp)
        echo "postgres:x:$(id -u):$(id -g):PostgreSQL:$PGDATA:/bin/false" >"$passwd"
        echo "postgres:x:$(id -g):" >"$group"
        preload=libnss_wrapper.so
    fi
    # Evaluated, because POSTGRES_INITDB_ARGS holds several words, quoted as for a shell.
    NSS_WRAPPER_PASSWD=$passwd NSS_WRAPPER_GROUP=$group LD_PRELOAD=$preload eval \
        "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
    [[ -z $preload ]] || rm -f "$passwd" "$group"
}

# initdb's own lines (trust on the socket and on loopback) stay in front.
open_to_the_network() {
    local method=${POSTGRES_HOST_AUTH_METHOD:-}
    [[ -n $method ]] || method=$(postgres -C password_encryption "${@:2}")
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

start_temporary_server() {
    local options
    options=$(printf '%q ' "${@:2}" -c listen_addresses= -p "${PGPORT:-5432}")
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -o "$options" -w start
}

stop_temporary_server() {
    PGUSER=$POSTGRES_USER pg_ctl -D "$PGDATA" -m fast -w stop
}

# The administrator's psql, also for scripts in /docker-entrypoint-initdb.d, which know it by this name.
docker_process_sql() {
    psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}

create_database() {
    [[ $POSTGRES_DB != postgres ]] || return 0
    docker_process_sql --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
}

run_init_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        printf '%s: running %s\n' "$0" "$script"
        case $script in
        *.sh)
            if [[ -x $script ]]; then
                "$script"
            else
                # Part of this script, with its functions and variables, as in the official image.
                # shellcheck source=/dev/null
                . "$script"
            fi
            ;;
        *.sql) docker_process_sql -f "$script" ;;
        *.sql.gz) gunzip -c "$script" | docker_process_sql ;;
        *) printf '%s: ignoring %s\n' "$0" "$script" ;;
        esac
    done
}

initialise() {
    from_environment POSTGRES_PASSWORD
    from_environment POSTGRES_USER postgres
    from_environment POSTGRES_DB "$POSTGRES_USER"
    from_environment POSTGRES_INITDB_ARGS
    refuse_old_volume
    require_password
    run_initdb
    open_to_the_network "$@"
    export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
    start_temporary_server "$@"
    create_database
    run_init_scripts
    stop_temporary_server
    unset PGPASSWORD
    printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

main() {
    if [[ ${1:-} == -* ]]; then
        set -- postgres "$@"
    fi
    if [[ ${1:-} == postgres ]] && ! asks_for_information "$@"; then
        prepare_directories
        if [[ $(id -u) == 0 ]]; then
            export HOME=/var/lib/postgresql
            # By its path: busybox has a setpriv too, with fewer options.
            exec /usr/bin/setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
        fi
        if [[ -s $PGDATA/PG_VERSION ]]; then
            printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
        else
            initialise "$@"
        fi
    fi
    exec "$@"
}

main "$@"
