#!/bin/sh
# Installs what the tests run against and pip cannot bring: PostgreSQL and Chromium, and the commands
# that are named as arguments.
set -eu
missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql"
for command in chromium "$@"; do
    command -v "$command" >/dev/null 2>&1 || missing="$missing $command"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "install$missing with your package manager, then run make again" >&2
    exit 1
fi
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -qq
# shellcheck disable=SC2086 # the names are words of their own
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $missing >/dev/null
