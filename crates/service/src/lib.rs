//! What both daemons need: lifecycle, telemetry, health, configuration loading.
