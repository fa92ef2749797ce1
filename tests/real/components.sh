#!/bin/sh
# What the tests in this folder drive: Chromium and PostgreSQL, from Debian's packages. Root has them installed; anybody
# else is told what to do. Nothing is skipped for the lack of one.
missing=""
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql"
test -z "$missing" && exit 0
if test "$(id -u)" = 0 && command -v apt-get >/dev/null 2>&1; then
  # shellcheck disable=SC2086  # one word a package
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $missing >/dev/null
else
  echo "make test-real needs:$missing. As root, on Debian: apt-get install$missing" >&2
  exit 1
fi
