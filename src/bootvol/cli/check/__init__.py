"""The contract suites that `bootvol plugin check` runs on plugins as configured."""
