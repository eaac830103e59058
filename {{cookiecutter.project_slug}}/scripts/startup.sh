#!/bin/sh
# What a container runs: wait for the database, migrate it under a lock, then serve. It is one
# process, so that SIGTERM reaches it at every moment. Bad settings or a failed migration end it,
# with the reason on one line; nothing is served.
set -eu
exec app serve --migrate
