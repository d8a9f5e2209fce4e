#!/bin/sh
# Creates Temporal's databases, or upgrades them to this image's version. It may run again at any time: existing data
# stays. The SQL_* variables say where.
set -eu

for database in temporal:temporal temporal_visibility:visibility; do
    name=${database%:*}
    temporal-sql-tool --db "$name" create
    temporal-sql-tool --db "$name" setup-schema -v 0.0
    temporal-sql-tool --db "$name" update-schema -d "/etc/temporal/schema/postgresql/v12/${database#*:}/versioned"
done
