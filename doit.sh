#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The entry point: ./doit.sh [--offline] [TASK…]
#
# Checks that the host has the required programs, and installs them if it is allowed to. Creates the virtual environment
# in out/venv if requirements.txt, the path of this directory or the Python interpreter changed. Then runs doit with the
# same arguments. The host needs no compiler: compilers come from the locked build root.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
venv=$root/out/venv
python=${PYTHON:-python3}

fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf 'hint: %s\n' "$hint" >&2; done
    exit 2
}

# lacks PROGRAM PACKAGE: prints the package if the host does not have the program.
lacks() {
    command -v "$1" >/dev/null || echo "$2"
}

# Prints the Debian packages whose programs are missing for these tasks.
missing_packages() {
    fits || "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv
    lacks bwrap bubblewrap
    lacks gpgv gpgv
    for task in "$@"; do
        case $task in
        # Signs and verifies releases.
        test | release | verify:release | attest | tuf:*) lacks ssh-keygen openssh-client ;;
        esac
        case $task in
        # Compare two builds; vary the order of files in directories.
        test | repro*)
            lacks diffoscope diffoscope-minimal
            lacks disorderfs disorderfs
            ;;
        esac
        case $task in
        # Runs VMs in containers.
        test | run:oci) lacks podman podman ;;
        esac
        case $task in
        test)
            # Shows the host calls of a VM.
            lacks strace strace
            # The network of VMs that ordinary users start.
            lacks passt passt
            # Its rules, --allow and --deny.
            [ -x /usr/sbin/nft ] || lacks nft nftables
            # Check the container image and a signature independently.
            lacks skopeo skopeo
            lacks umoci umoci
            lacks openssl openssl
            # Connects the machines of a farm, in network namespaces.
            [ -x /usr/sbin/ip ] || lacks ip iproute2
            # Serves a store of results.
            [ -x /usr/sbin/nginx ] || lacks nginx nginx-light
            # Opens the report of a release.
            lacks chromium chromium
            ;;
        esac
    done
}

# Installs packages as root or with a password-less sudo; otherwise prints the command to run.
install_packages() {
    command="apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || fail "this host lacks: $*" "install the equivalents of these Debian packages"
    if [ "$(id -u)" = 0 ]; then
        become=
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        become='sudo -n'
    else
        fail "this host lacks: $*" "run: sudo $command"
    fi
    if [ "${NABLA_OFFLINE:-0}" != 0 ]; then fail "this host lacks: $* (offline)" "run: $command"; fi
    printf 'installing %s …\n' "$*" >&2
    # Word splitting is intended: "sudo -n" and the package names are separate words.
    # shellcheck disable=SC2086
    $become env DEBIAN_FRONTEND=noninteractive $command >/dev/null 2>&1 ||
        { $become apt-get update -q >/dev/null && $become env DEBIAN_FRONTEND=noninteractive $command >/dev/null; } ||
        fail "could not install: $*" "run: $command"
}

# Prints what the virtual environment depends on: this directory's path, the lock file, the interpreter.
fingerprint() {
    printf '%s\n' "$root"
    sha256sum <"$root/requirements.txt"
    stat -L -c '%s %Y' "$venv/bin/python" 2>&1
}

fits() {
    [ -x "$venv/bin/python" ] && [ "$(cat "$venv/fingerprint" 2>/dev/null)" = "$(fingerprint)" ]
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check "$@" >>"$log" 2>&1
}

make_venv() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or later is needed, $python is $("$python" -V)" "PYTHON=/path/to/python3 ./doit.sh"
    printf 'creating the virtual environment (once) …\n' >&2
    log=$root/out/logs/venv.log
    # The cache of wheels lets other checkouts work without a network.
    wheels=${NABLA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/nabla}/wheels
    rm -rf "$venv"
    mkdir -p "$root/out/logs" "$wheels"
    if [ "${NABLA_OFFLINE:-0}" != 0 ] && [ -z "$(ls "$wheels")" ]; then fail_offline; fi
    "$python" -m venv "$venv" >"$log" 2>&1 || fail_venv "the virtual environment could not be created"
    if ! install_wheels; then
        if [ "${NABLA_OFFLINE:-0}" != 0 ]; then fail_offline; fi
        pip download --require-hashes --no-deps --only-binary=:all: \
            --requirement "$root/requirements.txt" --dest "$wheels" ||
            fail_venv "the Python packages of requirements.txt could not be fetched"
        install_wheels || fail_venv "the Python packages of requirements.txt could not be installed"
    fi
    # Lets `doit` in the environment find the package nabla.
    for site in "$venv"/lib/python3*/site-packages; do printf '%s\n' "$root" >"$site/nabla.pth"; done
    fingerprint >"$venv/fingerprint"
}

install_wheels() {
    PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS='' pip install --no-index --find-links "$wheels" \
        --require-hashes --no-deps --requirement "$root/requirements.txt"
}

fail_offline() {
    fail "the Python packages of requirements.txt are not in $wheels (offline)" "run ./doit.sh once with a network"
}

fail_venv() {
    tail -n 20 "$log" >&2
    fail "$1" "the whole log: out/logs/venv.log"
}

for argument in "$@"; do
    shift
    if [ "$argument" = --offline ]; then
        NABLA_OFFLINE=1
        export NABLA_OFFLINE
    else
        set -- "$@" "$argument"
    fi
done

packages=$(missing_packages "$@")
# shellcheck disable=SC2086
if [ -n "$packages" ]; then install_packages $packages; fi

mkdir -p "$root/out"
if ! fits; then
    (
        # Concurrent runs must not create it twice; flock is part of every Debian (util-linux).
        if command -v flock >/dev/null; then flock 9; fi
        fits || make_venv
    ) 9>"$root/out/.venv.lock"
fi

cd "$root"
# configure scripts use one processor, so two tasks run at a time; the tests themselves run afterwards on the terminal.
case " $* " in *" test "*) "$venv/bin/python" -m doit -n 2 ready ;; esac
exec "$venv/bin/python" -m doit "$@"
