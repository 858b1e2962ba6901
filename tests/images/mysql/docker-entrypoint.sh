#!/bin/bash
# Brings MySQL up in a container the way the official image does, as far as it matters to somebody who changes that
# container from outside:
#
#   - the arguments are the command; a first argument that is an option means `mysqld`
#   - as root: directories are made and given to the database's user, then this script goes on as that user
#   - a data directory without a database is initialised with a temporary server that listens on the Unix socket only,
#     and is started with the command's own options (so certificate files named there must be readable even then)
#   - a data directory with a database is never initialised again, not even if the first time was interrupted half-way
#   - it ends by becoming the command, so that the server is process 1 and gets the stop signal
#
# Of the environment it knows MYSQL_ROOT_PASSWORD, MYSQL_ROOT_HOST, MYSQL_DATABASE, MYSQL_USER and MYSQL_PASSWORD (each
# also with _FILE), MYSQL_ALLOW_EMPTY_PASSWORD and MYSQL_RANDOM_ROOT_PASSWORD. It lacks MYSQL_ONETIME_PASSWORD, time
# zones, and .bz2, .xz and .zst scripts.
set -euo pipefail
shopt -s nullglob

note() { printf '%s [Note] [Entrypoint]: %s\n' "$(date --rfc-3339=seconds)" "$*"; }

fail() {
    printf '%s [ERROR] [Entrypoint]: %s\n' "$(date --rfc-3339=seconds)" "$*" >&2
    exit 1
}

# Sets $1 from the file named in ${1}_FILE if there is one, else to $2 if it is empty.
from_environment() {
    local name=$1 default=${2:-} file=${1}_FILE
    if [[ -n ${!file:-} ]]; then
        [[ -z ${!name:-} ]] || fail "Both $name and $file are set (but are exclusive)"
        printf -v "$name" '%s' "$(<"${!file}")"
    elif [[ -z ${!name:-} ]]; then
        printf -v "$name" '%s' "$default"
    fi
    export "${name?}"
    unset "$file"
}

# `mysqld --version` and the like need no data directory and must not make one.
asks_for_information() {
    local argument
    for argument; do
        case $argument in
        -\? | --help | --print-defaults | -V | --version) return 0 ;;
        esac
    done
    return 1
}

# All of the server's settings, as this command would have them; fails if it would not start for a wrong option.
settings=''
read_settings() {
    local errors
    errors=$(mktemp)
    settings=$("$@" --verbose --help 2>"$errors") ||
        fail "mysqld failed while attempting to check config: $* $(<"$errors")"
    rm -f "$errors"
}

# What the setting $1 is.
setting() { awk -v name="$1" '$1 == name && /^[^ \t]/ { sub(/^[^ \t]+[ \t]+/, ""); print; exit }' <<<"$settings"; }

prepare_directories() {
    local directories
    directories=("$data" "${socket%/*}" "$(dirname "$(setting pid-file)")" "$(setting secure-file-priv)")
    mkdir -p "${directories[@]}"
    if [[ $(id -u) == 0 ]]; then
        find "${directories[@]}" ! -user mysql -exec chown --no-dereference mysql {} +
    fi
}

require_password() {
    [[ -n $MYSQL_ROOT_PASSWORD${MYSQL_ALLOW_EMPTY_PASSWORD:-}${MYSQL_RANDOM_ROOT_PASSWORD:-} ]] || fail \
        'Database is uninitialized and password option is not specified: set MYSQL_ROOT_PASSWORD,' \
        'MYSQL_ALLOW_EMPTY_PASSWORD or MYSQL_RANDOM_ROOT_PASSWORD'
    [[ $MYSQL_USER != root ]] || fail 'MYSQL_USER cannot be root: use MYSQL_ROOT_PASSWORD'
}

# For the clients' --defaults-extra-file, so that no password is ever an argument.
credentials() { printf '[client]\nuser=root\npassword="%s"\n' "${root_password//\\/\\\\}"; }

# $1 as a literal of SQL.
quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

# The administrator's client, whatever MYSQL_HOST says, also for scripts in /docker-entrypoint-initdb.d, which know it
# by this name.
docker_process_sql() {
    mysql --defaults-extra-file=<(credentials) --protocol=socket --host=localhost --socket="$socket" --comments \
        ${MYSQL_DATABASE:+--database="$MYSQL_DATABASE"} "$@"
}

create_users() {
    local password
    if [[ -n ${MYSQL_RANDOM_ROOT_PASSWORD:-} ]]; then
        MYSQL_ROOT_PASSWORD=$(base64 -w 0 </dev/urandom | head -c 32 || true)
        note "GENERATED ROOT PASSWORD: $MYSQL_ROOT_PASSWORD"
    fi
    password=$(quoted "$MYSQL_ROOT_PASSWORD")
    {
        echo 'SET @@SESSION.SQL_LOG_BIN=0;'
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $password;"
        if [[ $MYSQL_ROOT_HOST != localhost ]]; then
            echo "CREATE USER 'root'@'$MYSQL_ROOT_HOST' IDENTIFIED BY $password;"
            echo "GRANT ALL ON *.* TO 'root'@'$MYSQL_ROOT_HOST' WITH GRANT OPTION;"
        fi
        if [[ -n $MYSQL_DATABASE ]]; then
            echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;"
        fi
        if [[ -n $MYSQL_USER && -n $MYSQL_PASSWORD ]]; then
            echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY $(quoted "$MYSQL_PASSWORD");"
            if [[ -n $MYSQL_DATABASE ]]; then
                echo "GRANT ALL ON \`${MYSQL_DATABASE//_/\\_}\`.* TO '$MYSQL_USER'@'%';"
            fi
        fi
    } | docker_process_sql --database=mysql
    root_password=$MYSQL_ROOT_PASSWORD
}

run_init_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        note "running $script"
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
        *.sql) docker_process_sql <"$script" ;;
        *.sql.gz) gunzip -c "$script" | docker_process_sql ;;
        *) note "ignoring $script" ;;
        esac
    done
}

initialise() {
    require_password
    note 'Initializing database files'
    "$@" --initialize-insecure
    note 'Starting temporary server'
    # It detaches once it is ready.
    "$@" --daemonize --skip-networking --socket="$socket" || fail 'Unable to start server.'
    root_password=''
    create_users
    run_init_scripts
    note 'Stopping temporary server'
    # Over the socket this waits for the end.
    mysqladmin --defaults-extra-file=<(credentials) --protocol=socket --socket="$socket" shutdown
    note 'MySQL init process done. Ready for start up.'
}

main() {
    if [[ ${1:-} == -* ]]; then
        set -- mysqld "$@"
    fi
    if [[ ${1:-} == mysqld ]] && ! asks_for_information "$@"; then
        note "Entrypoint script for MySQL Server $MYSQL_VERSION started."
        read_settings "$@"
        data=$(setting datadir)
        socket=$(setting socket)
        prepare_directories
        if [[ $(id -u) == 0 ]]; then
            note "Switching to dedicated user 'mysql'"
            exec setpriv --reuid=mysql --regid=mysql --clear-groups "$0" "$@"
        fi
        from_environment MYSQL_ROOT_HOST %
        from_environment MYSQL_ROOT_PASSWORD
        from_environment MYSQL_DATABASE
        from_environment MYSQL_USER
        from_environment MYSQL_PASSWORD
        if [[ ! -d $data/mysql ]]; then
            initialise "$@"
        fi
    fi
    exec "$@"
}

main "$@"
