#!/bin/bash
# Brings MariaDB up in a container the way the official image does, as far as it matters to somebody who changes that
# container from outside:
#
#   - the arguments are the command; a first argument that is an option means `mariadbd`
#   - as root: directories are made and given to the database's user, then this script goes on as that user
#   - a data directory without a database is initialised with a temporary server that listens on the Unix socket only,
#     and is started with the command's own options (so certificate files named there must be readable even then)
#   - a data directory with a database is never initialised again, not even if the first time was interrupted half-way
#   - an account for healthcheck.sh is made, with a random password in the data directory
#   - it ends by becoming the command, so that the server is process 1 and gets the stop signal
#
# Of the environment it knows MARIADB_ROOT_PASSWORD, MARIADB_ROOT_HOST, MARIADB_DATABASE, MARIADB_USER and
# MARIADB_PASSWORD (each also with _FILE), MARIADB_ALLOW_EMPTY_ROOT_PASSWORD and MARIADB_RANDOM_ROOT_PASSWORD, and all
# of these with MYSQL_ in front (MYSQL_ALLOW_EMPTY_PASSWORD). It lacks passwords given as hashes, replication, upgrades,
# backups to start from, time zones, and .xz and .zst scripts.
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

# Gives MARIADB_$1 and MYSQL_$1 the same value, which is the former's if both are there.
either_spelling() {
    local maria=MARIADB_$1 my=MYSQL_$1
    from_environment "$my" "${2:-}"
    from_environment "$maria" "${!my}"
    export "$my=${!maria}"
}

# `mariadbd --version` and the like need no data directory and must not make one.
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
        fail "mariadbd failed while attempting to check config: $* $(<"$errors")"
    rm -f "$errors"
}

# What the setting $1 is.
setting() { awk -v name="$1" '$1 == name && /^[^ \t]/ { sub(/^[^ \t]+[ \t]+/, ""); print; exit }' <<<"$settings"; }

prepare_directories() {
    mkdir -p "$data" "${socket%/*}"
    if [[ $(id -u) == 0 ]]; then
        find "$data" ! -user mysql -exec chown mysql: {} +
        find "${socket%/*}" -maxdepth 0 ! -user mysql -exec chown mysql: {} +
    fi
}

require_password() {
    [[ -n $MARIADB_ROOT_PASSWORD$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD$MARIADB_RANDOM_ROOT_PASSWORD ]] || fail \
        'Database is uninitialized and password option is not specified: set MARIADB_ROOT_PASSWORD,' \
        'MARIADB_ALLOW_EMPTY_ROOT_PASSWORD or MARIADB_RANDOM_ROOT_PASSWORD'
}

random_password() { base64 -w 0 </dev/urandom | head -c 32 || true; }

# $1 as a literal of SQL.
quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

# The administrator's client, also for scripts in /docker-entrypoint-initdb.d, which know it by this name. The password
# is never an argument.
docker_process_sql() {
    MYSQL_PWD=$root_password mariadb --protocol=socket --host=localhost --user=root --socket="$socket" \
        ${MARIADB_DATABASE:+--database="$MARIADB_DATABASE"} "$@"
}

start_temporary_server() {
    "$@" --skip-networking --socket="$socket" &
    server=$!
    until docker_process_sql --database=mysql --execute 'select 1' >/dev/null 2>&1; do
        kill -0 "$server" 2>/dev/null || fail 'Unable to start server.'
        sleep 0.2
    done
}

stop_temporary_server() {
    kill "$server"
    wait "$server"
}

create_users() {
    local password health_password host
    if [[ -n $MARIADB_RANDOM_ROOT_PASSWORD ]]; then
        MARIADB_ROOT_PASSWORD=$(random_password)
        export MYSQL_ROOT_PASSWORD=$MARIADB_ROOT_PASSWORD
        note "GENERATED ROOT PASSWORD: $MARIADB_ROOT_PASSWORD"
    fi
    password=$(quoted "$MARIADB_ROOT_PASSWORD")
    health_password=$(random_password)
    {
        echo 'SET @@SESSION.SQL_LOG_BIN=0;'
        # Without a password, all of them.
        echo "DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1', 'root'@'$(hostname)';"
        echo "SET PASSWORD FOR 'root'@'localhost' = PASSWORD($password);"
        if [[ $MARIADB_ROOT_HOST != localhost ]]; then
            echo "CREATE USER 'root'@'$MARIADB_ROOT_HOST' IDENTIFIED BY $password;"
            echo "GRANT ALL ON *.* TO 'root'@'$MARIADB_ROOT_HOST' WITH GRANT OPTION;"
        fi
        for host in 127.0.0.1 ::1 localhost; do
            echo "CREATE USER healthcheck@'$host' IDENTIFIED BY '$health_password';"
        done
        if [[ -n $MARIADB_DATABASE ]]; then
            echo "CREATE DATABASE IF NOT EXISTS \`$MARIADB_DATABASE\`;"
        fi
        if [[ -n $MARIADB_USER && -n $MARIADB_PASSWORD ]]; then
            echo "CREATE USER '$MARIADB_USER'@'%' IDENTIFIED BY $(quoted "$MARIADB_PASSWORD");"
            if [[ -n $MARIADB_DATABASE ]]; then
                echo "GRANT ALL ON \`${MARIADB_DATABASE//_/\\_}\`.* TO '$MARIADB_USER'@'%';"
            fi
        fi
    } | docker_process_sql --database=mysql --binary-mode
    root_password=$MARIADB_ROOT_PASSWORD
    (
        umask 077
        printf '[mariadb-client]\nport=%s\nsocket=%s\nuser=healthcheck\npassword=%s\n' "$(setting port)" "$socket" \
            "$health_password" >"$data/.my-healthcheck.cnf"
    )
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
    mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db "${@:2}" >/dev/null
    note 'Starting temporary server'
    root_password=''
    start_temporary_server "$@"
    create_users
    run_init_scripts
    note 'Stopping temporary server'
    stop_temporary_server
    note 'MariaDB init process done. Ready for start up.'
}

main() {
    if [[ ${1:-} == -* ]]; then
        set -- mariadbd "$@"
    fi
    if [[ ${1:-} == mariadbd || ${1:-} == mysqld ]] && ! asks_for_information "$@"; then
        note "Entrypoint script for MariaDB Server $MARIADB_VERSION started."
        read_settings "$@"
        data=$(setting datadir)
        socket=$(setting socket)
        prepare_directories
        if [[ $(id -u) == 0 ]]; then
            note "Switching to dedicated user 'mysql'"
            exec setpriv --reuid=mysql --regid=mysql --clear-groups "$0" "$@"
        fi
        either_spelling ROOT_HOST %
        either_spelling ROOT_PASSWORD
        either_spelling DATABASE
        either_spelling USER
        either_spelling PASSWORD
        either_spelling RANDOM_ROOT_PASSWORD
        : "${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:=${MYSQL_ALLOW_EMPTY_PASSWORD:-}}"
        if [[ ! -d $data/mysql ]]; then
            initialise "$@"
        fi
    fi
    exec "$@"
}

main "$@"
