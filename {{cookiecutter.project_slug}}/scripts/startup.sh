#!/bin/sh
# What a container runs: refuse bad settings, migrate, then become the server, so that SIGTERM
# reaches it. Any failure ends it here, with the reason on one line; nothing is served.
set -eu
app check --settings
app migrate
exec app serve
