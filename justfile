# Everything that CI checks, in the same order
check:
    .ci/run

# All tests, or those that the arguments select: `just test golden`
test *arguments:
    launch/test {{arguments}}

# Write docs/reference anew, then look at every snapshot that changed and accept it or not (needs cargo-insta)
bless:
    SCRIMP_BLESS=1 launch/test reference
    cargo insta test --review

# Compare every formula with the golden files of another folder
golden-check folder:
    SCRIMP_GOLDEN_DIR={{absolute_path(folder)}} launch/test golden

# Train every configuration of a few seconds once
smoke:
    #!/usr/bin/env bash
    set -euo pipefail
    launch/setup
    runs=$(mktemp -d)
    trap 'rm -rf "$runs"' EXIT
    for config in configs/smoke/*.toml; do
        target/release/scrimp train "$config" --run "$runs/$(basename "$config" .toml)"
    done

# The crate's documentation, in the browser
docs:
    cargo doc --no-deps --document-private-items --open
