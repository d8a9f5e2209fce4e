#!/bin/sh
# Creates the namespace with its retention and search attributes, or updates them. It may run again at any time, and ends
# when the server serves it. TEMPORAL_ADDRESS says where.
set -eu

namespace=${TEMPORAL_NAMESPACE:?} # the CLI's own `namespace create` does not read this variable
retention=${NAMESPACE_RETENTION:?}
tries=${TRIES:-60}

# A server that has just started does not know everything at once.
until_it_works() {
    left=$tries
    until output=$("$@" 2>&1); do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then
            echo "namespace $namespace: $output" >&2
            exit 1
        fi
        sleep 1
    done
    echo "$output"
}

set_namespace() {
    if temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1; then
        temporal operator namespace update --namespace "$namespace" --retention "$retention"
    else
        temporal operator namespace create --namespace "$namespace" --retention "$retention"
    fi
}

# One at a time: given several names, the CLI adds the first one only, and says that all were added.
add_search_attribute() {
    temporal operator search-attribute create --namespace "$namespace" --type "$1" --name "$2"
}

# A worker can set an attribute that queries know.
can_be_queried() {
    temporal workflow count --namespace "$namespace" --query "$1 IS NULL"
}

until_it_works temporal operator cluster health
until_it_works set_namespace
for attribute in Keyword:SeedanceUser Keyword:SeedanceRoute Keyword:SeedanceModel Keyword:SeedancePhase \
    Keyword:SeedanceTaskId Keyword:SeedanceAttention Int:SeedanceTokens Double:SeedanceCostUsd \
    Double:SeedanceCostCny; do
    until_it_works add_search_attribute "${attribute%:*}" "${attribute#*:}"
done
until_it_works can_be_queried SeedanceCostCny
