#!/bin/sh
# What a container runs: migrate, then become the server, so that SIGTERM reaches it. Bad
# settings or a failed migration end it here, with the reason on one line; nothing is served.
set -eu
app migrate
exec app serve
