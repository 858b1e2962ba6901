# shellcheck shell=bash
# Clients of the databases, for tests. Needs say.sh, install.sh and, for Python's drivers, $root.

# Also Valkey's: the protocol is the same.
need_redis_cli() { need redis-cli redis-tools; }

need_mariadb_client() { need mariadb mariadb-client; }

# MySQL's own client is not in Debian's stable releases, and what is called `mysql` there is MariaDB's. It is run from
# the server's image: mysql_client IMAGE ARGUMENT… The password is taken from MYSQL_PWD.
mysql_client() {
    docker run --rm --interactive --network host --env MYSQL_PWD --entrypoint mysql "$1" --protocol=tcp "${@:2}"
}

# A Python that has a driver of each database, and is only for that.
drivers_python() { echo "${CARGO_TARGET_DIR:-${root:?}/target}/drivers/bin/python"; }

need_drivers() {
    local python
    python=$(drivers_python)
    if "$python" -c 'import cryptography, psycopg2, pymongo, pymysql, redis, sqlalchemy' 2>/dev/null; then
        return
    fi
    need python3 python3
    # The module may be there and yet be of no use without this one.
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv
    say 'installing drivers for Python (for these tests only)'
    quietly 'python3 -m venv' python3 -m venv "${python%/bin/python}"
    quietly 'pip install' "$python" -m pip install --quiet 'pymongo==4.*' 'PyMySQL==1.*' 'cryptography' \
        'redis==5.*' 'psycopg2-binary==2.*' 'SQLAlchemy==2.*'
}

# Drivers for Node.js. That of PostgreSQL is only unpacked: installed it would want Debian's own build of Node.js, for a
# part of it that is not used.
need_node_drivers() {
    local folder=${CARGO_TARGET_DIR:-${root:?}/target}/drivers/nodejs package
    need node nodejs
    [[ -e /usr/share/nodejs/redis && -e /usr/share/nodejs/mongodb ]] || apt_install node-redis node-mongodb
    [[ -e $folder/usr/share/nodejs/pg ]] && return
    mkdir -p "$folder"
    (
        cd "$folder" || fail "cannot go to $folder"
        quietly 'apt-get download' apt-get download node-pg node-split2 node-xtend
        for package in *.deb; do
            dpkg-deb --extract "$package" .
        done
    )
}

# Drivers for Go, in one program.
need_go_drivers() {
    local program=${CARGO_TARGET_DIR:-${root:?}/target}/drivers/bin/url-go
    local source=${root:?}/tests/live/url.go package
    [[ $program -nt $source ]] && return
    need go golang-go
    for package in golang-{github-jackc-pgx-v4,github-go-sql-driver-mysql,mongodb-mongo-driver}-dev; do
        dpkg-query --show "$package" >/dev/null 2>&1 || apt_install "$package"
    done
    mkdir -p "$(dirname "$program")"
    GO111MODULE=off GOPATH=/usr/share/gocode quietly 'go build' go build -o "$program" "$source"
}

# A driver for Java, and a Java that runs a source file.
need_jdbc() {
    [[ -e /usr/share/java/postgresql.jar ]] || apt_install libpostgresql-jdbc-java
    need javac default-jdk-headless
}
