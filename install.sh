#!/bin/sh
# Install kedge on this host and wait until its node is Ready.
#
#   ./install.sh [server flags]                        from a checkout, or with the executable beside this script
#   ./install.sh agent --server URL --token TOKEN      as a further node of the cluster at URL
#   curl -sfL URL/install.sh | sh -s - [server flags]  with KEDGE_RELEASE_URL or KEDGE_BINARY set
#   curl -sfL … | KEDGE_SERVER=… KEDGE_TOKEN=… sh -    as a further node
#
# Where the executable comes from, first match:
#   KEDGE_BINARY=/path/to/kedge    this file
#   ./kedge beside the script      that file
#   a checkout                     built with cargo (takes minutes)
#   KEDGE_RELEASE_URL=https://…    downloaded, checked against URL/kedge-linux-ARCH.sha256
#
# Flags (--https-listen-port 7443, …) are kept in /etc/kedge/config.yaml.d/50-install.yaml; a later run without flags
# keeps them, and keeps the host a server or an agent. Safe to run again: it upgrades in place and leaves pods running.
#
#   KEDGE_SKIP_START=1    install only
#   KEDGE_SKIP_PACKAGES=1 install no packages, only say what is missing
set -eu

BIN=/usr/local/bin/kedge
UNIT=/etc/systemd/system/kedge.service
DROPIN=/etc/kedge/config.yaml.d/50-install.yaml
LOG=/var/log/kedge.log
RUN_DIR=/run/kedge

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

here() { # directory of this script, empty under curl | sh
    case "$0" in
        */*) [ -f "$0" ] && (cd "$(dirname "$0")" && pwd) ;;
    esac
}

as_root() {
    [ "$(id -u)" -eq 0 ] && return
    have sudo || die "run as root (there is no sudo here)"
    script=$1; shift
    [ -n "$script" ] || die "under 'curl | sh' use: curl … | sudo -E sh -"
    say "asking sudo for root"
    exec sudo -E sh "$script" "$@"
}

# ---------------------------------------------------------------- packages

packages() { # packages PROGRAM:PACKAGE… : install the packages whose program is missing
    missing=
    for pair in "$@"; do
        have "${pair%%:*}" || missing="$missing ${pair#*:}"
    done
    install_packages $missing
}

install_packages() {
    [ $# -gt 0 ] || return 0
    if [ -n "${KEDGE_SKIP_PACKAGES:-}" ]; then
        die "missing: $*; install them, or run without KEDGE_SKIP_PACKAGES"
    fi
    say "installing packages: $*"
    if have apt-get; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    elif have dnf; then dnf install -y -q "$@"
    elif have apk; then apk add --quiet "$@"
    elif have zypper; then zypper --non-interactive --quiet install "$@"
    elif have pacman; then pacman -S --noconfirm --needed "$@"
    else die "no package manager known here; install by hand: $*"
    fi
}

build_packages() {
    if have apt-get; then
        lacking=
        for package in gcc libc6-dev pkg-config protobuf-compiler libnftnl-dev libmnl-dev; do
            dpkg -s "$package" >/dev/null 2>&1 || lacking="$lacking $package"
        done
        install_packages $lacking
    else
        packages gcc:gcc pkg-config:pkg-config protoc:protobuf-compiler
        pkg-config --exists libnftnl libmnl || die "install the development files of libnftnl and libmnl, then run again"
    fi
}

# ---------------------------------------------------------------- the executable

cargo_for_build() {
    for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" "${SUDO_HOME:-/root}/.cargo/bin"; do
        have cargo || PATH="$dir:$PATH"
    done
    export PATH
    if ! have cargo || ! cargo --version | awk '{split($2, v, "."); exit !(v[1] > 1 || v[2] >= 95)}'; then
        packages curl:curl
        say "installing Rust (rustup, minimal profile)"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --profile minimal --no-modify-path ||
            die "cannot install Rust: install Rust 1.95 or newer (https://rustup.rs) and run again"
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
}

build() { # build CHECKOUT
    build_packages
    cargo_for_build
    say "building kedge in $1 (a first build takes some minutes; later ones are short)"
    (cd "$1" && cargo build --release --locked --bin kedge)
}

download() { # download URL FILE
    if have curl; then curl -fsSL --retry 3 -o "$2" "$1"
    elif have wget; then wget -qO "$2" "$1"
    else packages curl:curl; curl -fsSL --retry 3 -o "$2" "$1"
    fi || die "cannot download $1"
}

fetch_release() { # fetch_release URL DIRECTORY
    file="kedge-linux-$(uname -m)"
    say "downloading $1/$file"
    download "$1/$file" "$2/$file"
    download "$1/$file.sha256" "$2/$file.sha256"
    wanted=$(awk '{print $1; exit}' "$2/$file.sha256")
    actual=$(sha256sum "$2/$file" | awk '{print $1}')
    [ "$wanted" = "$actual" ] || die "checksum of $file is $actual, expected $wanted: the download is damaged or not genuine"
    mv "$2/$file" "$2/kedge"
}

executable() { # find or make the executable; sets FOUND
    dir=$(here || true)
    if [ -n "${KEDGE_BINARY:-}" ]; then
        [ -f "$KEDGE_BINARY" ] || die "KEDGE_BINARY=$KEDGE_BINARY does not exist"
        FOUND=$KEDGE_BINARY
    elif [ -n "$dir" ] && [ -f "$dir/kedge" ]; then
        FOUND=$dir/kedge
    elif [ -n "$dir" ] && grep -q '^name = "kedge"' "$dir/Cargo.toml" 2>/dev/null; then
        build "$dir"
        FOUND=${CARGO_TARGET_DIR:-$dir/target}/release/kedge
    elif [ -n "${KEDGE_RELEASE_URL:-}" ]; then
        scratch=$(mktemp -d)
        trap 'rm -rf "$scratch"' EXIT
        fetch_release "${KEDGE_RELEASE_URL%/}" "$scratch"
        FOUND=$scratch/kedge
    else
        die "no executable: set KEDGE_BINARY or KEDGE_RELEASE_URL, or run from a checkout"
    fi
}

install_executable() {
    chmod +x "$FOUND" 2>/dev/null || true
    # An executable built from a checkout links these two dynamically; release executables are static.
    if "$FOUND" version 2>&1 | grep -q 'lib\(nftnl\|mnl\)\.so' && have apt-get; then
        install_packages libnftnl11 libmnl0
    fi
    "$FOUND" version >/dev/null 2>&1 || die "$FOUND does not run on this machine ($(uname -m)): $("$FOUND" version 2>&1 | head -1)"
    mkdir -p "$(dirname "$BIN")"
    if cmp -s "$FOUND" "$BIN"; then
        say "$BIN is up to date: $("$BIN" version)"
        return
    fi
    cp "$FOUND" "$BIN.new"
    chmod 0755 "$BIN.new"
    mv -f "$BIN.new" "$BIN"
    say "installed $BIN: $("$BIN" version)"
}

# ---------------------------------------------------------------- settings and service

role() { # server or agent: said, or by the address of a server, or as it was
    case "${1:-}" in
        server | agent) echo "$1"; return ;;
    esac
    case " $*" in
        *" --server"*) echo agent; return ;;
    esac
    if [ -n "${KEDGE_SERVER:-}" ] || { [ $# -eq 0 ] && grep -qs '^server:' "$DROPIN"; }; then
        echo agent
    else
        echo server
    fi
}

keep_flags() { # --key value, --key=value, --switch → lines of YAML
    case "${1:-}" in
        server | agent) shift ;;
    esac
    # The service does not see this shell's variables.
    case " $*" in
        *" --server"*) ;;
        *) [ -z "${KEDGE_SERVER:-}" ] || set -- "$@" --server "$KEDGE_SERVER" ;;
    esac
    case " $*" in
        *" --token"*) ;;
        *) [ -z "${KEDGE_TOKEN:-}" ] || set -- "$@" --token "$KEDGE_TOKEN" ;;
    esac
    [ $# -gt 0 ] || return 0
    mkdir -p "$(dirname "$DROPIN")"
    tmp=$DROPIN.new
    # It may hold the token.
    (umask 077; : >"$tmp")
    while [ $# -gt 0 ]; do
        case "$1" in
            --*=*) key=${1%%=*}; key=${key#--}; value=${1#*=}; shift ;;
            --*)
                key=${1#--}; shift
                case "${1:---}" in
                    --*) value=true ;;
                    *) value=$1; shift ;;
                esac ;;
            *) rm -f "$tmp"; die "expected --flag, got $1" ;;
        esac
        printf '%s: "%s"\n' "$key" "$(printf %s "$value" | sed 's/[\\"]/\\&/g')" >>"$tmp"
    done
    mv -f "$tmp" "$DROPIN"
    say "kept your flags in $DROPIN"
}

has_systemd() { [ -d /run/systemd/system ] && have systemctl; }

running_pid() {
    pid=$(cat "$RUN_DIR/kedge.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && grep -q kedge "/proc/$pid/comm" 2>/dev/null && echo "$pid"
}

start() {
    if has_systemd; then
        "$BIN" unit "$ROLE" >"$UNIT.new" && mv -f "$UNIT.new" "$UNIT"
        systemctl daemon-reload
        systemctl enable -q kedge.service
        say "starting kedge.service"
        systemctl restart kedge.service || die "it does not start: journalctl -u kedge.service"
        return
    fi
    if pid=$(running_pid); then
        say "stopping the running kedge (pid $pid; pods go on)"
        kill "$pid"
        for _ in $(seq 150); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    say "no systemd here: starting kedge in the background (log: $LOG, pid file: $RUN_DIR/kedge.pid)"
    say "  nothing starts it again after a reboot: run this script again, or 'kedge $ROLE' from your init"
    setsid nohup "$BIN" "$ROLE" >>"$LOG" 2>&1 </dev/null &
    STARTED=$!
}

wait_ready() {
    say "waiting for the node to be Ready"
    if ! "$BIN" status --wait --timeout 180; then
        [ -f "$LOG" ] && tail -n 15 "$LOG" >&2
        die "kedge is installed but not ready; see $(has_systemd && echo 'journalctl -u kedge' || echo "$LOG") and run: kedge check"
    fi
}

next_steps() {
    if [ "$ROLE" = agent ]; then
        cat <<EOF

This host is a node of the cluster now. On the server:

  kubectl get nodes -o wide

  kedge status      what runs here
  kedge check       what this host can do
  kedge uninstall   remove it all from this host (then, on the server: kubectl delete node NAME)
EOF
        return
    fi
    cat <<EOF

kedge runs. What to type next:

  export KUBECONFIG=/etc/kedge/kubeconfig.yaml
  kubectl get nodes
  kubectl create deployment web --image=nginx --replicas=2
  kubectl expose deployment web --port=80

  kedge status      what runs here
  kedge check       what this host can do
  kedge uninstall   remove it all

Another host joins with what this prints:

  kedge token create --print-join-command
EOF
    have kubectl || printf '\nThere is no kubectl on this host yet: https://kubernetes.io/docs/tasks/tools/\n'
}

main() {
    self=$(here || true)
    as_root "${self:+$self/$(basename "$0")}" "$@"
    [ "$(uname -s)" = Linux ] || die "kedge runs on Linux"
    ROLE=$(role "$@")
    packages containerd:containerd runc:runc
    # Debian's containerd package starts a containerd of its own; kedge uses its own and leaves that one alone.
    executable
    install_executable
    keep_flags "$@"
    if [ -n "${KEDGE_SKIP_START:-}" ]; then
        has_systemd && "$BIN" unit "$ROLE" >"$UNIT"
        say "installed, not started (KEDGE_SKIP_START)"
        return
    fi
    start
    wait_ready
    next_steps
}

main "$@"
