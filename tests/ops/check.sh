#!/bin/sh
# Checks what lies around the program: compose file, image, alerts, dashboard, operations.md.
# Finds or installs its tools (as root on Debian), then runs check.py. Last line: "N passed, M failed".
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=$root/.tools/ops
export DEBIAN_FRONTEND=noninteractive

apt_updated=
apt() {
    command -v apt-get >/dev/null || { echo "no apt-get here: cannot install what is missing" >&2; return 1; }
    if [ -z "$apt_updated" ]; then
        apt-get -o DPkg::Lock::Timeout=120 -qq update >&2 || return 1
        apt_updated=yes
    fi
    apt-get -o DPkg::Lock::Timeout=120 -qq "$@" >&2
}

command -v python3 >/dev/null || apt install -y --no-install-recommends python3

# promtool is a package of its own since Debian 13. Before, it is in the package of the server, which would
# start one. So it is unpacked, not installed.
PROMTOOL=$(command -v promtool || true)
if [ -z "$PROMTOOL" ]; then
    PROMTOOL=$tools/promtool/usr/bin/promtool
    if [ ! -x "$PROMTOOL" ]; then
        rm -rf "$tools/deb"
        mkdir -p "$tools/deb"
        (cd "$tools/deb" && { apt download promtool || apt download prometheus; } && dpkg-deb -x ./*.deb "$tools/promtool")
        rm -rf "$tools/deb"
    fi
fi

# Each of these reads the compose file; none of them needs a running daemon for that.
compose() {
    if docker compose version >/dev/null 2>&1; then echo "docker compose"
    elif docker-compose version >/dev/null 2>&1; then echo "docker-compose"
    fi
}
COMPOSE=$(compose)
if [ -z "$COMPOSE" ] && [ "$(id -u)" = 0 ]; then
    apt install -y --no-install-recommends docker-compose || true
    COMPOSE=$(compose)
fi

export PROMTOOL COMPOSE PYTHONDONTWRITEBYTECODE=1
exec python3 "$here/check.py"
