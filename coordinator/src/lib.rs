//! The coordinator: plans builds, keeps them in Postgres, hands stages to workers.
