# shellcheck shell=bash
# The Rust toolchain and what the crates need to build. Needs say.sh and install.sh.

need_rust() {
    # aws-lc is C.
    need cc gcc libc6-dev
    if ! have cargo && [[ -x $HOME/.cargo/bin/cargo ]]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! have cargo; then
        apt_offers rustup || fail 'there is no cargo, and no package rustup to get it from: see https://rustup.rs'
        apt_install rustup
        quietly 'rustup default stable' rustup default stable
    fi
}

# The parts of the toolchain that only a developer needs.
need_rust_tools() {
    local tool
    for tool in fmt clippy; do
        if ! cargo "$tool" --version >/dev/null 2>&1; then
            have rustup || fail "there is no cargo $tool, and no rustup to get it with"
            quietly "rustup component add $tool" rustup component add "${tool/fmt/rustfmt}"
        fi
    done
    if ! cargo deny --version >/dev/null 2>&1; then
        say 'installing cargo-deny (compiles for some minutes)'
        quietly 'cargo install cargo-deny' cargo install --locked cargo-deny
    fi
}

need_cargo_fuzz() {
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say 'installing cargo-fuzz (compiles for a minute)'
        quietly 'cargo install cargo-fuzz' cargo install --locked cargo-fuzz
    fi
}
