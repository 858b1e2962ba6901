#!/bin/sh
# Brings Valkey up in a container the way the official image does:
#
#   - the arguments are the command; a first argument that is an option or a configuration file means `valkey-server`
#   - as root: what lies in the data folder is given to the database's user, then this script goes on as that user
#   - files that the server makes are its user's alone
#   - protected mode is off: a server without a password would answer only its own machine, which is nobody here
#   - it ends by becoming the command, so that the server is process 1 and gets the stop signal
#
# Nothing is initialised, and no variable is looked at: a password is an argument (--requirepass) or in a configuration
# file.
set -eu

case ${1-} in
-* | *.conf) set -- valkey-server "$@" ;;
esac

if [ "${1-}" = valkey-server ] && [ "$(id -u)" = 0 ]; then
    # The working folder is the data folder, /data unless `docker run` was given another one.
    find . ! -user valkey -exec chown valkey {} +
    exec setpriv --reuid=valkey --regid=valkey --clear-groups "$0" "$@"
fi

# Unless somebody chose one.
if [ "$(umask)" = 0022 ]; then
    umask 0077
fi

# The official server is compiled with protected mode off; this one is told so, in front of all other options, so that
# they win. (A configuration file has to come first, so it loses.)
case "${1-} ${2-}" in
'valkey-server -v' | 'valkey-server --version' | 'valkey-server -h' | 'valkey-server --help') ;;
'valkey-server ' | 'valkey-server -'*)
    shift
    set -- valkey-server --protected-mode no "$@"
    ;;
'valkey-server '*)
    file=$2
    shift 2
    set -- valkey-server "$file" --protected-mode no "$@"
    ;;
esac

exec "$@"
