# shellcheck shell=bash
# A dbssl of one's own for a demonstration or a measurement: built from this tree, with its files in a folder of its
# own. Needs say.sh, install.sh and $root.

binary=${CARGO_TARGET_DIR:-${root:?}/target}/release/dbssl

build_dbssl() { (cd "$root" && cargo build --release --locked); }

# An agent looks after every labelled container of its host. One that is started here and ended soon must therefore
# find nobody else's.
refuse_beside_others() {
    local others
    need pgrep procps
    others=$(docker ps -a --filter label=dbssl.enable --format '{{.Names}}' | paste -sd ' ')
    if [[ -n $others ]]; then
        fail "there are labelled containers already, and a second agent would change them: $others"
    fi
    # An agent of the usual Docker Engine is no concern of another engine's.
    if [[ -z ${DOCKER_HOST:-} ]] && pgrep -x dbssl >/dev/null; then
        fail 'dbssl runs on this machine already, and two agents would work against each other'
    fi
}

# start_agent FOLDER: all of it is in FOLDER: ssl/coolify-ca.crt, state, agent.log, agent.pid, and `dbssl`, which is the
# program with these settings.
start_agent() {
    cat >"$1/dbssl" <<SCRIPT
#!/bin/sh
exec '$binary' --config '$root/config/dbssl.toml' --data-dir '$1/ssl' --state-dir '$1/state' "\$@"
SCRIPT
    chmod 755 "$1/dbssl"
    # In a session of its own: Ctrl-C in the terminal is for the script, which then ends the agent in order.
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_root sh -c 'setsid "$0/dbssl" run >"$0/agent.log" 2>&1 </dev/null & echo $! >"$0/agent.pid"' "$1"
}

# One that has ended and that nobody has reaped yet has ended.
agent_runs() {
    local state
    state=$(ps -o stat= -p "$(cat "$1/agent.pid")") && [[ $state != Z* ]]
}

# It ends what it has begun before it leaves; a redeploy under way can take as long as its database.
stop_agent() {
    local end=$((SECONDS + 120))
    [[ -s $1/agent.pid ]] && agent_runs "$1" || return 0
    as_root kill "$(cat "$1/agent.pid")"
    while agent_runs "$1"; do
        if ((SECONDS >= end)); then
            warn 'the agent does not end by itself; killing it'
            as_root kill -KILL "$(cat "$1/agent.pid")"
            break
        fi
        sleep 0.1
    done
}
