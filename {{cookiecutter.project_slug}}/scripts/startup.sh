#!/bin/sh
# Start command of the container: wait for the database, migrate it under a lock, then serve. This is
# one process, so that SIGTERM always reaches it. Wrong settings or a failed migration end it before
# it serves, with the reason on one line.
set -eu
exec app serve --migrate
