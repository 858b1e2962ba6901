# Makes PostgreSQL read its configuration and certificates again, by SIGHUP from inside the container.
# $1 data directory  $2 /proc
proc=$2

is_server() {
    case $1 in '' | *[!0-9]*) return 1 ;; esac
    case $(cat "$proc/$1/comm" 2>/dev/null) in
    postgres | postmaster) return 0 ;;
    *) return 1 ;;
    esac
}

# The server's own note; else process 1; else, behind an init, the only server that is no other's child.
find_server() {
    read -r pid <"$1/postmaster.pid" 2>/dev/null && is_server "$pid" && return 0
    pid=1
    is_server 1 && return 0
    found=
    for folder in "$proc"/[0-9]*; do
        pid=${folder##*/}
        is_server "$pid" || continue
        is_server "$(sed -n 's/^PPid:[[:space:]]*//p' "$folder/status" 2>/dev/null)" && continue
        [ -z "$found" ] || return 1
        found=$pid
    done
    pid=$found
    [ -n "$pid" ]
}

find_server "$1" 2>/dev/null || {
    echo 'no running server was found' >&2
    exit 40
}
kill -HUP "$pid" 2>/dev/null || {
    printf 'process %s cannot be signalled by uid %s\n' "$pid" "$(id -u)" >&2
    exit 41
}
echo 'dbssl done'
