#!/bin/bash
# Asks the gateway's /healthz over HTTP with nothing but bash and coreutils, so that the image needs no curl.
# Exit 0: it answered 200. Exit 1: anything else, 3 seconds of silence included.
# usage: healthcheck.sh [path]   the port is that of TOLLWAY_LISTEN (default 8402)
set -u
path=${1:-/healthz}
listen=${TOLLWAY_LISTEN:-127.0.0.1:8402}
export path port="${listen##*:}"

# shellcheck disable=SC2016  # the inner shell expands these
timeout 3 bash -c '
  exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
  printf "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" "$path" >&3 || exit 1
  read -r _ status _ <&3 || exit 1
  [ "$status" = 200 ]
' 2>/dev/null || exit 1
