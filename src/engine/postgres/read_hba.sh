# Prints the pg_hba.conf in force: a line of lengths, then path and content as they are.
# $1 configuration directory  $2 data directory  $3 hba_file of the command, or empty
# $4 config_file of the command, or empty  $5 superuser  $6 port  $7 bytes that the file may have
conf_dir=$1 data_dir=$2 named=$3 conf=$4 user=$5 port=$6 limit=$7
unset PGHOST PGHOSTADDR PGSERVICE PGSERVICEFILE PGDATABASE PGSSLMODE PGSSLNEGOTIATION PGREQUIREAUTH \
    PGTARGETSESSIONATTRS PGSYSCONFDIR CDPATH

# Line $1 of the running server's own notes.
noted() {
    sed -n "$1{p;q;}" "$data_dir/postmaster.pid" 2>/dev/null
}

ask_the_server() {
    command -v psql >/dev/null 2>&1 || return 1
    sockets=$(noted 5)
    : "${sockets:=/var/run/postgresql}"
    noted_port=$(noted 4)
    case $noted_port in '' | *[!0-9]*) noted_port=$port ;; esac
    if [ -r "${POSTGRES_USER_FILE:-}" ]; then
        user=$(cat "$POSTGRES_USER_FILE")
    fi
    # Where the image gets it, for those who ask for one even on the socket.
    if [ -z "${PGPASSWORD:-}" ]; then
        PGPASSWORD=${POSTGRES_PASSWORD:-}
        if [ -r "${POSTGRES_PASSWORD_FILE:-}" ]; then
            PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
        fi
        export PGPASSWORD
        [ -n "$PGPASSWORD" ] || unset PGPASSWORD
    fi
    PGCONNECT_TIMEOUT=5 PGOPTIONS='-c statement_timeout=5000' PGAPPNAME=dbssl psql -w -X -q -A -t \
        -h "$sockets" -p "$noted_port" -U "$user" -d postgres -c 'SHOW hba_file' 2>/dev/null </dev/null
}

# The last hba_file of the file $1. A quote inside of the value is more than this understands.
from_configuration() {
    [ -r "$1" ] || return 0
    sed -n "s/^[[:space:]]*[Hh][Bb][Aa]_[Ff][Ii][Ll][Ee][[:space:]]*=\{0,1\}[[:space:]]*'\([^']*\)'.*/\1/p" "$1" |
        sed -n '$p'
}

source=server
path=$(ask_the_server) || path=
case $path in
/*) ;;
*)
    source='command'
    path=$named
    ;;
esac
if [ -z "$path" ]; then
    source=configuration
    path=$(from_configuration "$data_dir/postgresql.auto.conf")
    [ -n "$path" ] || path=$(from_configuration "${conf:-$conf_dir/postgresql.conf}")
fi
if [ -z "$path" ]; then
    source=default
    path=$conf_dir/pg_hba.conf
fi
case $path in
/*) ;;
*) path=$(pwd)/$path ;;
esac

real=$(readlink -f -- "$path" 2>/dev/null) || real=
[ -e "$real" ] || fail 20 "$path does not exist"
[ -f "$real" ] || fail 21 "$real is not a file"
[ -r "$real" ] || fail 22 "$real cannot be read by uid $(id -u)"
status=$(stat -c '%u %g %a' -- "$real") || fail 23 "stat $real"
size=$(wc -c <"$real") || fail 23 "wc $real"
size=$((size))
[ "$size" -le "$limit" ] || fail 24 "$real has $size bytes"
length=$(printf %s "$real" | wc -c)
printf 'dbssl-hba 1 %s %s %s %s\n%s' "$source" "$status" "$((length))" "$size" "$real"
exec head -c "$size" -- "$real"
