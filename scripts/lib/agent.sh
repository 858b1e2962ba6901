# shellcheck shell=bash
# A dbssl of one's own for a demonstration or a measurement: built from this tree, with its files in a folder of its
# own. Needs say.sh, install.sh and $root.

binary=${CARGO_TARGET_DIR:-${root:?}/target}/release/dbssl

build_dbssl() { (cd "$root" && cargo build --release --locked); }

# The service looks after every labelled container of this host, those made here included. An agent started here in
# turn sees nobody else's.
refuse_beside_service() {
    if [[ -d /run/systemd/system ]] && systemctl is-active --quiet dbssl; then
        fail 'the service dbssl runs on this machine, and would work against the agent that is to be started here'
    fi
}

# start_agent FOLDER LABEL: looks after the containers with this label only. All of it is in FOLDER: ssl/coolify-ca.crt,
# state, agent.log, agent.pid, and `dbssl`, which is the program with these settings.
start_agent() {
    need ps procps
    # A copy, which stays the same when this tree is built again meanwhile.
    install -D -m 755 "$binary" "$1/bin/dbssl"
    printf '[docker]\nonly = "%s"\n' "$2" >"$1/dbssl.toml"
    cat >"$1/dbssl" <<SCRIPT
#!/bin/sh
exec '$1/bin/dbssl' --config '$1/dbssl.toml' --data-dir '$1/ssl' --state-dir '$1/state' "\$@"
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
