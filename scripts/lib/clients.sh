# shellcheck shell=bash
# Clients of the databases, for tests. Needs say.sh, install.sh and, for PyMongo, $root.

# Also Valkey's: the protocol is the same.
need_redis_cli() { need redis-cli redis-tools; }

need_mariadb_client() { need mariadb mariadb-client; }

# MySQL's own client is not in Debian's stable releases, and what is called `mysql` there is MariaDB's. It is run from
# the server's image: mysql_client IMAGE ARGUMENT… The password is taken from MYSQL_PWD.
mysql_client() {
    docker run --rm --interactive --network host --env MYSQL_PWD --entrypoint mysql "$1" --protocol=tcp "${@:2}"
}

# A Python that has PyMongo, MongoDB's own driver, and is only for that.
pymongo_python() { echo "${CARGO_TARGET_DIR:-${root:?}/target}/pymongo/bin/python"; }

need_pymongo() {
    local python
    python=$(pymongo_python)
    if "$python" -c 'import pymongo' 2>/dev/null; then
        return
    fi
    need python3 python3
    # The module may be there and yet be of no use without this one.
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    say 'installing PyMongo (for these tests only)'
    quietly 'python3 -m venv' python3 -m venv "${python%/bin/python}"
    quietly 'pip install pymongo' "$python" -m pip install --quiet 'pymongo==4.*'
}
