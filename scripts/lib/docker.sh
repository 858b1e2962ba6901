# shellcheck shell=bash
# A Docker Engine that answers, and Compose for it. Needs say.sh and install.sh.

docker_answers() { docker info >/dev/null 2>&1; }

# Installs the engine if there is none and starts it if it is not running. A daemon started here is left running, as
# an installed service would be.
need_docker() {
    # From Debian 13 on the client is a package of its own; before, it is in the other one.
    if [[ -z ${DOCKER_HOST:-} ]]; then
        PATH=$PATH:/usr/sbin need dockerd docker.io
    fi
    need docker docker-cli
    docker_answers || start_docker
}

start_docker() {
    local log=/var/log/dbssl-dockerd.log
    if [[ -n ${DOCKER_HOST:-} ]]; then
        fail "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST"
    elif as_root docker info >/dev/null 2>&1; then
        fail "the Docker Engine runs, but $(id -un) may not talk to it: run this as root, or join the group docker"
    elif [[ -d /run/systemd/system ]]; then
        say 'starting the Docker Engine (systemctl)'
        quietly 'starting docker.service' as_root systemctl start docker
    else
        say "starting the Docker Engine (dockerd in the background, log in $log)"
        # A session of its own and no inherited streams, so that it outlives this script and holds nothing open.
        # shellcheck disable=SC2016 # expanded by the inner shell
        as_root sh -c 'setsid nohup dockerd >"$1" 2>&1 </dev/null &' sh "$log"
    fi
    wait_for 60 'the Docker Engine does not answer' docker_answers
}

# The second Compose, the one that is called `docker compose`.
need_compose() {
    if docker compose version >/dev/null 2>&1; then
        return
    fi
    if apt_offers docker-compose-v2; then
        apt_install docker-compose-v2
    elif apt_offers docker-compose 2; then
        apt_install docker-compose
    else
        compose_from_trixie
    fi
    docker compose version >/dev/null 2>&1 || fail 'docker compose does not work even after its installation'
}

# Debian 12 has only the first Compose. Debian 13's package holds one file that matters, a static program that runs
# on 12 too. It is fetched with apt (so its signature is checked) but with lists of its own, so that the machine does
# not become a mixture of two releases, and it is put where it shadows no package.
compose_from_trixie() (
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # apt drops to a user of its own for the download.
    chmod 755 "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    cat >"$folder/trixie.sources" <<SOURCES
Types: deb
URIs: http://deb.debian.org/debian
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    apart=(-o Dir::Etc::SourceList="$folder/trixie.sources" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache")
    say "installing docker compose from Debian 13 into /usr/local/lib/docker/cli-plugins"
    cd "$folder" || exit
    quietly "apt-get update for Debian 13" as_root apt-get "${apart[@]}" update
    quietly "apt-get download docker-compose" as_root apt-get "${apart[@]}" download docker-compose
    dpkg-deb --extract docker-compose_*.deb unpacked
    as_root install -D -m 755 unpacked/usr/libexec/docker/cli-plugins/docker-compose \
        /usr/local/lib/docker/cli-plugins/docker-compose
)

# What an image says of itself: the folder that its data volume belongs at (it moved with PostgreSQL 18), and the uid
# and gid of its database user.
data_volume_of() { docker image inspect --format '{{range $folder, $_ := .Config.Volumes}}{{$folder}}{{end}}' "$1"; }
# shellcheck disable=SC2016 # expanded in the container
postgres_user_of() { docker run --rm --entrypoint sh "$1" -c 'echo "$(id -u postgres):$(id -g postgres)"'; }
