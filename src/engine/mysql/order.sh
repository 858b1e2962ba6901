# Gives MySQL or MariaDB an order, or asks it, as root over the Unix socket.
# $1 reload, refuse or ask  $2 the statement that reloads  $3 data directory  $4 the socket, or empty
order=$1 reload=$2 data_dir=$3 socket=$4

client=$(first_of mariadb mysql) || fail 50 'there is no mysql and no mariadb'

password=${MARIADB_ROOT_PASSWORD:-${MYSQL_ROOT_PASSWORD:-}}
file=${MARIADB_ROOT_PASSWORD_FILE:-${MYSQL_ROOT_PASSWORD_FILE:-}}
if [ -n "$file" ]; then
    password=$(cat "$file" 2>/dev/null) || fail 51 "$file cannot be read by uid $(id -u)"
fi

# A ~/.my.cnf would count more than the environment. Without a password: the accounts that need none.
run() (
    if [ -n "$password" ]; then
        MYSQL_PWD=$password
        export MYSQL_PWD
    fi
    query --user=root --execute "$1"
)

# With options of the client, as which account among them.
query() {
    HOME=/nonexistent "$client" "$@" --host=localhost ${socket:+"--socket=$socket"} --connect-timeout=10 --batch \
        --skip-column-names 2>&1 </dev/null
}

# The client's own words hold no password.
refused() {
    case $1 in
    *'ERROR 1045 '* | *'ERROR 1698 '*) fail 52 "$1" ;;
    *'ERROR 1227 '*) fail 53 "$1" ;;
    *'ERROR 3888 '* | *'ERROR 1105 '* | *'ERROR 2026 '*) fail 54 "$1" ;;
    *) fail 55 "$1" ;;
    esac
}

# The account that MariaDB's image makes for its health check may look, too.
ask() {
    question='SELECT @@global.require_secure_transport'
    said=$(run "$question") && return
    own=$data_dir/.my-healthcheck.cnf
    if [ -r "$own" ]; then
        said=$(query --defaults-file="$own" --execute "$question") && return
    fi
    # Nobody can be asked: the command line says what the server was started with, and one thing only beats that.
    if [ -r "$data_dir/mysqld-auto.cnf" ] && grep -q require_secure_transport "$data_dir/mysqld-auto.cnf"; then
        refused "$said"
    fi
    said=flag
}

case $order in
reload)
    said=$(run "$reload") || refused "$said"
    echo 'dbssl done'
    ;;
refuse)
    said=$(run 'SET GLOBAL require_secure_transport = ON') || refused "$said"
    echo 'dbssl done'
    ;;
ask)
    ask
    case $said in
    1 | ON) echo 'dbssl yes' ;;
    0 | OFF) echo 'dbssl no' ;;
    flag) echo 'dbssl flag' ;;
    *) fail 55 "it answered $said" ;;
    esac
    ;;
esac
